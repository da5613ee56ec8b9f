"""The mismatch between the features of training and test digits, as a small network overfits: logged and drawn.

python examples/diagnostics.py
"""

import argparse
import pathlib

import keras
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from keras_itdm import ITDMModel
from keras_itdm.callbacks import FeatureDiscrepancy, FeatureProjection


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=20, help="(default: 20)")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("results/diagnostics"))
    settings = parser.parse_args()
    epochs, output = settings.epochs, settings.output
    x, y = load_digits(return_X_y=True)
    x, x_test, y, y_test = train_test_split(x / 16.0, y, train_size=500, random_state=0, stratify=y)
    for match_weight in (0.0, 0.8):
        keras.utils.set_random_seed(0)
        model = keras.Sequential(
            [
                keras.Input((64,)),
                keras.layers.Dense(128, activation="relu"),
                keras.layers.Dense(64, activation="relu", name="features"),
                keras.layers.Dense(10, activation="softmax"),
            ]
        )
        itdm = ITDMModel(model, "features", match_weight=match_weight)
        itdm.compile(keras.optimizers.SGD(0.1, 0.9), "sparse_categorical_crossentropy", metrics=["accuracy"])
        data = (x, y), (x_test, y_test)
        callbacks = [
            FeatureDiscrepancy(*data, by_class=True, every=epochs - 1),
            FeatureProjection(*data, output / f"match_weight_{match_weight:g}", every=epochs),
        ]
        options = {"batch_size": 100, "epochs": epochs, "validation_data": data[1], "verbose": 0}
        history = itdm.fit(x, y, callbacks=callbacks, **options).history
        keys = ("feature_mmd", "feature_mmd_p", "val_loss", "val_accuracy")
        print(f"λ = {match_weight:g}: " + ", ".join(f"{key} {history[key][-1]:.3f}" for key in keys))


if __name__ == "__main__":
    main()
