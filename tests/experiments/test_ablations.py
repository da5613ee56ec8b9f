import numpy as np
import pytest

from experiments import ablations
from keras_itdm.losses import ClassConditionalMMD
from tests import reference

K = 3


@pytest.fixture
def batches():
    rng = np.random.default_rng(0)
    h1, h2 = (rng.normal(size=(30, 4)).astype("float32") + 100 for _ in range(2))
    y1, y2 = rng.integers(K, size=30), rng.integers(K, size=30)
    return h1, y1, h2, y2


def mean_kernel_within(h, y, k, sigma):
    kernel = reference.gaussian_mixture(h[y == k], h[y == k], sigma)
    n = len(kernel)
    return (kernel.sum() - n) / (n * (n - 1)), n


def test_one_bandwidth(batches):
    h1, _, h2, _ = batches
    sigma = reference.median_bandwidth(h1.astype("float64"), h2.astype("float64"))
    expected = reference.class_conditional(*batches, K, sigmas=[sigma] * K)
    assert reference.value(ablations.OneBandwidth(num_classes=K), *batches) == pytest.approx(expected, rel=1e-3)


def test_one_bandwidth_leaves_out_a_class_that_one_batch_lacks(batches):
    h1, y1, h2, y2 = batches
    y2 = np.where(y2 == 2, 1, y2)
    sigma = reference.median_bandwidth(h1.astype("float64"), h2.astype("float64"))
    expected = reference.class_conditional(h1, y1, h2, y2, K, sigmas=[sigma] * K)
    assert reference.value(ablations.OneBandwidth(num_classes=K), h1, y1, h2, y2) == pytest.approx(expected, rel=1e-3)


def test_compactness(batches):
    h1, y1, h2, y2 = batches
    h, y = np.concatenate([h1, h2]).astype("float64"), np.concatenate([y1, y2])
    sigma = reference.median_bandwidth(h1.astype("float64"), h2.astype("float64"))
    within = [mean_kernel_within(h, y, k, sigma) for k in range(K)]
    value = reference.value(ablations.Compactness(num_classes=K), *batches)
    assert value == pytest.approx(np.mean([1 - mean for mean, _ in within]), rel=1e-3)
    value = reference.value(ablations.Compactness(num_classes=K, as_bias=True), *batches)
    assert value == pytest.approx(np.mean([np.sqrt(2 / n * (1 - mean)) for mean, n in within]), rel=1e-3)


def test_the_gradient_goes_into_s1_alone(batches):
    value, (first, second) = reference.value_and_gradients(ablations.GradientIntoS1(num_classes=K), *batches)
    expected, (theirs, _) = reference.value_and_gradients(ClassConditionalMMD(num_classes=K), *batches)
    assert value == pytest.approx(expected)
    np.testing.assert_allclose(first, theirs, atol=1e-7)
    assert not second.any()


def test_spread_of_features():
    features = np.array([[0.0], [2.0], [10.0], [12.0]])
    assert ablations.spread(features, np.array([0, 0, 1, 1])) == (1.0, 25.0)
