"""KerasTuner searches λ and whether to match halves of a mini-batch, beside plain training, on digits.

python examples/tune.py

The defaults rarely need it: the bound makes λ matter little. What the search found is printed beside them.
"""

import argparse
import tempfile

import keras
import keras_tuner
import numpy as np
from sklearn.datasets import load_digits

from keras_itdm import ITDMModel


def build(hp):
    network = keras.Sequential(
        [
            keras.Input((64,)),
            keras.layers.Dense(128, activation="relu"),
            keras.layers.Dense(64, activation="relu", name="features"),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    match_weight = hp.Float("match_weight", 0.1, 3.2, sampling="log", default=0.8)
    model = ITDMModel(network, "features", match_weight=match_weight, partner=hp.Choice("partner", ["stream", "split"]))
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=8, help="(default: 8)")
    parser.add_argument("--epochs", type=int, default=30, help="(default: 30)")
    parser.add_argument("--seeds", type=int, default=3, help="of the comparison (default: 3)")
    settings = parser.parse_args()
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = (x[order] / 16).astype("float32"), y[order]
    fit = {"batch_size": 50, "epochs": settings.epochs, "verbose": 0}
    with tempfile.TemporaryDirectory() as folder:
        tuner = keras_tuner.BayesianOptimization(
            build, keras_tuner.Objective("val_loss", "min"), settings.trials, seed=0, directory=folder
        )
        tuner.search(x[:400], y[:400], validation_data=(x[400:500], y[400:500]), **fit)
        (found,) = tuner.get_best_hyperparameters(1)
    print("chosen:", found.values)
    for name in ("plain", "the defaults", "chosen"):
        losses = []
        for seed in range(settings.seeds):
            keras.utils.set_random_seed(seed)
            model = build(found if name == "chosen" else keras_tuner.HyperParameters())
            model.match_weight = 0.0 if name == "plain" else model.match_weight
            model.fit(x[:500], y[:500], **fit)
            losses.append(model.evaluate(x[500:], y[500:], verbose=0, return_dict=True)["loss"])
        print(f"{name}: test cross-entropy {np.mean(losses):.3f} ± {np.std(losses):.3f}")


if __name__ == "__main__":
    main()
