"""Files of weights go from the wrapper to the model it wraps, and back, in every format of Keras'."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_itdm import ITDMModel
from tests.networks import NUM_CLASSES, compiled, convolutional, data


def test_weights_of_the_plain_model_load_into_the_wrapper_and_back(tmp_path):
    x, _ = data(8)
    model, itdm = convolutional(seed=1), ITDMModel(convolutional(seed=2), "features")
    model.save_weights(tmp_path / "plain.weights.h5")
    itdm.load_weights(tmp_path / "plain.weights.h5")
    np.testing.assert_array_equal(itdm.predict(x, verbose=0), model.predict(x, verbose=0))

    compiled(itdm).fit(*data(), batch_size=16, epochs=1, verbose=0)
    itdm.save_weights(tmp_path / "wrapped.weights.h5")
    third = ITDMModel(convolutional(seed=3), "features")
    third.load_weights(tmp_path / "wrapped.weights.h5")
    np.testing.assert_array_equal(itdm.predict(x, verbose=0), third.predict(x, verbose=0))
    itdm.base_model.save_weights(tmp_path / "back.weights.h5")
    model.load_weights(tmp_path / "back.weights.h5")
    np.testing.assert_array_equal(itdm.predict(x, verbose=0), model.predict(x, verbose=0))
    for plain in (convolutional(seed=4), compiled(convolutional(seed=4))):
        plain.load_weights(tmp_path / "wrapped.weights.h5")
        np.testing.assert_array_equal(itdm.predict(x, verbose=0), plain.predict(x, verbose=0))


class OfABaseModel(keras.Model):
    """Its attributes have the names that the wrapper's have, or that stand in its files."""

    def __init__(self):
        super().__init__()
        self.base_model = keras.Sequential([layers.Flatten(), layers.Dense(8)], name="backbone")
        self.itdm = layers.Dense(8, name="features")
        self.classifier = layers.Dense(NUM_CLASSES, activation="softmax")

    def call(self, inputs):
        return self.classifier(self.itdm(self.base_model(inputs)))


@pytest.mark.parametrize(
    ("network", "form"),
    [(convolutional, form) for form in ("weights.h5", "weights.json", "keras", "h5")]
    + [(OfABaseModel, form) for form in ("weights.h5", "weights.json")],
)
def test_files_of_either_load_into_the_wrapper(network, form, tmp_path):
    x, _ = data(8)

    def built(seed):
        keras.utils.set_random_seed(seed)
        model = network()
        model(x)
        return ITDMModel(model, "features")

    def save(model, path):
        if not form.startswith("weights"):
            return model.save(path)
        sizes = {"max_shard_size": 2e-6} if form == "weights.json" else {}
        return model.save_weights(path, **sizes)

    trained = built(1)
    trained.match_weight = 0.3
    save(trained.base_model, tmp_path / f"plain.{form}")
    files = {"plain": 0.8}
    if form != "h5":
        save(trained, tmp_path / f"wrapped.{form}")
        files["wrapped"] = pytest.approx(0.3)
    for name, match_weight in files.items():
        other = built(2)
        other.load_weights(tmp_path / f"{name}.{form}")
        for one, expected in zip(other.get_weights(), trained.get_weights(), strict=True):
            np.testing.assert_array_equal(one, expected)
        assert other.match_weight == match_weight
    if form == "weights.h5":
        plain = built(3).base_model
        plain.load_weights(tmp_path / "wrapped.weights.h5")
        np.testing.assert_array_equal(plain.get_weights()[0], trained.get_weights()[0])


def test_a_weight_file_brings_back_the_optimizer_and_one_of_an_earlier_release_loads(tmp_path):
    import h5py

    x, y = data()
    itdm = compiled(ITDMModel(compiled(convolutional()), "features"))
    itdm.fit(x, y, batch_size=16, verbose=0)
    itdm.match_weight = 0.3
    itdm.save_weights(tmp_path / "wrapped.weights.h5")
    with h5py.File(tmp_path / "wrapped.weights.h5") as file, h5py.File(tmp_path / "old.weights.h5", "w") as old:
        base = old.create_group("base_model")
        for name in file:
            if name == "itdm":
                for own in file["itdm"]:
                    file.copy(f"itdm/{own}", old)
            else:
                file.copy(name, base)
    for name in ("wrapped", "old"):
        other = compiled(ITDMModel(compiled(convolutional(seed=9)), "features"))
        other.optimizer.build(other.trainable_variables)
        other.load_weights(tmp_path / f"{name}.weights.h5")
        np.testing.assert_array_equal(itdm.predict(x, verbose=0), other.predict(x, verbose=0))
        assert other.match_weight == pytest.approx(0.3)
        assert int(other.optimizer.iterations) == int(itdm.optimizer.iterations) > 0


def test_weights_elsewhere_than_on_this_machine_are_left_to_keras(monkeypatch):
    asked = []
    for name in ("save_weights", "load_weights"):
        monkeypatch.setattr(
            keras.Model, name, lambda self, filepath, *args, **kwargs: asked.append((type(self), filepath))
        )
    itdm = ITDMModel(convolutional(), "features")
    itdm.save_weights("gs://bucket/of.weights.h5")
    itdm.load_weights("gs://bucket/of.weights.h5")
    assert asked == 2 * [(ITDMModel, "gs://bucket/of.weights.h5")]


def test_the_old_format_saves_and_loads_or_is_refused(tmp_path):
    itdm = compiled(ITDMModel(convolutional(), "features"))
    itdm.fit(*data(), batch_size=16, epochs=1, verbose=0)
    with pytest.raises(ValueError, match=r"\.keras"):
        itdm.save(tmp_path / "itdm.h5")
