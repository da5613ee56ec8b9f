import itertools

import keras
import numpy as np
import pytest
from keras import ops

from keras_itdm import two_sample_test
from keras_itdm.kernels import GaussianMixture, Kernel
from keras_itdm.losses import ClassConditionalMMD
from tests import reference


def samples(n=30, m=20, shift=0.0, seed=0, size=3):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, size)), rng.normal(size=(m, size)) + shift


@pytest.mark.parametrize("unbiased", [False, True])
def test_statistic_and_bandwidth(unbiased):
    x, y = samples(shift=0.5)
    result = two_sample_test(x, y, permutations=1, unbiased=unbiased)
    assert result.statistic == pytest.approx(reference.joint(x, y, squared=unbiased, unbiased=unbiased), rel=1e-5)
    assert result.bandwidth == pytest.approx(reference.median_bandwidth(x, y), rel=1e-5)


@pytest.mark.parametrize("unbiased", [False, True])
def test_class_by_class_the_statistic_is_that_of_the_loss(unbiased):
    x, y = samples(shift=0.5)
    x_labels, y_labels = np.arange(30) % 3, np.arange(20) % 2  # y lacks class 2
    result = two_sample_test(x, y, x_labels, y_labels, permutations=1, unbiased=unbiased)
    expected = reference.class_conditional(x, x_labels, y, y_labels, 3, squared=unbiased, unbiased=unbiased)
    assert result.statistic == pytest.approx(expected, rel=1e-5)
    assert np.isnan(result.bandwidth).tolist() == [False, False, True]
    sigmas = [reference.median_bandwidth(x[x_labels == k], y[y_labels == k]) for k in range(2)]
    assert result.bandwidth[:2] == pytest.approx(sigmas, rel=1e-5)


@pytest.mark.parametrize("unbiased", [False, True])
def test_p_value_is_the_share_of_all_ways_to_deal_out(unbiased):
    x, y = samples(3, 4, shift=0.8, seed=1)
    pooled, sigma = np.concatenate([x, y]), reference.median_bandwidth(x, y)
    observed = reference.squared_mmd(x, y, sigma, unbiased)
    values = [
        reference.squared_mmd(pooled[list(chosen)], np.delete(pooled, chosen, axis=0), sigma, unbiased)
        for chosen in itertools.combinations(range(7), 3)
    ]
    expected = np.mean(np.array(values) >= observed - 1e-9)
    assert 0.1 < expected < 0.9
    result = two_sample_test(x, y, permutations=20000, seed=0, unbiased=unbiased)
    assert result.p_value == pytest.approx(expected, abs=0.015)  # four standard errors


def test_permutations_stay_within_their_class():
    rng = np.random.default_rng(0)
    x_labels, y_labels = np.repeat([0, 1], [40, 10]), np.repeat([0, 1], [10, 40])
    x, y = (10.0 * labels[:, None] + rng.normal(size=(50, 2)) for labels in (x_labels, y_labels))
    assert two_sample_test(x, y, permutations=200, seed=0).p_value < 0.01  # the classes have other shares
    assert two_sample_test(x, y, x_labels, y_labels, permutations=200, seed=0).p_value > 0.1
    assert two_sample_test(x, y + 2.0 * y_labels[:, None], x_labels, y_labels, permutations=200, seed=0).p_value < 0.01


@pytest.mark.parametrize("by_class", [False, True])
def test_error_of_the_first_kind(by_class):
    rng = np.random.default_rng(0)
    labels = (np.arange(16) % 2, np.arange(12) % 2) if by_class else ()
    p_values = np.array(
        [
            two_sample_test(*np.split(rng.normal(size=(28, 2)), [16]), *labels, permutations=99, seed=i).p_value
            for i in range(500)
        ]
    )
    # p ≤ 0.05 has probability 0.05; the number of them is binomial. 99.9 % of such numbers are within.
    assert 10 <= (p_values <= 0.05).sum() <= 43
    assert 0.45 < p_values.mean() < 0.56  # they are uniform on 0.01, 0.02, ..., 1


def test_power_grows_with_the_shift():
    def rejections(shift):
        tests = (two_sample_test(*samples(25, 25, shift, seed), permutations=99, seed=0) for seed in range(60))
        return sum(test.p_value <= 0.05 for test in tests)

    none, small, medium, large = (rejections(shift) for shift in (0.0, 0.25, 0.5, 1.0))
    assert none < 10 and none < small < medium < large == 60


def test_the_seed_decides():
    x, y = samples(shift=0.2)
    first, again, other = (two_sample_test(x, y, permutations=500, seed=seed).p_value for seed in (1, 1, 2))
    assert first == again != other


def test_the_origin_does_not_matter():
    x, y = samples(shift=0.5)
    x, y = np.round(x, 2).astype("float32"), np.round(y, 2).astype("float32")
    near, far = two_sample_test(x, y, seed=0), two_sample_test(x + 2.0**10, y + 2.0**10, seed=0)
    assert far.statistic == pytest.approx(near.statistic, rel=1e-3)
    assert far.p_value == pytest.approx(near.p_value, abs=0.01)


def test_equal_samples_are_never_told_apart():
    assert two_sample_test(np.ones((5, 2)), np.ones((4, 2)), permutations=20) == (0.0, 1.0, 0.0)
    x, _ = samples()
    assert two_sample_test(x, x, permutations=20).p_value == 1.0


def test_ties_count_against():
    # Two of two samples are dealt out in two ways, which give the same value.
    assert two_sample_test(np.zeros((1, 3)), np.full((1, 3), 0.7), permutations=50, seed=0).p_value == 1.0


def test_kernel_with_a_bandwidth_of_its_own():
    x, y = samples(shift=0.5)
    result = two_sample_test(x, y, permutations=1, kernel=GaussianMixture((1, 3), bandwidth=2.0))
    kernels = [
        np.mean([np.exp(-((a[:, None] - b[None]) ** 2).sum(-1) / (c * 2.0)) for c in (1, 3)], axis=0).mean()
        for a, b in ((x, x), (y, y), (x, y))
    ]
    assert result.statistic == pytest.approx(np.sqrt(kernels[0] + kernels[1] - 2 * kernels[2]), rel=1e-5)
    assert result.bandwidth == 2.0


def test_labels_and_samples_of_other_forms():
    x, y = samples(shift=0.5)
    x_labels, y_labels = np.arange(30) % 3, np.arange(20) % 3
    expected = two_sample_test(x, y, x_labels, y_labels, permutations=20, seed=0)
    one_hot = two_sample_test(x, y, np.eye(3)[x_labels], np.eye(3)[y_labels], permutations=20, seed=0)
    assert one_hot[:2] == expected[:2]
    more = two_sample_test(x, y, x_labels, y_labels, permutations=20, seed=0, num_classes=6)
    assert more[:2] == pytest.approx((expected.statistic / 2, expected.p_value))
    x, y = np.concatenate([x, x[:4] + 9.0]), ops.convert_to_tensor(y.reshape(20, 3, 1), "float32")
    x_labels = np.concatenate([x_labels, [-1] * 4])[:, None]  # the four take no part
    unlabelled = two_sample_test(x, y, x_labels, ops.convert_to_tensor(y_labels), permutations=20, seed=0)
    assert unlabelled[:2] == pytest.approx(expected[:2])


def test_samples_that_are_not_finite():
    x, y = samples()
    y[0, 0] = np.nan
    result = two_sample_test(x, y, permutations=20)
    assert np.isnan(result).all()


def test_samples_of_different_sizes():
    x, y = samples()
    with pytest.raises(ValueError, match="same number of features"):
        two_sample_test(x, y[:, :2])


def test_float64_is_kept():
    """Times in seconds since 1970, which float32 knows to within a minute or two."""
    rng = np.random.default_rng(0)
    x, y = 1.7e9 + rng.normal(size=(60, 1)), 1.7e9 + 3 + rng.normal(size=(60, 1))
    shifted = two_sample_test(x - 1.7e9, y - 1.7e9, seed=0)
    result = two_sample_test(x, y, seed=0)
    assert result.p_value == shifted.p_value < 0.01
    assert result.statistic == pytest.approx(shifted.statistic, rel=1e-6)


def test_one_sample_far_away_does_not_hide_the_others():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 3)), 1 + rng.normal(size=(60, 3))
    expected = two_sample_test(x, y, seed=0)
    for far in (1e5, 1e9, 1e15):
        result = two_sample_test(np.concatenate([x, np.full((1, 3), far)]), y, seed=0)
        assert result.p_value < 0.01
        assert result.statistic == pytest.approx(expected.statistic, rel=0.1)


@keras.saving.register_keras_serializable(package="tests")
class InverseMultiquadric(Kernel):
    def excess_and_slope(self, squared_distances, bandwidth):
        k = bandwidth / (bandwidth + squared_distances)
        return -1.0 / (1.0 + bandwidth / squared_distances), -k * k / bandwidth


@pytest.mark.parametrize("bandwidth", ["median", 0.7])
def test_a_kernel_of_ones_own_is_the_one_that_is_tested_and_matched(bandwidth):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 3)), rng.normal(size=(30, 3)) + 0.5
    pooled = np.concatenate([x, y])
    distances = np.sum((pooled[:, None] - pooled[None]) ** 2, axis=-1)
    sigma = np.median(distances[np.triu_indices(70, 1)]) if bandwidth == "median" else bandwidth
    k = sigma / (sigma + distances)
    weights = np.repeat([1 / 40, -1 / 30], [40, 30])
    expected = np.sqrt(weights @ k @ weights)
    kernel = InverseMultiquadric(bandwidth)
    assert two_sample_test(x, y, permutations=9, seed=0, kernel=kernel).statistic == pytest.approx(expected, rel=1e-5)
    for form in ("blocks", "pairs"):
        loss = ClassConditionalMMD(2, kernel=kernel, form=form)
        labels = np.zeros(40, int), np.zeros(30, int)
        assert 2 * float(loss(x, labels[0], y, labels[1])) == pytest.approx(expected, rel=1e-4)
    assert type(ClassConditionalMMD.from_config(loss.get_config()).kernel) is InverseMultiquadric
