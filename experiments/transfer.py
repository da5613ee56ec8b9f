"""Transfer learning: a `keras.applications` network, frozen and then fine-tuned without and with ITDM-c.

python -m experiments.transfer
python -m experiments.transfer --weights imagenet --image-size 96

The feature layer lies inside the nested network. As long as that is frozen nothing that is trained comes before the
features, so matching could change nothing: λ is 0, and a step costs what a plain step costs. Then the network is
unfrozen, and the same `ITDMModel` is compiled again.
"""

import argparse
import json
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

import keras_itdm
from experiments import tables
from experiments.data import load
from experiments.study import test_metrics
from experiments.training import DefaultsHelp, check_settings, not_negative, positive, write_atomically


class ForNetwork:
    """A choice of training images and the test images, as coloured images of the network's size."""

    def __init__(self, data, train_size, test_size, image_size):
        data = data.take(train_size)
        self.num_classes = data.num_classes
        self.x_train, self.y_train = coloured(data.x_train, image_size), np.eye(data.num_classes)[data.y_train]
        self._x_test = coloured(data.x_test[:test_size], image_size)
        self._y_test = np.eye(data.num_classes)[data.y_test[:test_size]]

    def test(self):
        return self._x_test, self._y_test


def coloured(images, size):
    """Grey images `(n, height, width, 1)` of 0 to 255, resized to `(n, size, size, 3)`, in float32."""
    import tensorflow as tf

    with tf.device("cpu"):
        resized = tf.image.resize(images, (size, size), antialias=True)
        return tf.image.grayscale_to_rgb(resized).numpy() if images.shape[-1] == 1 else resized.numpy()


def build(image_size, num_classes, weights):
    """A classifier around a nested MobileNetV2, and that network. Images are in 0 to 255."""
    shape = (image_size, image_size, 3)
    network = keras.applications.MobileNetV2(shape, include_top=False, weights=weights, pooling="avg")
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.9  # its own, 0.999, would take thousands of steps to forget where it began
    inputs = keras.Input(shape)
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(inputs)
    outputs = keras.layers.Dense(num_classes, activation="softmax", name="classifier")(network(x))
    return keras.Model(inputs, outputs), network


def transfer(data, match_weight, seed, settings):
    """Trains the classifier on the frozen network, then all of it; returns test metrics after each.

    Returns:
        `{"frozen": {...}, "fine-tuned": {...}}`.
    """
    keras.utils.set_random_seed(seed)
    weights = None if settings.weights == "none" else settings.weights
    model, network = build(settings.image_size, data.num_classes, weights)
    itdm = keras_itdm.ITDMModel(model, feature_layer=f"{network.name}/{network.layers[-1].name}")
    result = {}
    stages = (
        ("frozen", False, 0.0, 0.1, settings.frozen_epochs),
        ("fine-tuned", True, match_weight, settings.learning_rate, settings.epochs),
    )
    for stage, trainable, stage_weight, rate, epochs in stages:
        network.trainable = trainable
        itdm.match_weight = stage_weight
        itdm.compile(keras.optimizers.SGD(rate, momentum=0.9), "categorical_crossentropy", metrics=["accuracy"])
        itdm.fit(data.x_train, data.y_train, batch_size=settings.batch_size, epochs=epochs, verbose=settings.verbose)
        result[stage] = test_metrics(model, data)
    keras.backend.clear_session()
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], formatter_class=DefaultsHelp)
    add = parser.add_argument
    add("--data", default="fashion_mnist", choices=["fashion_mnist", "kmnist", "cifar10", "stl10"])
    add("--weights", default="none", choices=["none", "imagenet"], help="initial ones: random, or ImageNet's")
    add("--image-size", type=positive, default=32, help="pixels on each side that images are resized to, at least 32")
    add("--match-weight", type=not_negative, default=0.8, metavar="λ", help="of fine-tuning, beside λ = 0")
    add("--seeds", type=positive, default=3, help="number of seeds, from 0")
    add("--train-size", type=positive, default=1000, help="number of training images")
    add("--test-size", type=positive, default=2000, help="number of test images")
    add("--frozen-epochs", type=positive, default=3, help="of the classifier alone")
    add("--epochs", type=positive, default=10, help="of fine-tuning")
    add("--learning-rate", type=float, default=0.02, help="of fine-tuning")
    add("--batch-size", type=positive, default=50)
    add("--verbose", type=int, choices=[0, 1, 2], default=2)
    add("--output", type=pathlib.Path, default=pathlib.Path("results/transfer"), help="folder for the results")
    settings = parser.parse_args()
    check_settings(settings, free=("seeds", "verbose", "output"))
    data = ForNetwork(load(settings.data), settings.train_size, settings.test_size, settings.image_size)
    rows = []
    for weight in dict.fromkeys([0.0, settings.match_weight]):
        results = [transfer(data, weight, seed, settings) for seed in range(settings.seeds)]
        for stage in ("frozen", "fine-tuned") if weight == 0 else ("fine-tuned",):
            measured = {
                key: tables.mean_and_deviation([r[stage][key] for r in results])
                for key in ("accuracy", "cross_entropy")
            }
            rows.append({"stage": stage, "match_weight": weight, **measured})
    lines = [
        [
            row["stage"],
            f"{row['match_weight']:g}",
            tables.cell(row["accuracy"], 2),
            tables.cell(row["cross_entropy"], 4),
        ]
        for row in rows
    ]
    text = tables.markdown(["", "λ", "test accuracy, %", "test cross-entropy"], lines)
    write_atomically(settings.output / "table.md", text + "\n")
    kept = {"settings": vars(settings), "rows": rows}
    write_atomically(settings.output / "results.json", json.dumps(kept, default=str, indent=1))
    print(f"\n{text}\n\nWritten to {settings.output}: table.md, results.json")


if __name__ == "__main__":
    main()
