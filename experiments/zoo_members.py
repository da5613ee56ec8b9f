"""The networks of the zoo: what people have, each with its data, optimizer and batches. None was chosen for what
matching does to it. Image networks have Keras' own start unless they say otherwise."""

import dataclasses
from collections.abc import Callable

import keras
import numpy as np
from keras import layers

LOGITS = keras.losses.SparseCategoricalCrossentropy


@dataclasses.dataclass(frozen=True)
class Member:
    """A network and how it is trained.

    Attributes:
        data: Name of a data set of `load`.
        network: Function without arguments: a model whose layer `"features"` is the one before the classifier.
        rate: Learning rate to begin with; it falls to a fifth at half of the epochs, and again at 80 %.
        optimizer: Class of optimizer, and its arguments but the rate.
    """

    data: str
    network: Callable
    rate: float
    optimizer: tuple = ("SGD", {"momentum": 0.9})
    batch_size: int = 50
    epochs: int = 30


ADAM, ADAMW = ("Adam", {}), ("AdamW", {"weight_decay": 0.01})


def _classifier(x, num_classes=10, features="relu"):
    x = layers.Dense(64, activation=features, name="features")(x)
    return layers.Dense(num_classes)(x)


def cnn(shape=(8, 8, 1), normalized=False, start="glorot_uniform", features="relu"):
    """Two convolutions, a dense layer of 64 and the classifier."""
    inputs = x = keras.Input(shape)
    for filters in (16, 32):
        strides = 1 if shape[0] == 8 else 2
        x = layers.Conv2D(filters, 3, strides, use_bias=not normalized, kernel_initializer=start)(x)
        x = layers.BatchNormalization(momentum=0.9)(x) if normalized else x
        x = layers.ReLU()(x)
    return keras.Model(inputs, _classifier(layers.Flatten()(x), features=features))


def mlp(shape=(8, 8, 1)):
    inputs = keras.Input(shape)
    x = layers.Dense(128, activation="relu")(layers.Flatten()(inputs))
    return keras.Model(inputs, _classifier(x))


def residual(shape=(8, 8, 1), width=16):
    """A small residual network with batch normalization: three blocks, global pooling, whose output are the
    features."""

    def convolved(x, filters, strides=1, size=3):
        x = layers.Conv2D(filters, size, strides, padding="same", use_bias=False, kernel_initializer="he_normal")(x)
        return layers.BatchNormalization(momentum=0.9)(x)

    inputs = keras.Input(shape)
    x = layers.ReLU()(convolved(inputs, width))
    for filters, strides in ((width, 1), (2 * width, 2), (4 * width, 2)):
        y = convolved(layers.ReLU()(convolved(x, filters, strides)), filters)
        x = convolved(x, filters, strides, size=1) if strides > 1 or x.shape[-1] != filters else x
        x = layers.ReLU()(layers.Add()([x, y]))
    x = layers.GlobalAveragePooling2D(name="features")(x)
    return keras.Model(inputs, layers.Dense(10)(x))


def bilstm_of_rows():
    """A BiLSTM that reads an image row by row; the features are its output."""
    inputs = keras.Input((8, 8, 1))
    x = layers.Bidirectional(layers.LSTM(32), name="features")(layers.Reshape((8, 8))(inputs))
    return keras.Model(inputs, layers.Dense(10)(x))


VOCABULARY, LENGTH, NUM_TOPICS = 1000, 40, 4


def bilstm_of_words():
    inputs = keras.Input((LENGTH,), dtype="int32")
    x = layers.Embedding(VOCABULARY, 32)(inputs)
    x = layers.Bidirectional(layers.LSTM(32), name="features")(x)
    return keras.Model(inputs, layers.Dense(NUM_TOPICS)(x))


def transformer():
    """One encoder block of two heads over embedded words, mean pooling and a dense layer."""
    inputs = keras.Input((LENGTH,), dtype="int32")
    x = layers.Embedding(VOCABULARY, 32)(inputs)
    x = layers.LayerNormalization()(x + layers.MultiHeadAttention(2, 16)(x, x))
    x = layers.LayerNormalization()(x + layers.Dense(32)(layers.Dense(64, activation="relu")(x)))
    return keras.Model(inputs, _classifier(layers.GlobalAveragePooling1D()(x), NUM_TOPICS))


def one_sigmoid_unit():
    inputs = keras.Input((30,))
    x = layers.Dense(32, activation="relu")(inputs)
    x = layers.Dense(16, activation="relu", name="features")(x)
    return keras.Model(inputs, layers.Dense(1, activation="sigmoid")(x))


def cnn5():
    """The network of this repository's first studies: batch normalization, and a start as PyTorch's layers have it."""
    start = keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")
    inputs = x = keras.Input((28, 28, 1))
    for filters, size in ((32, 5), (64, 3), (128, 3)):
        x = layers.Conv2D(filters, size, 2, padding="same", use_bias=False, kernel_initializer=start)(x)
        x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    x = layers.Dense(64, activation="relu", kernel_initializer=start, name="features")(layers.Flatten()(x))
    return keras.Model(inputs, layers.Dense(10, kernel_initializer=start)(x))


MEMBERS = {
    "CNN": Member("digits", cnn, 0.1),
    "CNN, batches of 32": Member("digits", cnn, 0.1, batch_size=32),
    "CNN, batches of 200": Member("digits", cnn, 0.1, batch_size=200, epochs=60),
    "CNN, He start": Member("digits", lambda: cnn(start="he_normal"), 0.1),
    "CNN, tanh features": Member("digits", lambda: cnn(features="tanh"), 0.1),
    "CNN, batch norm": Member("digits", lambda: cnn(normalized=True), 0.1),
    "CNN, Adam": Member("digits", cnn, 1e-3, ADAM),
    "CNN, batch norm, AdamW": Member("digits", lambda: cnn(normalized=True), 1e-3, ADAMW),
    "MLP": Member("digits", mlp, 0.1),
    "Residual, Adam": Member("digits", residual, 1e-3, ADAM),
    "Residual, SGD": Member("digits", residual, 0.1),
    "BiLSTM on rows, Adam": Member("digits", bilstm_of_rows, 3e-3, ADAM),
    "BiLSTM on rows, SGD": Member("digits", bilstm_of_rows, 0.1),
    "BiLSTM on words, Adam": Member("words", bilstm_of_words, 3e-3, ADAM, epochs=20),
    "Transformer on words, AdamW": Member("words", transformer, 3e-3, ADAMW, epochs=20),
    "One sigmoid unit": Member("breast cancer", one_sigmoid_unit, 0.1, batch_size=32, epochs=60),
    "cnn5": Member("Fashion-MNIST, 5,000", cnn5, 0.05, batch_size=100, epochs=25),
    "CNN, Adam (Fashion)": Member(
        "Fashion-MNIST, 5,000", lambda: cnn((28, 28, 1)), 1e-3, ADAM, batch_size=100, epochs=25
    ),
    "CNN (CIFAR)": Member("CIFAR-10, 5,000", lambda: cnn((32, 32, 3)), 0.05, batch_size=100, epochs=25),
    "CNN, batch norm (CIFAR)": Member(
        "CIFAR-10, 5,000", lambda: cnn((32, 32, 3), True), 0.05, batch_size=100, epochs=25
    ),
    "Residual, AdamW (CIFAR)": Member(
        "CIFAR-10, 5,000", lambda: residual((32, 32, 3)), 1e-3, ADAMW, batch_size=100, epochs=20
    ),
}


def words(num_samples, rng):
    """Sequences of words, each of one of four topics: one word in eight is of the topic's 60, the others are
    anyone's."""
    topics = np.random.default_rng(7).permutation(VOCABULARY)[: NUM_TOPICS * 60].reshape(NUM_TOPICS, 60)
    y = rng.integers(NUM_TOPICS, size=num_samples)
    x = rng.integers(VOCABULARY, size=(num_samples, LENGTH))
    of_topic = rng.random((num_samples, LENGTH)) < 0.125
    drawn = topics[y[:, None], rng.integers(60, size=(num_samples, LENGTH))]
    return np.where(of_topic, drawn, x).astype("int32"), y


def load(name, arrays):
    """Training and test data, `(x, y), (x_test, y_test)`; the same whatever the seed of a run.

    Args:
        arrays: Function from `"fashion_mnist"` or `"cifar10"` to these of the whole data set, uint8 images.
    """
    rng = np.random.default_rng(0)
    if name == "words":
        return words(600, rng), words(2000, rng)
    if name in ("digits", "breast cancer"):
        import sklearn.datasets

        x, y = (sklearn.datasets.load_digits if name == "digits" else sklearn.datasets.load_breast_cancer)(
            return_X_y=True
        )
        order = rng.permutation(len(x))
        train, test = np.split(order, [500 if name == "digits" else 150])
        images = name == "digits"
        x = (x / 16).reshape(-1, 8, 8, 1) if images else (x - x[train].mean(axis=0)) / x[train].std(axis=0)
        x = x.astype("float32")
        return (x[train], y[train]), (x[test], y[test])
    (x, y), (x_test, y_test) = arrays({"F": "fashion_mnist", "C": "cifar10"}[name[0]])
    chosen = rng.permutation(len(x))[:5000]
    return ((x[chosen] / 255).astype("float32"), y[chosen]), ((x_test / 255).astype("float32"), y_test)
