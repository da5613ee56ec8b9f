import keras
import numpy as np
import pytest

from keras_itdm.kernels import GaussianMixture
from keras_itdm.layers import SplitBatchMatching
from tests import reference
from tests.networks import data


def test_adds_the_match_between_the_halves_in_training_alone():
    h = np.random.default_rng(0).normal(size=(21, 5)).astype("float32")
    layer = SplitBatchMatching(0.7)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(layer(h, training=True)), h)
    assert float(layer.losses[0]) == pytest.approx(0.7 * reference.joint(h[:11], h[11:]), rel=1e-4)
    layer(h, training=False)
    assert layer.losses == []


def test_a_batch_of_one_sample_adds_nothing():
    layer = SplitBatchMatching(0.7)
    layer(np.ones((1, 5), "float32"), training=True)
    assert [float(loss) for loss in layer.losses] in ([0.0], [])


def test_trains_in_a_plain_model():
    x, y = data()
    losses = {}
    for weight in (0.0, 5.0):
        keras.utils.set_random_seed(0)
        layers = [keras.layers.Flatten(), keras.layers.Dense(8), SplitBatchMatching(weight, GaussianMixture())]
        model = keras.Sequential([keras.Input((6, 6, 1)), *layers, keras.layers.Dense(3, activation="softmax")])
        model.compile("sgd", "sparse_categorical_crossentropy")
        losses[weight] = model.fit(x, y, batch_size=20, shuffle=False, verbose=0).history["loss"][0]
    assert losses[5.0] > losses[0.0] + 0.5


@pytest.mark.parametrize("value", [-1, np.nan, np.inf])
def test_bad_match_weight(value):
    with pytest.raises(ValueError, match="`match_weight` should be a finite number"):
        SplitBatchMatching(value)
