"""Models and targets of kinds that no example shows."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_itdm import ITDMModel
from keras_itdm.data import Pair
from keras_itdm.losses import ClassConditionalMMD

X = np.random.default_rng(0).normal(size=(48, 5)).astype("float32")
Y = (X[:, 0] > 0).astype("int32")


def network(units=1, activation="tanh"):
    keras.utils.set_random_seed(1)
    hidden = layers.Dense(6, activation="tanh", name="features")
    return keras.Sequential([keras.Input((5,)), hidden, layers.Dense(units, activation=activation)])


@pytest.mark.parametrize("loss", ["hinge", keras.losses.SquaredHinge()])
@pytest.mark.parametrize("dtype", ["int8", "float32"])
def test_signs_are_two_classes(loss, dtype):
    """As targets of a hinge loss, where -1 does not stand for no class."""
    signs = (2 * Y - 1).astype(dtype)
    itdm = ITDMModel(network(), "features", max_share=None)
    itdm.compile(keras.optimizers.SGD(0.0), loss)
    pairs = [Pair((X[:24], signs[:24]), (X[24:], signs[24:]))] * 2
    match_loss = itdm.fit((pair for pair in pairs), verbose=0).history["match_loss"]
    extractor = keras.Model(itdm.base_model.inputs, itdm.get_layer("features").output)
    features = extractor.predict(X, verbose=0)
    expected = ClassConditionalMMD(num_classes=2)(features[:24], Y[:24], features[24:], Y[24:])
    np.testing.assert_allclose(match_loss, float(keras.ops.convert_to_numpy(expected)), rtol=1e-4)


def test_a_batch_gives_metrics_in_the_order_of_the_plain_model():
    returned = []
    for wrap in (False, True):
        model = network(2, "softmax")
        model = ITDMModel(model, "features", partner="split", match_weight=0.0) if wrap else model
        model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
        returned.append(model.train_on_batch(X, Y))  # by name accuracy is before loss
    np.testing.assert_array_equal(*returned)


class Block(layers.Layer):
    """A layer without `build`, which Keras calls once to have its own layers built."""

    def __init__(self, name):
        super().__init__(name=name)
        self.dense = layers.Dense(6, name="inner")

    def call(self, inputs):
        return {"hidden": self.dense(inputs)}


class OfBlocks(keras.Model):
    def __init__(self):
        super().__init__()
        self.block = Block(name="block")
        self.classifier = layers.Dense(2, activation="softmax")

    def call(self, inputs):
        return self.classifier(self.block(inputs)["hidden"])


def functional():
    inputs = keras.Input((5,))
    hidden = Block(name="block")(inputs)["hidden"]
    return keras.Model(inputs, layers.Dense(2, activation="softmax")(hidden))


def bidirectional():
    inputs = keras.Input((5,))
    hidden = layers.Bidirectional(layers.LSTM(3, name="cells"), name="both")(layers.Reshape((5, 1))(inputs))
    return keras.Model(inputs, layers.Dense(2, activation="softmax")(hidden))


@pytest.mark.parametrize(
    "make, path",
    [
        (OfBlocks, "block"),
        (OfBlocks, "block/inner"),
        (functional, "block/inner"),
        (bidirectional, "both/forward_cells"),
    ],
)
def test_a_layer_that_is_built_by_a_call_or_stands_inside_another(make, path):
    keras.utils.set_random_seed(1)
    model = make()
    if make is OfBlocks and path == "block/inner":
        model(X)  # a path into a layer can be looked up once that is made
    itdm = ITDMModel(model, path)
    itdm.compile("sgd", "sparse_categorical_crossentropy")
    assert itdm.fit(X, Y, batch_size=24, verbose=0).history["match_loss"][0] > 0


def test_sparse_arrays():
    sparse = pytest.importorskip("scipy.sparse").csr_matrix(X)
    itdm = ITDMModel(network(2, "softmax"), "features")
    itdm.compile("sgd", "sparse_categorical_crossentropy")
    assert itdm.fit(sparse, Y, batch_size=24, verbose=0).history["match_loss"][0] > 0


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="plain training fails there")
def test_a_dataset_of_unknown_rank():
    import tensorflow as tf

    specs = tf.TensorSpec(None, tf.float32), tf.TensorSpec(None, tf.int32)
    halves = lambda: iter([(X[:24], Y[:24]), (X[24:], Y[24:])])  # noqa: E731
    itdm = ITDMModel(network(2, "softmax"), "features")
    itdm.compile("sgd", "sparse_categorical_crossentropy")
    dataset = tf.data.Dataset.from_generator(halves, output_signature=specs)
    assert itdm.fit(dataset, verbose=0).history["match_loss"][0] > 0
