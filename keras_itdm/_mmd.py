"""The maximum mean discrepancy between two samples, as a whole and class by class.

    MMD²(X, Y) = 1/n² Σ k(x, x') + 1/m² Σ k(y, y') - 2/(nm) Σ k(x, y)         (section 3.1; the V-statistic)

which is Σ w_i w_j k(z_i, z_j) over the pooled samples z, with weights 1/n for those of X and -1/m for those of Y, and
has the gradient 4 w_i Σ_j w_j k'(d_ij) (z_i - z_j) in z_i, for k' the derivative by the squared distance d. Value and
gradient are computed together, in one pass over the pairs of each class, so that no matrix is kept for the way back and
none is differentiated: compilers are handed a value whose gradient is known. Derivatives of the gradient are 0, then.

Three things keep it accurate in float32, wherever the features lie and whatever their scale: each class is centred
and brought to unit size first, since ‖x‖² + ‖y‖² - 2x·y cancels far from the origin; sums are taken over k - 1 instead
of k; and the root is guarded at 0, where its slope is infinite.
"""

import functools

import keras
from keras import ops

from keras_itdm._checks import check_flags
from keras_itdm._layouts import Blocks, Matrix, Plan, deal_out, in_chunks, member_of, rows_at_once
from keras_itdm._median import HALVES, SIXTEENTHS, narrowed_median, selected_median
from keras_itdm._ops import at_least, matmul, take, where
from keras_itdm._typing import Array
from keras_itdm.kernels import Kernel, check_kernel

# Features of a class that lie farther apart have no MMD: one over that is no longer a normal number.
_LARGEST = 1e37
# Squared distances that are a smaller share than this of ‖x‖² + ‖y‖² are rounding error: the samples coincide.
_COINCIDENT = 1e-6


def mmd(x: Array, y: Array, kernel: Kernel | None = None, squared: bool = False) -> Array:
    """Maximum mean discrepancy between two samples: how far apart their distributions lie, seen through a kernel.

    The biased estimate of Gretton et al. (2012), diagonal included; about `√(1/n + 1/m)` for samples of one
    distribution, 0 for equal ones.

    Args:
        x: Samples, of shape `(n, ...)`. Axes beyond the second are flattened.
        y: Samples, of shape `(m, ...)`, as many numbers each as in `x`.
        kernel: A `Kernel`. Defaults to the paper's five kernels around the median squared distance.
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
        kernel: A `Kernel`; defaults to the paper's.
        unbiased: Whether to return the U-statistic, which leaves out the diagonal and can be negative.
        form: How to go about it, one of `_layouts.FORMS`.

    Returns:
        Float32 tensor of shape `(num_classes,)`. 0 for a class that `x` or `y` lacks, and, if `unbiased`, for one of
        which either has fewer than two samples.
    """
    n, m = ops.shape(x)[0], ops.shape(y)[0]
    kernel = check_kernel(kernel)
    if 0 in (x.shape[0], y.shape[0]):
        return ops.zeros((num_classes,), "float32")
    pooled = ops.concatenate([x, y], axis=0)
    classes = ops.concatenate([ops.cast(x_classes, "int32"), ops.cast(y_classes, "int32")], axis=0)
    plan = Plan(n, m, num_classes, form)
    num_blocks = plan.num_blocks

    x_counts, y_counts = _counts(classes, n, num_classes)
    present = ops.minimum(x_counts, y_counts) > (1 if unbiased else 0)
    index = at_least(classes, 0)
    takes_part = (classes >= 0) & take(present, index)
    if isinstance(num_blocks, int) and num_blocks == num_classes:
        number = None
        classes = where(takes_part, classes, -1)
        x_counts, y_counts = (where(present, counts, 0) for counts in (x_counts, y_counts))
    else:  # classes that both samples hold are numbered anew: there are no more than either has samples
        number = ops.cumsum(ops.cast(present, "int32")) - 1
        classes = where(takes_part, take(number, index), -1)
        x_counts, y_counts = _counts(classes, n, num_blocks)

    evaluate = functools.partial(
        _values_and_gradients,
        samples=ops.stop_gradient(pooled),
        n=n,
        kernel=kernel,
        unbiased=unbiased,
    )

    counts = x_counts + y_counts

    def in_matrix():
        values, gradients = evaluate(Matrix(classes, num_blocks), x_counts, y_counts, plan.keeps(plan.width))
        return values, gradients[0]

    def in_blocks(size):
        in_slot, slot_of = deal_out(classes, counts, size)

        def some(rows):
            some_of = (in_slot, x_counts, y_counts)
            slots, x, y = some_of if rows is None else (take(values, rows) for values in some_of)
            return evaluate(Blocks(slots, x + y), x, y, plan.keeps(size))

        values, gradients = in_chunks(some, num_blocks, plan.blocks_at_once(size), axis=0)
        return values, take(ops.reshape(gradients, (-1, pooled.shape[1])), slot_of)

    def in_blocks_if_they_fit(*sizes):
        if not sizes:
            return in_matrix()
        size, *larger = sizes
        fit = ops.max(counts) <= size
        fit = fit if plan.blocks_pay is True else fit & plan.blocks_pay
        return ops.cond(fit, lambda: in_blocks(size), lambda: in_blocks_if_they_fit(*larger))

    values, gradients = in_blocks_if_they_fit(*plan.block_sizes)
    values, gradients = ops.stop_gradient(values), ops.stop_gradient(gradients)
    gradients = where(takes_part[:, None], gradients, 0.0)
    # Adds 0, which has the gradient.
    differential = ops.sum(gradients * (pooled - ops.stop_gradient(pooled)), axis=1)
    values = values + ops.sum(where(member_of(classes, num_blocks), differential[:, None], 0.0), axis=0)
    return where(present, values if number is None else take(values, at_least(number, 0)), 0.0)


def _counts(classes, n, num_classes):
    """Number of samples of each class among the first n and among the others."""
    member = ops.cast(member_of(classes, num_classes), "int32")
    return ops.sum(member[:n], axis=0), ops.sum(member[n:], axis=0)


def _values_and_gradients(layout, x_counts, y_counts, keep, samples, n, kernel, unbiased):
    """MMD² of each class, `(num_classes,)`, and the gradient of that of its class in each sample of the grid.

    `keep` says whether the matrix of distances is kept, or worked out anew whenever it is needed, some rows at a time.
    """
    x_counts, y_counts = (at_least(ops.cast(counts, "float32"), 1.0) for counts in (x_counts, y_counts))
    in_x = layout.samples < n
    z, scale = _standardize(layout, layout.lay_out(samples))
    weights = where(in_x, layout.of_class(1.0 / x_counts), layout.of_class(-1.0 / y_counts))
    weights = where(layout.takes_part, weights, 0.0)[:, :, None]

    # These once, rather than anew for each chunk of rows.
    weights_and_weighted = ops.concatenate([weights, weights * z], axis=2)
    norms = squared_norms(z)
    if unbiased:  # of n² pairs within x, n (n - 1) count; the diagonal adds nothing to sums over k - 1
        of_n = [layout.of_class(count / at_least(count - 1.0, 1.0)) for count in (x_counts, y_counts)]
        own_side = where(in_x, *of_n)

    by_selection = keep and keras.backend.backend() == "torch" and not layout.has_strangers

    def distances_from(rows, row_norms, classes):
        """Squared distances to all samples of their row; infinite where there is no pair, if that may matter."""
        distances = squared_distances(rows, z, row_norms, norms)
        return distances if by_selection else layout.mask(distances, classes)

    def sums(distances, z_rows, in_x_rows, bandwidth):
        """Σ_j w_j (k_ij - 1), and Σ_j w_j k'_ij (z_i - z_j)."""
        excess, slope = kernel.excess_and_slope(distances, bandwidth[:, :, None])
        slope = where(distances == 0.0, 0.0, slope)
        if layout.has_strangers:
            excess = where(distances < float("inf"), excess, 0.0)
        if unbiased:
            factor = where(in_x_rows[:, :, None] == in_x[:, None, :], own_side[:, None, :], 1.0)
            excess, slope = factor * excess, factor * slope
        # Products of matrices, since compilers for CPUs do not vectorize a sum over what takes many steps to compute.
        sums = matmul(slope, weights_and_weighted)
        return matmul(excess, weights), z_rows * sums[:, :, :1] - sums[:, :, 1:]

    def evaluate(over_pairs, median):
        if kernel.bandwidth == "median":
            bandwidth = median(over_pairs)
        else:
            bandwidth = layout.of_class(kernel.bandwidth / scale**2)
        witness, gradient = over_pairs(sums, z, in_x, at_least(bandwidth, 1e-12))
        values = layout.sum((weights * witness)[:, :, 0])
        gradient = gradient * (4.0 * weights / layout.of_class(scale)[:, :, None])
        return values, gradient

    def median_within(narrowing):
        return lambda over_pairs: narrowed_median(over_pairs, layout, x_counts + y_counts, z.shape[-1], **narrowing)

    def with_matrix():
        distances = distances_from(z, norms, layout.classes)
        median = (lambda _: selected_median(distances, layout)) if by_selection else median_within(HALVES)
        return evaluate(lambda function, *values: function(distances, *values), median)

    def without():
        def over_pairs(function, *values):
            def of_rows(rows):
                def of(value):  # with one slot for all, it is the same in every row
                    return value if rows is None or value.shape[1] == 1 else ops.take(value, rows, axis=1)

                distances = distances_from(of(z), of(norms), of(layout.classes))
                return function(distances, *(of(value) for value in values))

            width = ops.shape(z)[1]
            return in_chunks(of_rows, width, rows_at_once(width), axis=1)

        return evaluate(over_pairs, median_within(SIXTEENTHS))

    return with_matrix() if keep else without()


def _standardize(layout, samples):
    """Each class with 0 amidst its samples and its largest number at ±1, and the factors that it took, one a class.

    The mean would do, but for a sample so far away that all others lie far from the mean, on one side of it. So it is
    the sample that is nearest to the mean.
    """
    lengths = ops.max(abs(samples - layout.of_class(layout.somewhere_amidst(samples))), axis=2)
    centred = samples - layout.of_class(layout.sample_of_least(lengths, samples))
    scale = layout.max(ops.max(abs(centred), axis=2))
    scale = where(scale == 0.0, 1.0, where(scale < _LARGEST, scale, float("nan")))
    standardized = centred / layout.of_class(scale)[:, :, None]
    if layout.has_strangers:  # among them may be NaN
        standardized = where(layout.takes_part[:, :, None], standardized, 0.0)
    return standardized, scale


def root(value):
    """Square root whose value and gradient are 0 at and below 0. NaN stays NaN."""
    # Not by `logical_not(value <= 0)`, which TensorFlow's graph optimizer takes for `value > 0`: that loses the NaN.
    none = value <= 0.0
    return where(none, 0.0, ops.sqrt(where(none, 1.0, value)))


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
    return ops.sum(samples * samples, axis=-1)


def squared_distances(rows, columns, row_norms, column_norms):
    """Matrices of ‖x_i - y_j‖² of centred samples, `(..., n, features)` and `(..., m, features)`, to `(..., n, m)`.

    Distances that are lost in rounding are exactly 0.
    """
    norms = row_norms[..., :, None] + column_norms[..., None, :]
    distances = norms - 2.0 * matmul(rows, ops.swapaxes(columns, -1, -2))
    return where(distances <= _COINCIDENT * norms, 0.0, distances)
