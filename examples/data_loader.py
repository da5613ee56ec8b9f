"""ITDM on the PyTorch backend, with a DataLoader: `fit` draws the second mini-batch from it by itself.

KERAS_BACKEND=torch python examples/data_loader.py
"""

import argparse
import os

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import torch
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset

from keras_itdm import ITDMModel


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=30, help="(default: 30)")
    settings = parser.parse_args()
    x, y = load_digits(return_X_y=True)
    x, y = torch.tensor(x / 16, dtype=torch.float32), torch.tensor(y)
    train, test = TensorDataset(x[:500], y[:500]), TensorDataset(x[500:], y[500:])
    for match_weight in (0.0, 0.8):  # plain training, and ITDM
        keras.utils.set_random_seed(0)
        network = keras.Sequential(
            [
                keras.Input((64,)),
                keras.layers.Dense(128, activation="relu"),
                keras.layers.Dense(64, activation="relu", name="features"),
                keras.layers.Dense(10, activation="softmax"),
            ]
        )
        model = ITDMModel(network, feature_layer="features", match_weight=match_weight)
        model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "sparse_categorical_crossentropy", metrics=["accuracy"])
        model.fit(DataLoader(train, batch_size=50, shuffle=True), epochs=settings.epochs, verbose=0)
        results = model.evaluate(DataLoader(test, batch_size=500), verbose=0, return_dict=True)
        print(f"λ = {match_weight}: test accuracy {results['accuracy']:.4f}, cross-entropy {results['loss']:.4f}")


if __name__ == "__main__":
    main()
