"""Bad input is told what was expected and what came, before training starts."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_itdm import ITDMModel, zip_batches
from keras_itdm.losses import ClassConditionalMMD
from tests.networks import Subclassed, compiled, convolutional, data


def functional(**options):
    a = keras.Input((6, 6, 1), name="image")
    flat = layers.Flatten(name="flat")(a)
    features = layers.Dense(8, name="features")(flat)
    outputs = layers.Dense(3, activation="softmax", name="classifier")(features)
    return keras.Model(a, options.get("outputs", lambda f, o: o)(features, outputs))


class Recurrent(keras.Model):
    """Calls one layer twice, and one that returns several tensors."""

    def __init__(self):
        super().__init__()
        self.shared = layers.Dense(36, name="shared")
        self.lstm = layers.LSTM(4, return_state=True, name="lstm")
        self.unused = layers.Dense(3, name="unused")
        self.classifier = layers.Dense(3, activation="softmax", name="classifier")

    def call(self, x):
        x = self.shared(self.shared(keras.ops.reshape(x, (-1, 36))))
        return self.classifier(self.lstm(keras.ops.reshape(x, (-1, 6, 6)))[0])


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda: ITDMModel("model", "features"), TypeError, "should be a keras.Model. Received: 'model'"),
        (lambda: ITDMModel(ITDMModel(convolutional(), "features"), "features"), TypeError, "an ITDMModel already"),
        (
            lambda: ITDMModel(functional(), "feature"),
            ValueError,
            "no layer 'feature'.*mean 'features'.*It has: 'image'",
        ),
        (lambda: ITDMModel(functional(), "outer/features"), ValueError, "Did you mean 'features'"),
        (lambda: ITDMModel(functional(), ""), ValueError, "should be the name of a layer. Received: ''"),
        (lambda: ITDMModel(functional(), None), ValueError, "should be the name of a layer. Received: None"),
        (lambda: ITDMModel(functional(), "image"), ValueError, "no output of its own: it is an input"),
        (
            lambda: ITDMModel(functional(), "features", "marginal"),
            ValueError,
            r"one of \['joint'.*Received: 'marginal'",
        ),
        (lambda: ITDMModel(functional(), "features", None), ValueError, "or a MatchingLoss. Received: None"),
        (lambda: ITDMModel(functional(), "features", partner="both"), ValueError, "Received: 'both'"),
        (lambda: ITDMModel(functional(), "features", match_weight=-1), ValueError, "at least 0. Received: -1"),
        (lambda: ITDMModel(functional(), "features", match_weight=np.nan), ValueError, "at least 0. Received: nan"),
        (lambda: ITDMModel(functional(), "features", match_weight=np.inf), ValueError, "at least 0. Received: inf"),
        (lambda: ITDMModel(functional(), "features", match_weight="high"), ValueError, "at least 0. Received: 'high'"),
        (lambda: ITDMModel(functional(), "features", label_fn=0.5), ValueError, "name or index.*Received: 0.5"),
        (
            lambda: ITDMModel(functional(outputs=lambda f, o: layers.Dense(1)(f)), "features"),
            ValueError,
            r"number of classes cannot be inferred.*Received: \(None, 1\).*num_classes=",
        ),
        (
            lambda: ITDMModel(functional(outputs=lambda f, o: [f, o]), "features"),
            ValueError,
            "number of classes cannot be inferred",
        ),
    ],
)
def test_constructor(make, error, message):
    with pytest.raises(error, match=message):
        make()


def dataset(num_samples=40):
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices(data(num_samples))


def different_halves():
    import tensorflow as tf

    batched = dataset().batch(20)
    return tf.data.Dataset.zip((batched, batched.map(lambda x, y: (x, tf.cast(y, tf.float32)))))


def different_structures():
    import tensorflow as tf

    batched = dataset().batch(20)
    return tf.data.Dataset.zip((batched, batched.map(lambda x, y: (x,))))


@pytest.mark.parametrize(
    "fit, message",
    [
        (lambda model: model.fit(dataset(), verbose=0), "should be batched.*Received components of shape"),
        (lambda model: model.fit(dataset().map(lambda x, y: x), verbose=0), "should be batched"),
        (lambda model: model.fit(dataset().batch(20).take(0), verbose=0), "at least one batch. Received: an empty"),
        (lambda model: model.fit(np.zeros((0, 6, 6, 1)), np.zeros(0), verbose=0), "at least one sample"),
        (lambda model: model.fit(different_halves(), verbose=0), "halves of a zipped stream should have the same"),
        (lambda model: model.fit(different_structures(), verbose=0), "halves of a zipped stream should have the same"),
        (lambda model: model.fit(data()[0], verbose=0), "needs labels. Received data without"),
        (lambda model: model.fit(dataset().batch(20).map(lambda x, y: x), verbose=0), "needs labels. Received data"),
        (lambda model: model.train_on_batch(data()[0]), "needs labels. Received data without"),
        (lambda model: model.fit(dataset().batch(20), np.zeros(40), verbose=0), "`y` should not be passed"),
    ],
)
def test_data(fit, message):
    model = compiled(ITDMModel(convolutional(), "features"))
    before = model.base_model.get_weights()
    with pytest.raises(ValueError, match=message):
        fit(model)
    for old, new in zip(before, model.base_model.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)


@pytest.mark.parametrize(
    "path, message",
    [
        ("shared", "no output of its own: the model calls it 2 times"),
        ("lstm", "no output of its own: it returns 3 tensors"),
        ("unused", "no output of its own: the model does not call it"),
        ("nowhere", "no layer 'nowhere'"),
    ],
)
def test_a_subclassed_model_shows_its_feature_layer_when_called(path, message):
    with pytest.raises(ValueError, match=message):
        model = compiled(ITDMModel(Recurrent(), path))
        model.fit(*data(), verbose=0)


def test_fit_before_compile():
    with pytest.raises(ValueError, match="must call `compile"):
        ITDMModel(convolutional(), "features").fit(*data())


def test_several_targets_without_saying_which():
    outputs = functional(outputs=lambda f, o: {"label": o, "size": layers.Dense(1, name="size")(f)})
    model = ITDMModel(outputs, "features", ClassConditionalMMD(num_classes=3))
    model.compile("sgd", {"label": "sparse_categorical_crossentropy", "size": "mse"})
    x, y = data()
    with pytest.raises(ValueError, match=r"Say which to match on.*label_fn=.*\['label', 'size'\]"):
        model.fit(x, {"label": y, "size": y}, verbose=0)
    model = ITDMModel(outputs, "features", ClassConditionalMMD(num_classes=3), label_fn="colour")
    model.compile("sgd", {"label": "sparse_categorical_crossentropy", "size": "mse"})
    with pytest.raises(ValueError, match=r"`label_fn='colour'` names no part.*\['label', 'size'\]"):
        model.fit(x, {"label": y, "size": y}, verbose=0)


def test_match_weight_set_in_training_to_what_it_cannot_be():
    model = compiled(ITDMModel(Subclassed(), "features", match_weight=0.4))
    for value in (np.nan, -0.1):
        with pytest.raises(ValueError, match="`match_weight` should be a finite number"):
            model.match_weight = value
    assert model.match_weight == 0.4


def test_an_unknown_length_that_turns_out_empty():
    empty = dataset().filter(lambda x, y: y > 99).batch(20)
    model = compiled(ITDMModel(convolutional(), "features"))
    with pytest.raises(ValueError, match="at least one batch"):
        model.fit(empty, verbose=0)
    with pytest.raises(ValueError, match="at least one batch"):
        model.fit(zip_batches(empty), verbose=0)
