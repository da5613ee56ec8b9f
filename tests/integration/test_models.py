"""`ITDMModel` around every kind of Keras model."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_itdm import ITDMModel
from keras_itdm.losses import ClassConditionalMMD
from tests.networks import NUM_CLASSES, Subclassed, compiled, convolutional, data


def check(model, x, y, **compile_options):
    history = compiled(model, **compile_options).fit(x, y, batch_size=20, epochs=1, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert history["match_loss"][0] > 0.01
    evaluated = model.evaluate(x, y, verbose=0, return_dict=True)
    model.base_model.compile(loss=model.loss, metrics=compile_options.get("metrics", ["accuracy"]))
    assert evaluated == pytest.approx(model.base_model.evaluate(x, y, verbose=0, return_dict=True), rel=1e-5)
    return history


def test_sequential():
    check(ITDMModel(convolutional(), "features"), *data())


def test_sequential_without_input():
    model = keras.Sequential([layers.Flatten(), layers.Dense(8, name="features"), layers.Dense(3, "softmax")])
    check(ITDMModel(model, "features"), *data())


def test_functional():
    inputs = keras.Input((6, 6, 1))
    features = layers.Dense(8, activation="tanh", name="features")(layers.Flatten()(inputs))
    check(ITDMModel(keras.Model(inputs, layers.Dense(3, activation="softmax")(features)), "features"), *data())


def test_subclassed():
    check(ITDMModel(Subclassed(), "features"), *data())


def test_subclassed_without_training_argument():
    class Plain(keras.Model):
        def __init__(self):
            super().__init__()
            self.hidden = layers.Dense(8, name="features")
            self.dropout = layers.Dropout(0.5)
            self.classifier = layers.Dense(NUM_CLASSES, activation="softmax")

        def call(self, x):
            return self.classifier(self.dropout(self.hidden(keras.ops.reshape(x, (-1, 36)))))

    check(ITDMModel(Plain(), "features"), *data())
    losses = []
    for wrap in (lambda model: model, lambda model: ITDMModel(model, "features", match_weight=0.0)):
        keras.utils.set_random_seed(0)
        model = compiled(wrap(Plain()))
        keras.utils.set_random_seed(1)
        losses.append(model.fit(*data(), batch_size=20, epochs=2, verbose=0).history["loss"])
    assert losses[0] == pytest.approx(
        losses[1], rel=1e-6
    )  # Keras does not tell such a model, nor its dropout, to train


@pytest.mark.parametrize("form", ["list", "dict"])
def test_several_inputs(form):
    x, y = data()
    a, b = keras.Input((6, 6, 1), name="a"), keras.Input((6, 6, 1), name="b")
    features = layers.Dense(8, name="features")(layers.Flatten()(layers.Concatenate()([a, b])))
    outputs = layers.Dense(3, activation="softmax")(features)
    model = keras.Model({"a": a, "b": b} if form == "dict" else [a, b], outputs)
    model = ITDMModel(model, "features")
    check(model, {"a": x, "b": -x} if form == "dict" else [x, -x], y)


@pytest.mark.parametrize("form", ["list", "dict"])
@pytest.mark.parametrize("by", ["name", "index or key", "function"])
def test_several_outputs(form, by):
    x, y = data()
    inputs = keras.Input((6, 6, 1))
    features = layers.Dense(8, name="features")(layers.Flatten()(inputs))
    label, size = layers.Dense(3, "softmax", name="label")(features), layers.Dense(1, name="size")(features)
    outputs = {"label": label, "size": size} if form == "dict" else [size, label]
    targets = {"label": y, "size": x.sum((1, 2, 3))} if form == "dict" else [x.sum((1, 2, 3)), y]
    losses = {"label": "sparse_categorical_crossentropy", "size": "mse"}
    key = "label" if form == "dict" else 1
    label_fn = {"name": "label", "index or key": key, "function": lambda y: y[key]}[by]
    matching = ClassConditionalMMD(num_classes=3) if by == "function" else "class_conditional"
    model = ITDMModel(keras.Model(inputs, outputs), "features", matching, label_fn=label_fn)
    check(model, x, targets, loss=losses if form == "dict" else list(losses.values())[::-1], metrics=None)


@pytest.mark.parametrize("shape", ["(n, 1)", "one-hot"])
def test_labels_of_other_shapes(shape):
    x, y = data()
    if shape == "one-hot":
        check(ITDMModel(convolutional(), "features"), x, np.eye(3)[y], loss="categorical_crossentropy")
    else:
        check(ITDMModel(convolutional(), "features"), x, y[:, None])


def test_features_of_rank_4_are_flattened():
    network = convolutional()
    check(ITDMModel(network, network.layers[0].name), *data())


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="20 s to compile, for layers that the others have")
def test_keras_applications_network():
    network = keras.applications.MobileNet((32, 32, 3), alpha=0.25, weights=None, classes=3)
    x, y = data(24)
    x = np.repeat(np.pad(x, ((0, 0), (13, 13), (13, 13), (0, 0))), 3, axis=-1)
    check(ITDMModel(network, "global_average_pooling2d"), x, y)


def test_nested_network():
    inputs = keras.Input((6, 6, 1))
    maps = layers.BatchNormalization()(layers.Conv2D(4, 3)(inputs))
    maps = layers.Add()([maps, layers.Conv2D(4, 3, padding="same", activation="relu")(maps)])
    network = keras.Model(inputs, layers.GlobalAveragePooling2D(name="pooled")(maps), name="inner")
    model = keras.Sequential([keras.Input((6, 6, 1)), network, layers.Dense(3, activation="softmax")])
    check(ITDMModel(model, "inner/pooled"), *data(24))


def test_a_nested_network_itself_as_feature_layer():
    inner = keras.Sequential([keras.Input((6, 6, 1)), layers.Flatten(), layers.Dense(8)], name="inner")
    model = keras.Sequential([keras.Input((6, 6, 1)), inner, layers.Dense(3, activation="softmax")])
    check(ITDMModel(model, "inner"), *data())
