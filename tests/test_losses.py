import keras
import numpy as np
import pytest

from keras_itdm.kernels import GaussianMixture
from keras_itdm.losses import ClassConditionalMMD, JointMMD, MatchingLoss
from tests import reference

SIZES = [(1, 1, 3), (2, 1, 4), (10, 7, 5), (40, 64, 128), (150, 150, 64)]


def sample(n, m, size, seed=0, num_classes=4):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(num_classes, size)) * 3
    y1, y2 = rng.integers(num_classes, size=n), rng.integers(num_classes, size=m)
    h1 = (centres[y1] + rng.normal(size=(n, size))).astype("float32")
    h2 = (centres[y2] + rng.normal(size=(m, size)) * 1.2).astype("float32")
    return h1, y1, h2, y2


PLACES = [(0.0, 1.0), (1e4, 1.0), (0.0, 1e-3), (1e4, 1e-3), (0.0, 1e3), (1e4, 1e3)]  # shift in units of the scale


def placed(h1, h2, shift, scale):
    return ((h * scale + shift * scale).astype("float32") for h in (h1, h2))  # the reference sees them rounded


@pytest.mark.parametrize("n, m, size", SIZES)
@pytest.mark.parametrize("squared", [False, True])
def test_values_equal_the_float64_reference(n, m, size, squared):
    joint, class_conditional = JointMMD(squared=squared), ClassConditionalMMD(num_classes=4, squared=squared)
    for seed, (shift, scale) in enumerate(PLACES):
        h1, y1, h2, y2 = sample(n, m, size, seed)
        h1, h2 = placed(h1, h2, shift, scale)
        expected = reference.joint(h1, h2, squared=squared)
        assert reference.value(joint, h1, None, h2, None) == pytest.approx(expected, rel=1e-4)
        expected = reference.class_conditional(h1, y1, h2, y2, 4, squared=squared)
        assert reference.value(class_conditional, h1, y1, h2, y2) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("n, m, size", SIZES)
def test_unbiased_values_equal_the_float64_reference(n, m, size):
    h1, y1, h2, y2 = sample(n, m, size, seed=1)
    expected = reference.joint(h1, h2, squared=True, unbiased=True)
    loss = JointMMD(squared=True, unbiased=True)
    assert reference.value(loss, h1, None, h2, None) == pytest.approx(expected, rel=1e-4, abs=1e-6)
    expected = reference.class_conditional(h1, y1, h2, y2, 4, squared=True, unbiased=True)
    loss = ClassConditionalMMD(num_classes=4, squared=True, unbiased=True)
    assert reference.value(loss, h1, y1, h2, y2) == pytest.approx(expected, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("n, m, size", SIZES[1:])
@pytest.mark.parametrize("form", ["joint", "class_conditional"])
@pytest.mark.parametrize("squared", [False, True])
def test_gradients_equal_finite_differences_with_bandwidth_held(n, m, size, form, squared):
    loss = JointMMD(squared=squared) if form == "joint" else ClassConditionalMMD(num_classes=4, squared=squared)
    for shift, scale in PLACES:
        h1, y1, h2, y2 = sample(n, m, size, seed=2)
        h1, h2 = placed(h1, h2, shift, scale)
        if form == "joint":
            sigma = reference.median_bandwidth(h1.astype("float64"), h2.astype("float64"))

            def value(a, b, sigma=sigma):
                return reference.joint(a, b, sigma, squared)
        else:
            sigmas = reference.bandwidths(h1, y1, h2, y2, 4)

            def value(a, b, y1=y1, y2=y2, sigmas=sigmas):
                return reference.class_conditional(a, y1, b, y2, 4, sigmas, squared)

        _, gradients = reference.value_and_gradients(loss, h1, y1, h2, y2)
        h1, h2 = h1.astype("float64"), h2.astype("float64")
        norm = np.sqrt(sum((g.astype("float64") ** 2).sum() for g in gradients))
        rng = np.random.default_rng(3)
        for _ in range(3):
            d1, d2 = rng.normal(size=h1.shape), rng.normal(size=h2.shape)
            step = 1e-4 * scale
            slope = (value(h1 + step * d1, h2 + step * d2) - value(h1 - step * d1, h2 - step * d2)) / (2 * step)
            assert (gradients[0] * d1).sum() + (gradients[1] * d2).sum() == pytest.approx(slope, 1e-3, 2e-4 * norm)
        assert all(np.abs(g).max() > 0 for g in gradients)  # into both batches


@pytest.mark.parametrize("num_classes", [1, 3, 7])
@pytest.mark.parametrize("seed", range(5))
def test_missing_classes_and_single_samples(num_classes, seed):
    rng = np.random.default_rng(seed)
    n, m = rng.integers(1, 12, size=2)
    h1, y1, h2, y2 = sample(n, m, 6, seed, num_classes)
    y1[rng.random(n) < 0.3] = -1
    loss = ClassConditionalMMD(num_classes=num_classes)
    value, gradients = reference.value_and_gradients(loss, h1, y1, h2, y2)
    assert value == pytest.approx(reference.class_conditional(h1, y1, h2, y2, num_classes), rel=1e-4)
    assert all(np.isfinite(g).all() for g in gradients)
    assert (gradients[0][y1 == -1] == 0).all()


DEGENERATE = {
    "equal batches": lambda h: (h, np.arange(6) % 3, h, np.arange(6) % 3),
    "permuted batches": lambda h: (h, np.arange(6) % 3, h[::-1].copy(), (np.arange(6) % 3)[::-1].copy()),
    "all features equal": lambda h: (np.ones_like(h), np.arange(6) % 3, np.ones_like(h), np.arange(6) % 3),
    "all features zero": lambda h: (0 * h, np.arange(6) % 3, 0 * h, np.arange(6) % 3),
    "no class in common": lambda h: (h, np.zeros(6, int), h + 1, np.ones(6, int)),
    "nothing labelled": lambda h: (h, np.full(6, -1), h + 1, np.full(6, -1)),
}


@pytest.mark.parametrize("case", DEGENERATE)
@pytest.mark.parametrize("loss", [JointMMD(), ClassConditionalMMD(3)], ids=["joint", "class_conditional"])
def test_degenerate_batches_have_value_0_and_finite_gradients(case, loss):
    h1, y1, h2, y2 = DEGENERATE[case](np.random.default_rng(0).normal(size=(6, 4)).astype("float32"))
    value, gradients = reference.value_and_gradients(loss, h1, y1, h2, y2)
    assert all(np.isfinite(g).all() for g in gradients)
    if isinstance(loss, JointMMD) and case in ("no class in common", "nothing labelled"):
        assert value > 0.1  # labels are none of its business
    else:
        assert value == pytest.approx(0.0, abs=1e-4)


@pytest.mark.parametrize("size", [1e-30, 1e-20, 1e20, 1e30])
def test_features_of_any_magnitude(size):
    h1, y1, h2, y2 = sample(20, 30, 6)
    loss = ClassConditionalMMD(4)
    value, gradients = reference.value_and_gradients(loss, h1 * size, y1, h2 * size, y2)
    assert value == pytest.approx(reference.class_conditional(h1, y1, h2, y2, 4), rel=1e-4)
    assert all(np.isfinite(g).all() for g in gradients)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_features_that_are_not_finite_show_in_the_value(bad):
    h1, y1, h2, _ = sample(8, 8, 3)
    h1[0, 0] = bad
    assert np.isnan(reference.value(JointMMD(), h1, None, h2, None))
    assert np.isnan(reference.value(ClassConditionalMMD(4), h1, y1, h2, y1))


def test_an_unlabelled_sample_does_not_spread_its_nan():
    h1, y1, h2, y2 = sample(12, 12, 3)
    expected = reference.value(ClassConditionalMMD(4), h1[1:], y1[1:], h2, y2)
    h1[0], y1[0] = np.nan, -1
    assert reference.value(ClassConditionalMMD(4), h1, y1, h2, y2) == pytest.approx(expected, rel=1e-5)


def test_one_hot_column_and_soft_labels_are_the_same_as_integers():
    h1, y1, h2, y2 = sample(30, 40, 5)
    loss = ClassConditionalMMD(4)
    expected = reference.value(loss, h1, y1, h2, y2)
    assert reference.value(loss, h1, y1[:, None], h2, y2[:, None]) == expected
    assert reference.value(loss, h1, np.eye(4)[y1], h2, np.eye(4)[y2]) == expected
    assert reference.value(loss, h1, np.eye(4)[y1] * 0.8 + 0.05, h2, np.eye(4)[y2] * 0.8 + 0.05) == expected
    assert reference.value(loss, h1, y1.astype("float32"), h2, y2.astype("uint8")) == expected
    assert reference.value(ClassConditionalMMD(), h1, np.eye(4)[y1], h2, np.eye(4)[y2]) == expected


def test_features_of_higher_rank_are_flattened_and_cast():
    h1, _, h2, _ = sample(10, 12, 24)
    expected = reference.value(JointMMD(), h1, None, h2, None)
    assert reference.value(JointMMD(), h1.reshape(10, 2, 3, 4), None, h2.reshape(12, 2, 3, 4), None) == expected
    assert reference.value(JointMMD(), h1.astype("float64"), None, h2.astype("float64"), None) == expected
    half = keras.ops.cast(h1, "bfloat16"), keras.ops.cast(h2, "bfloat16")
    assert reference.value(JointMMD(), half[0], None, half[1], None) == pytest.approx(expected, rel=2e-2)


def test_bandwidth_may_be_fixed():
    h1, y1, h2, y2 = sample(20, 25, 6)
    kernel = GaussianMixture(bandwidth=7.0)
    assert reference.value(JointMMD(kernel), h1, None, h2, None) == pytest.approx(
        reference.joint(h1, h2, 7.0), rel=1e-4
    )
    expected = reference.class_conditional(h1, y1, h2, y2, 4, [7.0] * 4)
    assert reference.value(ClassConditionalMMD(4, kernel), h1, y1, h2, y2) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    "make, message",
    [
        (
            lambda: JointMMD(kernel="gaussian"),
            "`kernel` should be a Kernel, such as GaussianMixture\\(\\). Received: 'gaussian'",
        ),
        (lambda: JointMMD(unbiased=True), "`unbiased=True` needs `squared=True`"),
        (lambda: ClassConditionalMMD(num_classes=0), "positive integer or None. Received: 0"),
        (lambda: ClassConditionalMMD(num_classes=2.5), "positive integer or None. Received: 2.5"),
        (lambda: ClassConditionalMMD(2)(np.ones((2, 3)), None, np.ones((2, 3)), [0, 1]), "Received none for S1"),
        (lambda: ClassConditionalMMD()(np.ones((2, 3)), [0, 1], np.ones((2, 3)), [0, 1]), "cannot be inferred"),
        (lambda: ClassConditionalMMD(3)(np.ones((2, 3)), np.eye(2), np.ones((2, 3)), np.eye(2)), r"shape \(2, 2\)"),
        (lambda: ClassConditionalMMD(2)(np.ones((1, 3)), [[[0]]], np.ones((1, 3)), [[[0]]]), r"shape \(1, 1, 1\)"),
        (lambda: JointMMD()(np.ones((2, 3)), None, np.ones((2, 4)), None), "Received: 3 and 4 numbers"),
        (lambda: JointMMD()(1.0, None, 2.0, None), "Received a scalar"),
    ],
)
def test_bad_arguments_are_told_what_was_expected(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "loss",
    [
        JointMMD(GaussianMixture((1, 3), bandwidth=2.0), squared=True, unbiased=True),
        ClassConditionalMMD(num_classes=5, squared=True),
    ],
    ids=["joint", "class_conditional"],
)
def test_serialization_keeps_every_argument(loss):
    config = keras.saving.serialize_keras_object(loss)
    again = keras.saving.deserialize_keras_object(config, safe_mode=True)
    assert type(again) is type(loss) and again.get_config() == loss.get_config()
    assert again.kernel.multipliers == loss.kernel.multipliers and again.kernel.bandwidth == loss.kernel.bandwidth


def test_a_subclass_overrides_one_method():
    class Means(MatchingLoss):
        def call(self, features, labels, partner_features, partner_labels):
            return keras.ops.sum((keras.ops.mean(features, 0) - keras.ops.mean(partner_features, 0)) ** 2)

    assert float(Means()(np.zeros((3, 2, 2)), None, np.ones((5, 2, 2)), None)) == 4.0
    with pytest.raises(NotImplementedError, match="should override `call`"):
        MatchingLoss()(np.zeros((3, 2)), None, np.ones((5, 2)), None)
