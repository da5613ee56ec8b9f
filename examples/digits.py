"""The same small network, trained without and with ITDM, on scikit-learn's digits: real images, no download, a minute.

python examples/digits.py
"""

import argparse
import pathlib

import keras
import matplotlib.pyplot as plt
import numpy as np
from keras import layers
from sklearn.datasets import load_digits

from keras_itdm import ITDMModel


def network():
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(16, 3, activation="relu"),
            layers.Conv2D(32, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(64, activation="relu", name="features"),
            layers.Dense(10, activation="softmax"),
        ]
    )


def fit(model, data, epochs):
    """The history of a training, whatever the model."""
    x, y, x_test, y_test = data
    steps = epochs * len(x) // 50
    rate = keras.optimizers.schedules.PiecewiseConstantDecay([steps // 2, 4 * steps // 5], [0.1, 0.02, 0.004])
    model.compile(keras.optimizers.SGD(rate, momentum=0.9), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model.fit(x, y, batch_size=50, epochs=epochs, validation_data=(x_test, y_test), verbose=0).history


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=30, help="(default: 30)")
    parser.add_argument("--seeds", type=int, default=3, help="(default: 3)")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("results/digits"))
    settings = parser.parse_args()
    x, y = load_digits(return_X_y=True)
    x = (x / 16).reshape(-1, 8, 8, 1).astype("float32")
    order = np.random.default_rng(0).permutation(len(x))
    train, test = order[:500], order[500:]
    data = x[train], y[train], x[test], y[test]

    histories = {"plain": [], "ITDM": []}
    for seed in range(settings.seeds):
        for name in histories:
            keras.utils.set_random_seed(seed)
            model = network()
            if name == "ITDM":
                model = ITDMModel(model, feature_layer="features")  # the two lines: this one, and the layer's name
            histories[name].append(fit(model, data, settings.epochs))

    print("| | test accuracy, % | test cross-entropy |\n|---|---|---|")
    for name, of_seeds in histories.items():
        accuracy, loss = (np.array([h[key][-1] for h in of_seeds]) for key in ("val_accuracy", "val_loss"))
        cells = f"{100 * accuracy.mean():.2f} ± {100 * accuracy.std():.2f} | {loss.mean():.3f} ± {loss.std():.3f}"
        print(f"| {name} | {cells} |")
        plt.plot(np.mean([h["val_loss"] for h in of_seeds], axis=0), label=name)
    plt.xlabel("epoch")
    plt.ylabel("test cross-entropy")
    plt.yscale("log")
    plt.legend()
    settings.output.mkdir(parents=True, exist_ok=True)
    plt.savefig(settings.output / "curves.png", dpi=150)
    print(f"\nMean ± standard deviation of {settings.seeds} seeds. The curves: {settings.output / 'curves.png'}")


if __name__ == "__main__":
    main()
