"""The maximum mean discrepancy between two samples, as a whole and class by class.

    MMD²(X, Y) = 1/n² Σ k(x, x') + 1/m² Σ k(y, y') - 2/(nm) Σ k(x, y)         (section 3.1; the V-statistic)

which is Σ w_i w_j k(z_i, z_j) over the pooled samples z, with weights 1/n for those of X and -1/m for those of Y, and has
the gradient 4 w_i Σ_j w_j k'(d_ij) (z_i - z_j) in z_i, for k' the derivative by the squared distance d. Value and gradient
are computed together, in one pass over the pairs of each class, so that no matrix is kept for the way back and none is
differentiated: compilers are handed a value whose gradient is known. Derivatives of the gradient are therefore 0.

Three things keep it accurate in float32, wherever the features lie and whatever their scale: each class is centred
and brought to unit size first, since ‖x‖² + ‖y‖² - 2x·y cancels far from the origin; sums are taken over k - 1 instead of
k; and the root is guarded at 0, where its slope is infinite.
"""

import functools
import math

import keras
from keras import ops

from keras_itdm._checks import check_flags
from keras_itdm.kernels import check_kernel
from keras_itdm.layouts import (
    Blocks,
    Matrix,
    blocks_at_once,
    blocks_for,
    deal_out,
    in_chunks,
    keeps_matrix,
    member_of,
    rows_at_once,
    uses_blocks,
)

# Squared distances that are a smaller share than this of ‖x‖² + ‖y‖² are rounding error: the samples coincide.
_COINCIDENT = 1e-6
# σ is searched between the largest distance there can be and this share of it. The interval is narrowed to 3e-5 of σ: by
# halves of its logarithm or, where each count of pairs takes all distances anew, to one of 16 parts at a time.
_LEAST_SHARE = math.exp(-32.0)
_HALVES = {"parts": 2, "times": 20}
_SIXTEENTHS = {"parts": 16, "times": 5}


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
        ValueError: if either has no samples, they are not numbers, or do not have the same number of features; if
            `kernel` is not a kernel, or `squared` is neither True nor False.

    Example:

    >>> x = np.random.default_rng(0).normal(size=(200, 3))
    >>> y = np.random.default_rng(1).normal(size=(200, 3))
    >>> float(mmd(x, y)) < 0.1 < float(mmd(x, y + 2.0))
    True
    """
    check_flags(squared=squared)
    x, y = flatten_features(x, y)
    n, m = ops.shape(x)[0], ops.shape(y)[0]
    if 0 in (x.shape[0], y.shape[0]):
        raise ValueError(f"Both samples should hold at least one. Received: {x.shape[0]} and {y.shape[0]}")
    value = squared_mmd(x, y, ops.zeros((n,), "int32"), ops.zeros((m,), "int32"), 1, kernel)[0]
    return value if squared else root(value)


def squared_mmd(x, y, x_classes, y_classes, num_classes, kernel=None, unbiased=False, form="auto"):
    """MMD² between two samples within each class.

    Args:
        x: Float32 tensor of shape `(n, features)`.
        y: Float32 tensor of shape `(m, features)`.
        x_classes: Integer tensor of shape `(n,)`. Samples whose class is outside `[0, num_classes)` take no part.
        y_classes: The same for `y`, `(m,)`.
        num_classes: Number of classes `K`.
        kernel: A `GaussianMixture`; default: the paper's.
        unbiased: Whether to return the U-statistic, which leaves out the diagonal and can be negative.
        form: How to go about it, one of `layouts.FORMS`.

    Returns:
        Float32 tensor of shape `(num_classes,)`. 0 for a class that `x` or `y` lacks, and, if `unbiased`, for one of
        which either has fewer than two samples.
    """
    n, m = ops.shape(x)[0], ops.shape(y)[0]
    kernel = check_kernel(kernel)
    if 0 in (x.shape[0], y.shape[0]):
        return ops.zeros((num_classes,), "float32")
    pooled = ops.concatenate([x, y], axis=0)
    in_x = ops.arange(n + m) < n
    classes = ops.concatenate([ops.cast(x_classes, "int32"), ops.cast(y_classes, "int32")], axis=0)
    num_blocks, block_sizes = blocks_for(n, m, num_classes)

    # Classes that both samples hold are numbered anew: there are no more than either has samples.
    x_counts, y_counts = _counts(classes, in_x, num_classes)
    least = 2 if unbiased else 1
    present = (x_counts >= least) & (y_counts >= least)
    number = ops.cumsum(ops.cast(present, "int32")) - 1
    known = (classes >= 0) & (classes < num_classes)
    index = ops.where(known, classes, 0)
    classes = ops.where(known & ops.take(present, index), ops.take(number, index), -1)
    x_counts, y_counts = _counts(classes, in_x, num_blocks)

    evaluate = functools.partial(
        _values_and_gradients,
        samples=ops.stop_gradient(pooled),
        in_x=in_x,
        kernel=kernel,
        unbiased=unbiased,
    )

    counts = x_counts + y_counts
    use_blocks = uses_blocks(n, m, num_classes, form)

    def in_matrix():
        values, gradients = evaluate(Matrix(classes, num_blocks), x_counts, y_counts, keeps_matrix(n + m, form))
        return values, gradients[0]

    def in_blocks(size):
        in_slot, slot_of = deal_out(classes, counts, size)

        def some(rows):
            x, y = ops.take(x_counts, rows), ops.take(y_counts, rows)
            return evaluate(Blocks(ops.take(in_slot, rows, axis=0), x + y), x, y, keeps_matrix(size))

        values, gradients = in_chunks(some, num_blocks, blocks_at_once(num_blocks, size), axis=0)
        return values, ops.take(ops.reshape(gradients, (-1, pooled.shape[1])), slot_of, axis=0)

    def in_blocks_if_they_fit(*sizes):
        if use_blocks is False or not sizes:
            return in_matrix()
        size, *larger = sizes
        fit = ops.all(counts <= size) & use_blocks
        return ops.cond(fit, lambda: in_blocks(size), lambda: in_blocks_if_they_fit(*larger))

    values, gradients = in_blocks_if_they_fit(*block_sizes)
    values, gradients = ops.stop_gradient(values), ops.stop_gradient(gradients)
    gradients = ops.where(classes[:, None] >= 0, gradients, 0.0)
    # Adds 0, which has the gradient.
    differential = ops.sum(gradients * (pooled - ops.stop_gradient(pooled)), axis=1)
    values = values + ops.sum(ops.where(member_of(classes, num_blocks), differential[:, None], 0.0), axis=0)
    return ops.where(present, ops.take(values, ops.maximum(number, 0)), 0.0)


def _counts(classes, in_x, num_classes):
    """Number of samples of each class in x and in y."""
    member = member_of(classes, num_classes)
    return [ops.sum(ops.cast(member & side[:, None], "int32"), axis=0) for side in (in_x, ~in_x)]


def _values_and_gradients(layout, x_counts, y_counts, keep, samples, in_x, kernel, unbiased):
    """MMD² of each class, `(num_classes,)`, and the gradient of that of its class in each sample of the grid.

    `keep` says whether the matrix of distances is kept, or worked out anew whenever it is needed, some rows at a time.
    """
    takes_part = layout.classes >= 0
    x_counts, y_counts = (ops.maximum(ops.cast(counts, "float32"), 1.0) for counts in (x_counts, y_counts))
    in_x = layout.lay_out(in_x)
    z, scale = _standardize(layout, ops.where(takes_part[..., None], layout.lay_out(samples), 0.0), x_counts + y_counts)
    weights = ops.where(in_x, layout.of_class(1.0 / x_counts), -layout.of_class(1.0 / y_counts))
    weights = ops.where(takes_part, weights, 0.0)[:, :, None]

    weighted = weights * z  # these once, rather than anew for each chunk of rows
    norms = squared_norms(z)
    others = ops.where(takes_part, layout.classes, -2)
    if unbiased:  # of n² pairs within x, n (n - 1) count; the diagonal adds nothing to sums over k - 1
        of_n = [layout.of_class(count / ops.maximum(count - 1.0, 1.0)) for count in (x_counts, y_counts)]
        own_side = ops.where(in_x, *of_n)

    def distances_from(rows, row_norms, classes):
        """Squared distances to all samples of their row; infinite between classes."""
        distances = squared_distances(rows, z, row_norms, norms)
        return ops.where(classes[:, :, None] == others[:, None, :], distances, float("inf"))

    def sums(distances, z_rows, in_x_rows, bandwidth):
        """Σ_j w_j (k_ij - 1), and Σ_j w_j k'_ij (z_i - z_j)."""
        excess, slope = kernel.excess_and_slope(distances, bandwidth[:, :, None])
        slope = ops.where(distances == 0.0, 0.0, slope)
        if layout.has_strangers:
            excess = ops.where(distances < float("inf"), excess, 0.0)
        if unbiased:
            factor = ops.where(in_x_rows[:, :, None] == in_x[:, None, :], own_side[:, None, :], 1.0)
            excess, slope = factor * excess, factor * slope
        # Products of matrices, since compilers for CPUs do not vectorize a sum over what takes many steps to compute.
        gradient = z_rows * ops.matmul(slope, weights) - ops.matmul(slope, weighted)
        return ops.matmul(excess, weights), gradient

    def evaluate(over_pairs, median):
        if kernel.bandwidth == "median":
            bandwidth = median(over_pairs)
        else:
            bandwidth = layout.of_class(kernel.bandwidth / scale**2)
        witness, gradient = over_pairs(sums, z, in_x, ops.maximum(bandwidth, 1e-12))
        values = layout.sum((weights * witness)[:, :, 0])
        gradient = gradient * (4.0 * weights / layout.of_class(scale)[:, :, None])
        return values, gradient

    counts = x_counts + y_counts

    def median_within(narrowing):
        return lambda over_pairs: _median(over_pairs, layout, counts, z.shape[-1], **narrowing)

    def with_matrix():
        distances = distances_from(z, norms, layout.classes)
        sort = keras.backend.backend() == "torch" and not layout.has_strangers  # where each operation is a call
        median = (lambda _: _median_by_sorting(distances, counts)) if sort else median_within(_HALVES)
        return evaluate(lambda function, *values: function(distances, *values), median)

    def without():
        def over_pairs(function, *values):
            def of_rows(rows):
                def of(value):  # with one slot for all, it is the same in every row
                    return value if value.shape[1] == 1 else ops.take(value, rows, axis=1)

                distances = distances_from(of(z), of(norms), of(layout.classes))
                return function(distances, *(of(value) for value in values))

            width = ops.shape(z)[1]
            return in_chunks(of_rows, width, rows_at_once(width), axis=1)

        return evaluate(over_pairs, median_within(_SIXTEENTHS))

    return with_matrix() if keep else without()


def _standardize(layout, samples, counts):
    """Each class with 0 amidst its samples and its largest number at ±1, and the factors, `(num_classes,)`, that it took.

    Its mean would do, but for a sample so far away that all others lie far from the mean, on one side of it. So they
    are weighted by how near to the mean they are, which leaves out what is several times as far as the nearest.
    """

    def around(centre):
        centred = samples - layout.of_class(centre)
        scale = layout.max(ops.max(ops.abs(centred), axis=2))
        scale = ops.where(scale == 0.0, 1.0, scale)
        factor = ops.where(layout.classes >= 0, 1.0 / layout.of_class(scale), 0.0)
        return centred * factor[:, :, None], scale

    standardized, _ = around(layout.sum_of_samples(samples) / counts[:, None])
    norms = squared_norms(standardized) + 1e-12
    nearness = layout.of_class(layout.min(norms)) / norms
    weights = ops.where(layout.classes >= 0, nearness**4, 0.0)
    weights = (weights / layout.of_class(ops.maximum(layout.sum(weights), 1.0)))[:, :, None]  # 1 is that of the nearest
    return around(layout.sum_of_samples(weights * samples))


def _median_by_sorting(distances, counts):
    """What `_median` gives, of blocks: in a handful of operations instead of some hundred.

    Args:
        distances: Of shape `(classes, width, width)`; infinite where there is no pair.
        counts: Number of samples of each class, `(classes,)`.
    """
    ordered = ops.sort(ops.reshape(distances, (distances.shape[0], -1)), axis=1)
    counts = ops.cast(counts, "int32")
    num_pairs = counts * (counts - 1) // 2

    def nth(n):  # behind the diagonal's zeros, and each pair stands there twice
        index = counts + 2 * ops.maximum(n, 1) - 2
        return ops.take_along_axis(ordered, ops.minimum(index, ordered.shape[1] - 1)[:, None], axis=1)

    median = (nth((num_pairs + 1) // 2) + nth(num_pairs // 2 + 1)) / 2.0
    return ops.where(num_pairs[:, None] > 0, median, 1.0)


def _median(over_pairs, layout, counts, num_features, parts, times):
    """Median squared distance over all distinct pairs of each class, at the slots of its samples.

    Narrows an interval, counting the pairs that lie below bounds within it: comparisons only, where sorting n² distances
    takes many times as long. The largest distance below the last bound is the lower median.
    """
    num_samples = layout.of_class(counts)
    num_pairs = num_samples * (num_samples - 1.0) / 2.0

    def with_diagonal(pairs):  # each pair stands on either side of it
        return 2.0 * pairs + num_samples

    rank = with_diagonal(ops.ceil(num_pairs / 2.0))

    def num_within(distances, *bounds):
        return [ops.sum(ops.cast(distances <= bound[:, :, None], "float32"), axis=2) for bound in bounds]

    def narrow(_, interval):
        low, ratio = interval
        ratio = ops.sqrt(ratio) if parts == 2 else ratio ** (1.0 / parts)
        bounds = [low * ratio**i for i in range(1, parts)]
        for bound, number in zip(bounds, over_pairs(num_within, *bounds), strict=True):
            low = ops.where(layout.total(number) < rank, bound, low)
        return low, ratio

    def around(distances, bound):
        within = distances <= bound[:, :, None]
        largest = ops.max(ops.where(within, distances, 0.0), axis=2)
        next_larger = ops.min(ops.where(within, float("inf"), distances), axis=2)
        return largest, next_larger, *num_within(distances, bound)

    largest_possible = 4.05 * num_features  # standardized features are in [-1, 1]
    low = ops.full_like(num_samples, largest_possible * _LEAST_SHARE)
    low, ratio = ops.fori_loop(0, times, narrow, (low, ops.convert_to_tensor(1.0 / _LEAST_SHARE, "float32")))
    lower, next_larger, number = over_pairs(around, low * ratio)
    lower = layout.of_class(layout.max(lower))
    both = layout.total(number) >= with_diagonal(ops.floor(num_pairs / 2.0) + 1.0)
    upper = ops.where(both, lower, layout.of_class(layout.min(next_larger)))
    return ops.where(num_pairs > 0, (lower + upper) / 2.0, 1.0)


def root(value):
    """Square root whose value and gradient are 0 at and below 0. NaN stays NaN."""
    # Not by `logical_not(value <= 0)`, which TensorFlow's graph optimizer takes for `value > 0`: that loses the NaN.
    none = value <= 0.0
    return ops.where(none, 0.0, ops.sqrt(ops.where(none, 1.0, value)))


def flatten_features(x, y):
    """Both samples as float32 tensors of shape `(samples, features)`."""
    x, y = (_float32(features) for features in (x, y))
    x, y = (
        ops.reshape(f, (-1, _product(f.shape[1:]))) if len(f.shape) != 2 else f  # static: XLA needs the size
        for f in (x, y)
    )
    if x.shape[1] != y.shape[1]:
        raise ValueError(
            "Both samples should have the same number of features. "
            f"Received: {x.shape[1]} and {y.shape[1]} numbers a sample"
        )
    if x.shape[1] == 0:
        raise ValueError("Samples should have at least one feature. Received: 0 numbers a sample")
    return x, y


def _float32(features):
    if getattr(features, "ragged_rank", 0):
        raise ValueError("Features should be as many for each sample. Received: a ragged tensor")
    features = ops.convert_to_tensor(features, sparse=False)
    dtype = keras.backend.standardize_dtype(features.dtype)
    if "float" not in dtype and "int" not in dtype and dtype != "bool":
        raise ValueError(f"Features should be real numbers. Received: dtype {dtype}")
    if len(features.shape) == 0:
        raise ValueError("Features should be of shape (samples, ...). Received a scalar.")
    return ops.cast(features, "float32")


def _product(sizes):
    product = 1
    for size in sizes:
        if size is None:
            raise ValueError(f"Every axis of the features but the first should have a fixed size. Received: {sizes}")
        product *= size
    return product


def squared_norms(samples):
    return ops.sum(ops.square(samples), axis=-1)


def squared_distances(rows, columns, row_norms, column_norms):
    """Matrices of ‖x_i - y_j‖² of centred samples, `(..., n, features)` and `(..., m, features)`, to `(..., n, m)`.

    Distances that are lost in rounding are exactly 0.
    """
    norms = row_norms[..., :, None] + column_norms[..., None, :]
    distances = norms - 2.0 * ops.matmul(rows, ops.swapaxes(columns, -1, -2))
    return ops.where(distances <= _COINCIDENT * norms, 0.0, distances)
