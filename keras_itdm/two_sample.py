"""The maximum mean discrepancy between two samples, as a whole and class by class.

    MMD²(X, Y) = 1/n² Σ k(x, x') + 1/m² Σ k(y, y') - 2/(nm) Σ k(x, y)         (section 3.1; the V-statistic)

All classes share one matrix of distances between the pooled samples, in which pairs of different classes are masked
out. Three things keep it accurate in float32, wherever the features lie and whatever their scale: each class is centred
and brought to unit size first, since ‖x‖² + ‖y‖² - 2x·y cancels far from the origin; sums are taken over k - 1 instead of
k; and the root is guarded at 0, where its slope is infinite.
"""

import math

from keras import ops

from keras_itdm.kernels import GaussianMixture

# Squared distances that are a smaller share than this of ‖x‖² + ‖y‖² are rounding error: the samples coincide.
_COINCIDENT = 1e-6
# Interval of log σ that is searched, below the largest distance, and how often it is halved: to 4e-7 of σ.
_LOG_RANGE = 32.0
_HALVINGS = 26


def mmd(x, y, kernel=None, squared=False):
    """Maximum mean discrepancy between two samples: how far apart their distributions lie, seen through a kernel.

    The biased estimate of Gretton et al. (2012), diagonal included; about `√(1/n + 1/m)` for samples of one
    distribution, 0 for equal ones.

    Args:
        x: Samples, of shape `(n, ...)`. Axes beyond the second are flattened.
        y: Samples, of shape `(m, ...)`, as many numbers each as in `x`.
        kernel: A `GaussianMixture`. Default: the paper's five kernels around the median squared distance.
        squared: Whether to return MMD² instead of MMD.

    Returns:
        Float32 scalar tensor: MMD, in [0, √2], or its square.

    Raises:
        ValueError: if the samples are scalars, or do not have the same number of features.

    Example:

    >>> x = np.random.default_rng(0).normal(size=(200, 3))
    >>> y = np.random.default_rng(1).normal(size=(200, 3))
    >>> float(mmd(x, y)) < 0.1 < float(mmd(x, y + 2.0))
    True
    """
    x, y = flatten_features(x, y)
    n, m = ops.shape(x)[0], ops.shape(y)[0]
    value = squared_mmd(x, y, ops.zeros((n,), "int32"), ops.zeros((m,), "int32"), 1, kernel)[0]
    return value if squared else root(value)


def squared_mmd(x, y, x_classes, y_classes, num_classes, kernel=None, unbiased=False):
    """MMD² between two samples within each class.

    Args:
        x: Float32 tensor of shape `(n, features)`.
        y: Float32 tensor of shape `(m, features)`.
        x_classes: Integer tensor of shape `(n,)`. Samples whose class is outside `[0, num_classes)` take no part.
        y_classes: The same for `y`, `(m,)`.
        num_classes: Number of classes `K`.
        kernel: A `GaussianMixture`; default: the paper's.
        unbiased: Whether to return the U-statistic, which leaves out the diagonal and can be negative.

    Returns:
        Float32 tensor of shape `(num_classes,)`. 0 for a class that `x` or `y` lacks, and, if `unbiased`, for one of
        which either has fewer than two samples.
    """
    kernel = kernel or GaussianMixture()
    pooled = ops.concatenate([x, y], axis=0)
    classes = ops.concatenate([ops.cast(x_classes, "int32"), ops.cast(y_classes, "int32")], axis=0)
    in_x = ops.arange(ops.shape(pooled)[0]) < ops.shape(x)[0]

    groups = _Groups(classes, num_classes)
    pooled, scale = groups.standardize(pooled)
    squared_distances = pairwise_squared_distances(pooled)
    if kernel.bandwidth == "median":
        bandwidth = ops.maximum(_median(squared_distances, groups, ops.shape(pooled)[1]), 1e-12)
    else:
        bandwidth = ops.maximum(kernel.bandwidth / groups.to_rows(scale) ** 2, 1e-12)
    excess = kernel.excess(squared_distances, bandwidth[:, None])  # k - 1: the ones cancel

    # Sums over the partners of each sample in x and in y, then over the samples of each class.
    with_x = ops.sum(ops.where(groups.same & in_x[None, :], excess, 0.0), axis=1)
    with_y = ops.sum(ops.where(groups.same & ~in_x[None, :], excess, 0.0), axis=1)
    n = groups.sum(ops.cast(in_x, "float32"))
    m = groups.sum(ops.cast(~in_x, "float32"))
    if unbiased:
        present = (n >= 2) & (m >= 2)
        n, m = ops.maximum(n, 2.0), ops.maximum(m, 2.0)
        within_x = groups.sum(ops.where(in_x, with_x, 0.0)) / (n * (n - 1.0))
        within_y = groups.sum(ops.where(in_x, 0.0, with_y)) / (m * (m - 1.0))
        between = groups.sum(ops.where(in_x, with_y, 0.0)) / (n * m)
        value = within_x + within_y - 2.0 * between
    else:
        present = (n >= 1) & (m >= 1)
        n, m = ops.maximum(n, 1.0), ops.maximum(m, 1.0)
        witness = with_x / groups.to_rows(n) - with_y / groups.to_rows(m)  # exactly 0 where x and y are equal
        value = groups.sum(ops.where(in_x, witness, 0.0)) / n - groups.sum(ops.where(in_x, 0.0, witness)) / m
    return ops.where(present, value, 0.0)


def root(value):
    """Square root whose value and gradient are 0 at and below 0. NaN stays NaN."""
    positive = ops.logical_not(value <= 0.0)
    return ops.where(positive, ops.sqrt(ops.where(positive, value, 1.0)), 0.0)


def flatten_features(x, y):
    """Both samples as float32 tensors of shape `(samples, features)`."""
    x, y = (ops.cast(ops.convert_to_tensor(features), "float32") for features in (x, y))
    for features in (x, y):
        if len(features.shape) == 0:
            raise ValueError("Features should be of shape (samples, ...). Received a scalar.")
    x, y = (
        ops.reshape(f, (-1, _product(f.shape[1:]))) if len(f.shape) != 2 else f  # static: XLA needs the size
        for f in (x, y)
    )
    if x.shape[1] != y.shape[1]:
        raise ValueError(
            "Both samples should have the same number of features. "
            f"Received: {x.shape[1]} and {y.shape[1]} numbers a sample"
        )
    return x, y


def _product(sizes):
    product = 1
    for size in sizes:
        if size is None:
            raise ValueError(f"Every axis of the features but the first should have a fixed size. Received: {sizes}")
        product *= size
    return product


def pairwise_squared_distances(pooled):
    """`(n, n)` matrix of ‖x_i - x_j‖² of centred samples `(n, features)`. Distances lost in rounding are exactly 0."""
    norms = ops.sum(ops.square(pooled), axis=1)
    norms = norms[:, None] + norms[None, :]
    distances = norms - 2.0 * ops.matmul(pooled, ops.transpose(pooled))
    return ops.where(distances <= _COINCIDENT * norms, 0.0, distances)


class _Groups:
    """Samples by class: sums and maxima over each class, and back from a class to its samples."""

    def __init__(self, classes, num_classes):
        self.valid = (classes >= 0) & (classes < num_classes)
        self.classes = ops.where(self.valid, classes, 0)
        self.member = (classes[:, None] == ops.arange(num_classes, dtype="int32")[None, :]) & self.valid[:, None]
        self.same = (classes[:, None] == classes[None, :]) & self.valid[:, None]

    def sum(self, values):
        return ops.sum(ops.where(self.member, values[:, None], 0.0), axis=0)

    def max(self, values):
        return ops.max(ops.where(self.member, values[:, None], 0.0), axis=0)

    def min(self, values):
        return ops.min(ops.where(self.member, values[:, None], float("inf")), axis=0)

    def to_rows(self, values):
        return ops.take(values, self.classes, axis=0)

    def standardize(self, samples):
        """Each class with its mean at 0 and its largest number at ±1, and the factors `(num_classes,)` it took.

        MMD does not change under either, so no gradient flows through mean and factor: the samples' own is exact.
        """
        samples = ops.where(self.valid[:, None], samples, 0.0)
        held = ops.stop_gradient(samples)
        share = ops.cast(self.member, "float32")
        share = share / ops.maximum(ops.sum(share, axis=0), 1.0)
        centre = ops.matmul(ops.transpose(share), held)
        centred = held - self.to_rows(centre)
        scale = self.max(ops.max(ops.abs(centred), axis=1))
        scale = ops.where(scale == 0.0, 1.0, scale)
        valid = ops.cast(self.valid, "float32")[:, None]
        return (samples - self.to_rows(centre)) * (valid / self.to_rows(scale)[:, None]), scale


def _median(squared_distances, groups, num_features):
    """Median over all distinct pairs of each class, `(n,)`: in each row, that of the class it belongs to.

    Halves an interval of logarithms, counting the pairs that lie below its middle: n² comparisons at a time, where
    sorting n² distances takes many times as long. The largest distance below the bound is then the lower median itself.
    """
    order = ops.arange(ops.shape(squared_distances)[0])
    pairs = groups.same & (order[:, None] < order[None, :])
    distances = ops.where(pairs, ops.stop_gradient(squared_distances), float("inf"))
    num_pairs = groups.sum(ops.sum(ops.cast(pairs, "float32"), axis=1))
    rank = ops.ceil(num_pairs / 2.0)

    def below(bound):
        return distances <= groups.to_rows(bound)[:, None]

    def num_below(bound):
        return groups.sum(ops.sum(ops.cast(below(bound), "float32"), axis=1))

    def halve(_, interval):
        low, high = interval
        middle = (low + high) / 2.0
        enough = num_below(ops.exp(middle)) >= rank
        return ops.where(enough, low, middle), ops.where(enough, middle, high)

    high = ops.zeros_like(rank) + math.log(4.05 * num_features)  # standardized features are in [-1, 1]
    _, high = ops.fori_loop(0, _HALVINGS, halve, (high - _LOG_RANGE, high))
    lower = groups.max(ops.max(ops.where(below(ops.exp(high)), distances, 0.0), axis=1))
    next_larger = groups.min(ops.min(ops.where(below(lower), float("inf"), distances), axis=1))
    upper = ops.where(num_below(lower) >= ops.floor(num_pairs / 2.0) + 1.0, lower, next_larger)
    return groups.to_rows(ops.where(num_pairs > 0, (lower + upper) / 2.0, 1.0))
