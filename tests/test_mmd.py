import functools

import numpy as np
import pytest

from keras_itdm import mmd
from keras_itdm.kernels import GaussianMixture
from tests import reference

RNG = np.random.default_rng(0)


def value(x, y, kernel=None, squared=False):
    """`mmd`, compiled: as single operations JAX compiles each of them."""
    return reference.value(functools.partial(mmd, kernel=kernel, squared=squared), x, y)


@pytest.mark.parametrize("n, m", [(1, 1), (30, 20), (101, 64)])
@pytest.mark.parametrize("bandwidth", ["median", 0.7])
def test_mmd_equals_the_reference(n, m, bandwidth):
    x, y = RNG.normal(size=(n, 3)), RNG.normal(size=(m, 3)) + 0.3
    x, y = x.astype("float32"), y.astype("float32")
    sigma = None if bandwidth == "median" else bandwidth
    kernel = GaussianMixture(bandwidth=bandwidth)
    expected = reference.squared_mmd(x, y, sigma)
    assert value(x, y, kernel, squared=True) == pytest.approx(expected, rel=1e-4)
    assert value(x, y, kernel) == pytest.approx(np.sqrt(expected), rel=1e-4)


@pytest.mark.parametrize("far", [1e3, 1e5, 1e6])
@pytest.mark.parametrize("n, m", [(8, 8), (40, 20)])
def test_a_sample_far_away_does_not_hide_the_others(far, n, m):
    x, y = RNG.normal(size=(n, 5)).astype("float32"), (RNG.normal(size=(m, 5)) + 0.5).astype("float32")
    x[3] = far
    assert value(x, y) == pytest.approx(np.sqrt(reference.squared_mmd(x, y)), rel=1e-3)


def test_one_feature_may_lack_its_axis():
    x, y = RNG.normal(size=50), RNG.normal(size=60) + 1
    assert value(x, y) == pytest.approx(value(x[:, None], y[:, None]))


def test_a_median_of_zero_compares_for_equality():
    """More than half of the pairs coincide: the kernel's limit is 1 for equal samples and 0 for others."""
    x, y = np.zeros((30, 2), "float32"), np.zeros((20, 2), "float32")
    y[:3] = 5.0
    assert value(x, y) == pytest.approx(np.sqrt(reference.squared_mmd(x, y)), rel=1e-4)


def test_far_outliers_do_not_blur_the_median():
    x, y = RNG.normal(size=(60, 2)).astype("float32"), RNG.normal(size=(60, 2)).astype("float32")
    x[0] = 300.0
    assert value(x, y) == pytest.approx(np.sqrt(reference.squared_mmd(x, y)), rel=1e-3)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"multipliers": ()}, "positive numbers, at least one"),
        ({"multipliers": (1, -2)}, "positive numbers"),
        ({"multipliers": (1, np.nan)}, "positive numbers"),
        ({"bandwidth": "mean"}, "'median' or a positive number. Received: 'mean'"),
        ({"bandwidth": 0}, "positive number. Received: 0"),
        ({"bandwidth": np.inf}, "positive number. Received: inf"),
    ],
)
def test_bad_kernels_are_told_what_was_expected(arguments, message):
    with pytest.raises(ValueError, match=message):
        GaussianMixture(**arguments)


def test_multipliers_that_do_not_double():
    x, y = RNG.normal(size=(40, 3)).astype("float32"), RNG.normal(size=(30, 3)).astype("float32") * 1.5
    kernel = GaussianMixture(multipliers=(0.5, 1, 3))
    sigma = reference.median_bandwidth(x.astype("float64"), y.astype("float64"))
    x64, y64 = x.astype("float64"), y.astype("float64")
    pairs = ((x64, x64, 1), (y64, y64, 1), (x64, y64, -2))
    expected = sum(sign * reference.gaussian_mixture(a, b, sigma, (0.5, 1, 3)).mean() for a, b, sign in pairs)
    assert value(x, y, kernel, squared=True) == pytest.approx(expected, rel=1e-4)
