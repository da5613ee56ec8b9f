import keras
import numpy as np
import pytest
from keras import ops

from keras_itdm._layouts import Blocks
from keras_itdm._median import HALVES, SIXTEENTHS, narrowed_median, selected_median

CLASSES, WIDTH = 5000, 6  # many of few samples: where one distance is taken for the next, it shows


def distances():
    """Squared distances of samples to each other, `(CLASSES, WIDTH, WIDTH)`, and their medians."""
    samples = np.random.default_rng(0).uniform(-1, 1, size=(CLASSES, WIDTH, 3)).astype("float32")
    values = np.square(samples[:, :, None] - samples[:, None]).sum(axis=3)
    row, column = np.triu_indices(WIDTH, 1)
    return values, np.median(values[:, row, column], axis=1)


@pytest.mark.parametrize("narrowing", [HALVES, SIXTEENTHS], ids=["halves", "sixteenths"])
def test_a_median_is_never_the_distance_beside_it(narrowing):
    values, expected = distances()
    counts = ops.full((CLASSES,), WIDTH, dtype="int32")
    blocks = Blocks(ops.zeros((CLASSES, WIDTH), "int32"), counts)
    values = ops.convert_to_tensor(values)
    median = narrowed_median(
        lambda function, *bounds: function(values, *bounds),
        blocks,
        ops.cast(counts, "float32"),
        num_features=3,
        **narrowing,
    )
    np.testing.assert_allclose(ops.convert_to_numpy(median)[:, 0], expected, rtol=1e-4)


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="It is PyTorch's")
def test_selected():
    values, expected = distances()
    blocks = Blocks(ops.zeros((CLASSES, WIDTH), "int32"), ops.full((CLASSES,), WIDTH, dtype="int32"))
    median = selected_median(ops.convert_to_tensor(values), blocks)
    np.testing.assert_allclose(ops.convert_to_numpy(median)[:, 0], expected, rtol=1e-6)
