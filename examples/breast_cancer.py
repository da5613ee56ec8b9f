"""Two classes and one sigmoid unit: scikit-learn's breast cancer data, without and with ITDM, and with early stopping.

python examples/breast_cancer.py
"""

import argparse

import keras
import numpy as np
from sklearn.datasets import load_breast_cancer

from keras_itdm import ITDMModel


def network():
    return keras.Sequential(
        [
            keras.Input((30,)),
            keras.layers.Dense(32, activation="relu"),
            keras.layers.Dense(16, activation="relu", name="features"),
            keras.layers.Dense(1, activation="sigmoid"),
        ]
    )


class BestWeights(keras.callbacks.Callback):
    """What `EarlyStopping(restore_best_weights=True)` would leave, beside the last epoch's weights."""

    loss = float("inf")

    def on_epoch_end(self, epoch, logs=None):
        if logs["val_loss"] < self.loss:
            self.loss, self.weights = logs["val_loss"], self.model.get_weights()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=60, help="(default: 60)")
    parser.add_argument("--seeds", type=int, default=5, help="(default: 5)")
    settings = parser.parse_args()
    x, y = load_breast_cancer(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    train, validation, test = np.split(order, [150, 300])
    x = ((x - x[train].mean(axis=0)) / x[train].std(axis=0)).astype("float32")
    print("| | accuracy, % | cross-entropy, last epoch | with early stopping |\n|---|---|---|---|")
    for name in ("plain", "ITDM"):
        results = []
        for seed in range(settings.seeds):
            keras.utils.set_random_seed(seed)
            model = network() if name == "plain" else ITDMModel(network(), feature_layer="features")
            model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "binary_crossentropy", metrics=["accuracy"])
            best = BestWeights()
            fit = {"batch_size": 32, "epochs": settings.epochs, "validation_data": (x[validation], y[validation])}
            model.fit(x[train], y[train], callbacks=[best], verbose=0, **fit)
            last = model.evaluate(x[test], y[test], verbose=0, return_dict=True)
            model.set_weights(best.weights)
            stopped = model.evaluate(x[test], y[test], verbose=0, return_dict=True)
            results.append([100 * last["accuracy"], last["loss"], stopped["loss"]])
        accuracy, last_loss, stopped_loss = np.mean(results, axis=0)
        print(f"| {name} | {accuracy:.2f} | {last_loss:.3f} | {stopped_loss:.3f} |")


if __name__ == "__main__":
    main()
