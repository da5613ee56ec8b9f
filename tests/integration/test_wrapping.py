"""A wrapper that passes for the model it wraps: its loss, its metrics, its layers, its precision, its weights."""

import contextlib

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_itdm import ITDMModel
from keras_itdm.losses import ClassConditionalMMD
from tests.networks import NUM_CLASSES, Subclassed, compiled, convolutional, data


def values_of(model):
    return [ops.convert_to_numpy(variable) for variable in model.trainable_variables]


# The base model's own logic


class Hundredfold(Subclassed):
    """A loss and a metric of its own."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.largest = keras.metrics.Mean(name="largest_probability")

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        self.largest.update_state(ops.max(y_pred, axis=-1))
        return 100 * ops.mean(keras.losses.sparse_categorical_crossentropy(y, y_pred)) + sum(self.losses)


def train(wrap, model=Hundredfold, loss=None, **options):
    keras.utils.set_random_seed(1)
    model = wrap(model())
    model.compile(keras.optimizers.SGD(1e-3), loss, **options)
    keras.utils.set_random_seed(2)
    x, y = data()
    return model, model.fit(x, y, batch_size=16, epochs=2, verbose=0).history


@pytest.mark.parametrize("loss", [None, "sparse_categorical_crossentropy"])
def test_the_loss_that_trains_is_the_base_models_own(loss):
    plain, expected = train(lambda model: model, loss=loss)
    itdm, history = train(lambda model: ITDMModel(model, "features", match_weight=0.0), loss=loss)
    assert expected["loss"][0] > 50
    for name in ("loss", "largest_probability"):
        np.testing.assert_allclose(history[name], expected[name], rtol=1e-6)
    for one, other in zip(values_of(plain), values_of(itdm), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)
    itdm, history = train(lambda model: ITDMModel(model, "features"), loss=loss)
    assert history["loss"][0] > 50
    assert history["match_loss"][0] > 0.01
    x, y = data()
    assert set(itdm.evaluate(x, y, verbose=0, return_dict=True)) == {"loss", "largest_probability"}


def test_a_loss_that_asks_for_the_compiled_one():
    class Doubled(Subclassed):
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            return 2 * super().compute_loss(x, y, y_pred, sample_weight, training)

    once, twice = (
        train(lambda model: ITDMModel(model, "features", match_weight=0.0), kind, "sparse_categorical_crossentropy")[1]
        for kind in (Subclassed, Doubled)
    )
    assert twice["loss"][0] == pytest.approx(2 * once["loss"][0], rel=0.05)


def test_losses_that_layers_add_count_once():
    """Also in a loss of the base model's own, which finds them in its `losses`."""

    def penalized(own):
        class Penalized(Subclassed):
            def call(self, inputs):
                self.add_loss(0.1 * ops.mean(inputs**2))
                return super().call(inputs)

        if own:
            Penalized.compute_loss = lambda self, *args, **kwargs: keras.Model.compute_loss(self, *args, **kwargs)
        return train(
            lambda model: ITDMModel(model, "features", match_weight=0.0), Penalized, "sparse_categorical_crossentropy"
        )[1]

    np.testing.assert_allclose(penalized(True)["loss"], penalized(False)["loss"], rtol=1e-6)


@pytest.mark.parametrize(
    "method", ["train_step", "test_step", "predict_step", "compute_metrics", "fit", "evaluate", "predict", "compile"]
)
def test_what_cannot_be_carried_along_is_refused_by_name(method):
    model = type("Own", (Subclassed,), {method: lambda self, *args, **kwargs: None})()
    with pytest.raises(ValueError, match=f"Own overrides `{method}`"):
        ITDMModel(model, "features")


def test_a_teacher_that_is_matched_itself():
    """A model that holds an `ITDMModel` reads its own features, not its teacher's."""
    x, y = data()
    teacher = compiled(ITDMModel(convolutional(), "features"))
    teacher.fit(x, y, batch_size=16, epochs=1, verbose=0)
    teacher.trainable = False
    inputs = keras.Input((6, 6, 1))
    features = layers.Dense(5, name="features")(layers.Flatten()(inputs))
    outputs = layers.Average()([layers.Dense(NUM_CLASSES, activation="softmax")(features), teacher(inputs)])
    student = compiled(ITDMModel(keras.Model(inputs, outputs), "features", max_share=None))
    before = [ops.convert_to_numpy(variable) for variable in teacher.base_model.trainable_variables]
    assert student.fit(x, y, batch_size=16, epochs=1, verbose=0).history["match_loss"][0] > 0.01
    for variable, value in zip(teacher.base_model.trainable_variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)


# Precision


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_inputs_are_not_cast_before_the_model_casts_them(policy):
    def network():
        keras.utils.set_random_seed(1)
        inputs = keras.Input((3,)), keras.Input((1,), dtype="float32")
        embedded = layers.Flatten()(layers.Embedding(4000, 2, dtype=policy)(inputs[0]))
        scaled = layers.Rescaling(1e-5, dtype="float32")(inputs[1])
        features = layers.Dense(4, name="features", dtype=policy)(layers.Concatenate(dtype=policy)([embedded, scaled]))
        return keras.Model(inputs, layers.Dense(3, activation="softmax", dtype="float32")(features))

    rng = np.random.default_rng(0)
    x = [rng.integers(2909, 4000, size=(48, 3)).astype("float32"), rng.uniform(70_000, 1e5, (48, 1)).astype("float32")]
    y = rng.integers(3, size=48)
    histories, models = [], []
    for match_weight in (None, 0.0, 0.5):
        model = network()
        model = model if match_weight is None else ITDMModel(model, "features", match_weight=match_weight)
        model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
        keras.utils.set_random_seed(2)
        histories.append(model.fit(x, y, batch_size=16, epochs=2, verbose=0).history)
        models.append(model)
    plain, unmatched, matched = models
    assert np.isfinite(histories[2]["loss"]).all()
    assert histories[0]["loss"] == histories[1]["loss"]
    for one, other in zip(values_of(plain), values_of(unmatched), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(plain.predict(x, verbose=0), unmatched.predict(x, verbose=0))
    np.testing.assert_array_equal(matched.predict(x, verbose=0), matched.base_model.predict(x, verbose=0))


# Layers that are not called by `call`


@pytest.mark.parametrize("mode", ["full", "activations", "list_of_layers"])
@pytest.mark.parametrize("max_share", [None, 1.0])
def test_layers_that_are_computed_again(mode, max_share):
    """Under `keras.RematScope` the features are read, and their gradient is taken, as without."""

    def trained(scope):
        with scope:
            keras.utils.set_random_seed(1)
            network = [layers.Flatten(), layers.Dense(8, "tanh", name="features"), layers.Dense(3, "softmax")]
            model = keras.Sequential([keras.Input((6, 6, 1)), *network])  # what draws is drawn anew when it is repeated
            model = ITDMModel(model, "features", match_weight=2.0, max_share=max_share)
        with scope:
            in_graph = keras.backend.backend() != "tensorflow"  # there Keras' own models cannot be, in these modes
            model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", run_eagerly=not in_graph)
            history = model.fit(*data(), batch_size=16, epochs=1, shuffle=False, verbose=0).history
        return history, values_of(model)

    expected, variables = trained(contextlib.nullcontext())
    names = ["features"] if mode == "list_of_layers" else None
    history, others = trained(keras.RematScope(mode=mode, layer_names=names))
    assert history["match_loss"] == pytest.approx(expected["match_loss"], rel=1e-3)
    for one, other in zip(variables, others, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_a_quantized_layer():
    x, y = data()
    model = convolutional()
    model.get_layer("features").quantize("int8")
    itdm = compiled(ITDMModel(model, "features"))
    assert itdm.fit(x, y, batch_size=16, epochs=1, verbose=0).history["match_loss"][0] > 0.01


# Labels


def binary(activation):
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            layers.Flatten(),
            layers.Dense(8, activation="relu", name="features"),
            layers.Dense(1, activation=activation),
        ]
    )


@pytest.mark.parametrize("partner", ["stream", "split"])
def test_a_binary_classifier_has_two_classes(partner):
    """With a probability or a logit, labels smoothed or not, of either shape: as where the classes are given."""
    x, y = data()
    y = (y == 1).astype("float32")

    def match_loss(labels, activation="sigmoid", **options):
        itdm = ITDMModel(binary(activation), "features", partner=partner, **options)
        itdm.compile(keras.optimizers.SGD(0.0), keras.losses.BinaryCrossentropy(from_logits=activation is None))
        keras.utils.set_random_seed(2)
        return itdm.fit(x, labels, batch_size=16, epochs=1, verbose=0).history["match_loss"][0]

    expected = pytest.approx(match_loss(y, matching=ClassConditionalMMD(2)), rel=1e-5)
    assert match_loss(y) == expected
    assert match_loss(y[:, None], activation=None) == expected
    assert match_loss(0.1 + 0.8 * y) == expected
    assert match_loss(0.1 + 0.8 * y[:, None]) == expected


@pytest.mark.parametrize("partner", ["stream", "split"])
def test_rows_of_zeros_are_unlabelled(partner):
    x, y = data()
    known = np.arange(len(y)) % 3 > 0
    rows = np.where(known[:, None], np.eye(NUM_CLASSES)[y], 0).astype("float32")
    matches = []
    for labels, loss in ((rows, "categorical_crossentropy"), (np.where(known, y, -1), lambda y, p: 0 * p[:, 0])):
        itdm = ITDMModel(convolutional(), "features", partner=partner)
        itdm.compile(keras.optimizers.SGD(0.0), loss)
        keras.utils.set_random_seed(2)
        matches.append(itdm.fit(x, labels, batch_size=32, epochs=1, verbose=0).history["match_loss"][0])
    assert matches[0] == pytest.approx(matches[1], rel=1e-5)


def test_targets_that_are_no_classes_may_be_matched_jointly():
    x, _ = data()
    targets = np.random.default_rng(0).normal(size=(len(x), NUM_CLASSES)).astype("float32")
    itdm = ITDMModel(convolutional(), "features", matching="joint")
    itdm.compile(keras.optimizers.SGD(0.01), "mse")
    assert itdm.fit(x, targets, batch_size=16, epochs=1, verbose=0).history["match_loss"][0] > 0.01


# A Keras model


def test_layers_inputs_and_outputs_are_the_base_models():
    model = convolutional()
    model = keras.Model(model.inputs, model.outputs[0])
    itdm = ITDMModel(model, "features")
    assert itdm.layers == model.layers
    assert itdm.get_layer("features") is itdm.get_layer(index=-3) is model.get_layer("features")
    assert itdm.input_shape == (None, 6, 6, 1)
    assert itdm.output_shape == (None, NUM_CLASSES)
    assert itdm.inputs == model.inputs
    assert itdm.outputs == model.outputs
    assert itdm.input is model.input
    assert itdm.output is model.output
    reader = keras.Model(itdm.inputs, itdm.get_layer("features").output)
    assert reader(data(4)[0]).shape == (4, 8)
    assert itdm.operations == model.operations
    assert itdm.count_params() == model.count_params()
    other = convolutional(seed=2)
    itdm.set_weights(other.get_weights())
    for one, expected in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(one, expected)
    other.set_weights(itdm.get_weights())


def test_building_builds_the_base_model(tmp_path):
    model = keras.Sequential([layers.Flatten(), layers.Dense(8, name="features"), layers.Dense(3, "softmax")])
    itdm = ITDMModel(model, "features")
    itdm.build((None, 6, 6, 1))
    assert model.built
    assert itdm.count_params() == 36 * 8 + 8 + 8 * 3 + 3
    itdm.save_weights(tmp_path / "of_the_wrapper.weights.h5")
    assert len(model.weights) == 4


@pytest.mark.parametrize("metrics", [[], ["accuracy"]])
def test_train_on_batch_returns_what_the_plain_model_returns(metrics):
    x, y = data()
    plain = compiled(convolutional(), metrics=metrics)
    itdm = compiled(ITDMModel(convolutional(), "features"), metrics=metrics)
    expected, received = plain.train_on_batch(x, y), itdm.train_on_batch(x, y)
    assert np.shape(expected) == np.shape(received)
    assert {"loss", "match_loss", "match_weight"} <= set(itdm.train_on_batch(x, y, return_dict=True))


def test_feature_layer_by_index_or_as_the_layer_itself():
    model = convolutional()
    for given in (-3, len(model.layers) - 3, np.int64(-3), model.get_layer("features")):
        assert ITDMModel(model, given).feature_layer == "features"
    with pytest.raises(ValueError, match="has 7 layers"):
        ITDMModel(model, 7)
    with pytest.raises(ValueError, match="'features' is not in the model"):
        ITDMModel(model, convolutional().get_layer("features"))


@keras.saving.register_keras_serializable(package="keras_itdm_tests")
class Unnamed(keras.Model):
    """Its layers have automatic names, which are others in each instance."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.flatten = layers.Flatten()
        self.hidden = layers.Dense(8, activation="relu")
        self.classifier = layers.Dense(NUM_CLASSES, activation="softmax")

    def call(self, inputs):
        return self.classifier(self.hidden(self.flatten(inputs)))


@pytest.mark.parametrize("feature_layer", [-2, "by name"])
def test_a_feature_layer_of_an_automatic_name_is_loaded(feature_layer, tmp_path):
    x, y = data()
    model = Unnamed()
    itdm = compiled(ITDMModel(model, model.hidden.name if feature_layer == "by name" else feature_layer))
    itdm.fit(x, y, batch_size=16, epochs=1, verbose=0)
    itdm.save(tmp_path / "itdm.keras")
    loaded = keras.saving.load_model(tmp_path / "itdm.keras")
    assert loaded.feature_layer == loaded.base_model.hidden.name != model.hidden.name
    np.testing.assert_array_equal(itdm.predict(x, verbose=0), loaded.predict(x, verbose=0))
    assert loaded.fit(x, y, batch_size=16, epochs=1, verbose=0).history["match_loss"][0] > 0.01


def test_an_optional_input_may_be_none():
    x, y = data()
    inputs = keras.Input((6, 6, 1), name="image"), keras.Input((6, 6, 1), name="other", optional=True)

    class AddIfThere(layers.Layer):
        def call(self, image, other=None):
            return image if other is None else image + other

        def compute_output_shape(self, image_shape, other_shape=None):
            return image_shape

    features = layers.Dense(8, name="features")(layers.Flatten()(AddIfThere()(*inputs)))
    model = keras.Model({"image": inputs[0], "other": inputs[1]}, layers.Dense(3, activation="softmax")(features))
    for partner in ("stream", "split"):
        itdm = compiled(ITDMModel(model, "features", partner=partner))
        history = itdm.fit({"image": x, "other": None}, y, batch_size=16, epochs=1, verbose=0).history
        assert history["match_loss"][0] > 0.01


def test_early_stopping_knows_that_less_match_is_better():
    itdm = compiled(ITDMModel(convolutional(), "features"))
    stopping = keras.callbacks.EarlyStopping(monitor="match_loss", patience=100)
    itdm.fit(*data(), batch_size=16, epochs=2, verbose=0, callbacks=[stopping])
    assert stopping.monitor_op(0.0, 1.0)


def test_what_was_not_computed_is_not_a_number():
    history = compiled(ITDMModel(convolutional(), "features", match_weight=0.0)).fit(*data(), epochs=1, verbose=0)
    assert np.isnan(history.history["match_loss"]).all()
