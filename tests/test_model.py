import keras
import numpy as np
import pytest

from keras_itdm import ITDMModel
from tests import reference
from tests.networks import data


def dealt(y):
    """Positions of the two halves: of each class, the samples by turns, in the order in which they come."""
    first, second = [], []
    for label in np.unique(y):
        for turn, position in enumerate(np.flatnonzero(y == label)):
            (first, second)[turn % 2].append(position)
    return first, second


def split_model():
    network = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(8, activation="tanh", name="features"),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    model = ITDMModel(network, "features", match_weight=1.0, partner="split", max_share=None)
    model.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy")
    return model, keras.Model(network.inputs, network.get_layer("features").output)


def test_split_matches_the_halves_of_one_batch_and_learns_from_both():
    x, y = data(41)
    model, features = split_model()
    h = features.predict(x, verbose=0)
    logs = model.train_on_batch(x, y, return_dict=True)
    first, second = dealt(y)
    expected = reference.class_conditional(h[first], y[first], h[second], y[second], 3)
    assert logs["match_loss"] == pytest.approx(expected, rel=1e-4)
    cross_entropy = -np.log(model.predict(x, verbose=0)[np.arange(41), y]).mean()
    assert logs["loss"] == pytest.approx(cross_entropy + expected, rel=1e-4)


def test_split_matches_nothing_in_a_batch_of_one_sample():
    x, y = data(1)
    model, _ = split_model()
    assert model.train_on_batch(x, y, return_dict=True)["match_loss"] == 0.0
