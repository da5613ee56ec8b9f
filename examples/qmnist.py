"""A small CNN on MNIST's 60,000 as QMNIST has them, with joint matching (Table 1 of the paper).

python examples/qmnist.py

The paper's sweep over λ, with its tables and figures: python -m experiments.paper qmnist
"""

import argparse
import pathlib
import sys

import keras
import tensorflow_datasets as tfds
from keras import layers

from keras_itdm import ITDMModel

sys.path.append(str(pathlib.Path(__file__).parent.parent))
import experiments.qmnist  # noqa: F401  which TensorFlow Datasets does not have


def network():
    inputs = keras.Input((28, 28, 1))
    x = layers.Rescaling(1 / 255)(inputs)
    for filters, size in ((32, 5), (64, 3), (128, 3)):
        x = layers.Conv2D(filters, size, padding="same", use_bias=False)(x)
        x = layers.MaxPooling2D()(layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x)))
    x = layers.Dense(256, activation="relu", name="features")(layers.Flatten()(x))
    return keras.Model(inputs, layers.Dense(10, activation="softmax")(x))


def stream(samples, batch_size):
    return samples.cache().shuffle(10_000).batch(batch_size).prefetch(2)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=20, help="(default: 20)")
    parser.add_argument("--batch-size", type=int, default=150, help="(default: 150)")
    settings = parser.parse_args()
    train, test = tfds.load("qmnist", split=["train", "test10k"], as_supervised=True)
    for match_weight in (0.0, 0.8):  # plain training, and ITDM
        keras.utils.set_random_seed(0)
        model = ITDMModel(network(), feature_layer="features", match_weight=match_weight, matching="joint")
        model.compile(keras.optimizers.SGD(0.05, momentum=0.5), "sparse_categorical_crossentropy", metrics=["accuracy"])
        model.fit(stream(train, settings.batch_size), epochs=settings.epochs, verbose=2)
        results = model.evaluate(test.batch(1000), verbose=0, return_dict=True)
        print(f"λ = {match_weight}: test accuracy {results['accuracy']:.4f}, cross-entropy {results['loss']:.4f}")


if __name__ == "__main__":
    main()
