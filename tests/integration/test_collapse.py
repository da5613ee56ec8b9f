"""Where a constant λ makes all features equal, a warning says so; at the defaults the network learns."""

import warnings

import keras
import pytest
from sklearn.datasets import load_digits

from keras_itdm import ITDMModel


def textbook_network(features="relu"):
    keras.utils.set_random_seed(0)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(16, 3, activation="relu"),
            layers.Conv2D(32, 3, activation="relu"),
            layers.Flatten(name="convolved"),
            layers.Dense(64, activation=features, name="features"),
            layers.Dense(10),
        ]
    )


@pytest.mark.parametrize(
    ("features", "feature_layer"), [("relu", "features"), ("tanh", "features"), ("relu", ["convolved", "features"])]
)
def test_a_textbook_network_learns_and_where_a_constant_weight_collapses_it_a_warning_says_so(features, feature_layer):
    x, y = load_digits(return_X_y=True)
    x, y = (x / 16).reshape(-1, 8, 8, 1)[:500].astype("float32"), y[:500]
    accuracy = {}
    for max_share in (1.0, None):
        itdm = ITDMModel(textbook_network(features), feature_layer, partner="split", max_share=max_share)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        itdm.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss, metrics=["accuracy"])
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            history = itdm.fit(x, y, batch_size=50, epochs=8, verbose=0).history
        accuracy[max_share] = history["accuracy"][-1]
        messages = [str(warning.message) for warning in caught if "collapsed" in str(warning.message)]
        assert len(messages) == (1 if max_share is None else 0)
        if messages:
            assert "max_share" in messages[0]
            assert "match_weight" in messages[0]
            assert ("of 'features'" in messages[0]) == (feature_layer != "features")
    assert accuracy[1.0] > 0.9
    assert accuracy[None] < 0.5
