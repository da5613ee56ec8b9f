"""A CNN on CIFAR10, cropped and flipped, without and with ITDM (Table 4 of the paper).

python examples/cifar10.py

The paper's sweep over λ, with its tables and figures: python -m experiments.paper cifar10
"""

import argparse

import keras
import tensorflow as tf
import tensorflow_datasets as tfds
from keras import layers

from keras_itdm import ITDMModel, zip_batches


def network():
    inputs = keras.Input((32, 32, 3))
    x = layers.Rescaling(1 / 255)(inputs)
    for filters in (32, 64, 128):
        for _ in range(2):
            x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
            x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
        x = layers.MaxPooling2D()(x)
    x = layers.Dense(256, activation="relu", name="features")(layers.Flatten()(x))
    return keras.Model(inputs, layers.Dense(10, activation="softmax")(x))


def augmented(image, label):
    """An image cropped at random from a black margin of 4 pixels, and flipped with even chance."""
    image = tf.image.random_crop(tf.image.resize_with_crop_or_pad(image, 40, 40), (32, 32, 3))
    return tf.image.random_flip_left_right(image), label


def stream(samples, batch_size):
    return samples.cache().shuffle(10_000).map(augmented).batch(batch_size).prefetch(2)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=20, help="(default: 20)")
    parser.add_argument("--batch-size", type=int, default=150, help="(default: 150)")
    settings = parser.parse_args()
    train, test = tfds.load("cifar10", split=["train", "test"], as_supervised=True)
    # S2 from a pipeline of its own, so that it is augmented anew.
    pairs = zip_batches(stream(train, settings.batch_size), partner=stream(train, settings.batch_size))
    for match_weight in (0.0, 0.8):  # plain training, and ITDM
        keras.utils.set_random_seed(0)
        model = ITDMModel(network(), feature_layer="features", match_weight=match_weight)
        model.compile(keras.optimizers.SGD(0.05, momentum=0.5), "sparse_categorical_crossentropy", metrics=["accuracy"])
        model.fit(pairs if match_weight else stream(train, settings.batch_size), epochs=settings.epochs, verbose=2)
        results = model.evaluate(test.batch(1000), verbose=0, return_dict=True)
        print(f"λ = {match_weight}: test accuracy {results['accuracy']:.4f}, cross-entropy {results['loss']:.4f}")


if __name__ == "__main__":
    main()
