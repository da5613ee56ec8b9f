import numpy as np
import pytest

from keras_itdm._feature_layers import mean_over_layers


@pytest.mark.parametrize("scale", [1, 1e307, 1e-300])
def test_weights_count_by_their_ratio(scale):
    mean = mean_over_layers({"a": scale, "b": 3 * scale}, [np.float32(2), np.float32(6)])
    assert mean == pytest.approx(5, rel=1e-6)


def test_equal_weights_and_a_single_layer():
    assert mean_over_layers(["a", "b"], [2.0, 6.0]) == 4
    for feature_layer in ("a", ["a"], {"a": 0.3}):
        assert mean_over_layers(feature_layer, [0.1]) == 0.1
