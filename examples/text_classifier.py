"""A BiLSTM that tells real sentences by the package they document, read through tf.data, without and with ITDM.

python examples/text_classifier.py

The sentences are docstrings of packages that are installed anyway, so nothing is downloaded. What is matched is the
BiLSTM's output, one vector a text; training stops where the validation loss is least, as one would without ITDM.
"""

import argparse
import importlib
import inspect
import re

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from keras_itdm import ITDMModel

PACKAGES = {
    "numpy": ["numpy", "numpy.linalg", "numpy.fft", "numpy.random", "numpy.polynomial", "numpy.ma"],
    "keras": ["keras.layers", "keras.ops", "keras.losses", "keras.metrics", "keras.optimizers", "keras.callbacks"],
    "sklearn": ["sklearn.linear_model", "sklearn.metrics", "sklearn.cluster", "sklearn.preprocessing", "sklearn.svm"],
    "stdlib": ["os", "shutil", "asyncio", "logging", "argparse", "email.message", "http.client", "unittest", "zipfile"],
}
VOCABULARY, LENGTH = 3000, 24


def sentences():
    """Texts and the number of their package, 700 of each at most."""
    texts, labels = [], []
    for label, modules in enumerate(PACKAGES.values()):
        found = set()
        for module in map(importlib.import_module, modules):
            for _, member in inspect.getmembers(module):
                if callable(member) and isinstance(member.__doc__, str):
                    found |= {s.strip() for s in re.split(r"[.\n]\s", member.__doc__) if len(s.split()) > 5}
        chosen = np.random.default_rng(0).permutation(sorted(found))[:700]
        texts += list(chosen)
        labels += [label] * len(chosen)
    return np.array(texts), np.array(labels)


def network():
    inputs = keras.Input((LENGTH,), dtype="int32")
    x = layers.Embedding(VOCABULARY, 64, mask_zero=True)(inputs)
    x = layers.Bidirectional(layers.LSTM(32), name="features")(x)
    return keras.Model(inputs, layers.Dense(len(PACKAGES), activation="softmax")(x))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=12, help="at most (default: 12)")
    parser.add_argument("--seeds", type=int, default=3, help="(default: 3)")
    settings = parser.parse_args()
    texts, y = sentences()
    order = np.random.default_rng(1).permutation(len(y))
    texts, y = texts[order], y[order]
    parts = {"train": slice(0, 800), "validation": slice(800, 1200), "test": slice(1200, None)}
    vectorize = layers.TextVectorization(VOCABULARY, output_sequence_length=LENGTH)
    vectorize.adapt(texts[parts["train"]])
    data = {
        part: tf.data.Dataset.from_tensor_slices((np.array(vectorize(texts[where])), y[where]))
        for part, where in parts.items()
    }
    train = data["train"].shuffle(800).batch(50)
    for name in ("plain", "ITDM"):
        accuracy, loss = [], []
        for seed in range(settings.seeds):
            keras.utils.set_random_seed(seed)
            model = network() if name == "plain" else ITDMModel(network(), feature_layer="features")
            model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
            model.fit(
                train,
                epochs=settings.epochs,
                validation_data=data["validation"].batch(400),
                callbacks=[keras.callbacks.EarlyStopping("val_loss", patience=3, restore_best_weights=True)],
                verbose=0,
            )
            results = model.evaluate(data["test"].batch(400), verbose=0, return_dict=True)
            accuracy.append(100 * results["accuracy"])
            loss.append(results["loss"])
        print(f"{name}: test accuracy {np.mean(accuracy):.1f} %, test cross-entropy {np.mean(loss):.3f}")


if __name__ == "__main__":
    main()
