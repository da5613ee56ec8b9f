"""A permutation test for whether two samples come from one distribution, by their maximum mean discrepancy.

If they do, which of the pooled samples are called x and which y is arbitrary, so MMD is as likely to be any of the
values that it takes when they are dealt out anew (Gretton et al., "A Kernel Two-Sample Test", JMLR 2012, section 8.1).

With weights w, 1/n for a sample that is dealt to x and -1/m for one that is dealt to y, MMD² is Σ w_i w_j k(z_i, z_j)
over the pooled samples z. The kernel, bandwidth included, is the same however they are dealt. So all permutations take
one product K W of matrices, with the weights of one in each column of W.

Nothing here is differentiated or compiled: it is NumPy in float64, with the same result on every backend.
"""

import typing

import numpy as np
from keras import ops

from keras_itdm._checks import check_flags, check_integer
from keras_itdm._labels import class_indices, count_classes
from keras_itdm._mmd import flatten_features
from keras_itdm._typing import Array
from keras_itdm.kernels import Kernel, check_kernel

# Shares below which a difference is rounding error: of ‖x‖² + ‖y‖², where two samples coincide, and of the statistic,
# where a permutation only exchanges samples that coincide, or x with y, and so counts as no smaller than what was
# observed.
_COINCIDENT = 1e-12
_TIED = 1e-9


class TwoSampleTest(typing.NamedTuple):
    """What `two_sample_test` returns.

    Attributes:
        statistic: MMD between the samples, or the mean over classes; MMD² if `unbiased`.
        p_value: Probability of a statistic at least as large if both samples were of one distribution.
        bandwidth: σ of the kernel, in squared feature units: a float or, by class, an array of shape `(num_classes,)`
            with NaN for classes that are not compared.
    """

    statistic: float
    p_value: float
    bandwidth: float | np.ndarray


def two_sample_test(
    x: Array,
    y: Array,
    x_labels: Array | None = None,
    y_labels: Array | None = None,
    permutations: int = 1000,
    seed: int | None = None,
    kernel: Kernel | None = None,
    unbiased: bool = False,
    num_classes: int | None = None,
) -> TwoSampleTest:
    """Tests whether two samples come from one distribution: the MMD permutation test of Gretton et al. (2012).

    With labels it tests whether, class by class, they do: samples are permuted within their class, and the statistic is
    that of `losses.ClassConditionalMMD` (Match_c, Eq. 5). Different shares of the classes then make no difference.

    Memory grows with the square of the number of samples: 0.2 GiB for 1,000 and 1,000, 10 GiB for 10,000 and 10,000.

    The p-value is (1 + number of permutations whose statistic is at least the observed one) / (1 + `permutations`), so
    that a test which rejects at p ≤ α errs with probability α at most, whatever the number of samples.

    Args:
        x: Samples, of shape `(n, ...)`. Axes beyond the second are flattened.
        y: Samples, of shape `(m, ...)`, as many numbers each as in `x`.
        x_labels: Labels of `x`: class indices of shape `(n,)` or `(n, 1)`, or one-hot of shape `(n, classes)`. A label
            that is no class index, such as -1, marks a sample that takes no part, and so does a class that `x` or `y`
            lacks.
        y_labels: The labels of `y`, in the form of `x_labels`.
        permutations: Number of permutations. The least p-value there can be is 1 / (1 + `permutations`).
        seed: Integer, to draw the same permutations again.
        kernel: A `Kernel`. Defaults to the paper's five kernels around the median squared distance of the pooled
            samples, or of those of a class.
        unbiased: Whether to take the U-statistic of MMD², which is 0 on average for one distribution and can be
            negative, instead of the biased MMD, which grows as samples get fewer. A class then needs two samples in `x`
            and in `y`.
        num_classes: Number of classes, by which the sum over them is divided. Defaults to the width of one-hot labels,
            or the largest label plus one. The p-value does not depend on it.

    Returns:
        A `TwoSampleTest`: statistic, p-value and bandwidth. If the samples are not all finite, statistic and p-value
        are NaN.

    Raises:
        ValueError: if `kernel` is not a kernel, the samples do not have the same number of features, labels come for
            one of them alone or not one a sample, there is nothing to compare, or `permutations` is not a positive
            integer.

    Example:

    >>> x, y = np.random.default_rng(0).normal(size=(2, 100, 3))
    >>> two_sample_test(x, y, seed=0).p_value > 0.05
    True
    >>> two_sample_test(x, y + 0.5, seed=0).p_value < 0.01
    True
    """
    check_integer("permutations", permutations, least=1)
    check_flags(unbiased=unbiased)
    by_class = x_labels is not None or y_labels is not None
    if by_class and (x_labels is None or y_labels is None):
        missing = "x_labels" if x_labels is None else "y_labels"
        raise ValueError(f"Give labels for both samples or for neither. Received: {missing}=None")
    flatten_features(x, y)  # objects to what is no features
    x, y = (_in_float64(samples) for samples in (x, y))
    if by_class:
        num_classes = num_classes or count_classes(x_labels, y_labels)
        x_classes = _classes(x_labels, num_classes, len(x))
        y_classes = _classes(y_labels, num_classes, len(y))
    else:
        num_classes = 1
        x_classes, y_classes = np.zeros(len(x), "int32"), np.zeros(len(y), "int32")
    statistics, bandwidth = permute(
        x, y, x_classes, y_classes, num_classes, permutations, np.random.default_rng(seed), kernel, unbiased
    )
    mean = statistics.mean(axis=0)
    return TwoSampleTest(float(mean[0]), float(p_value(mean)), bandwidth if by_class else float(bandwidth[0]))


def permute(x, y, x_classes, y_classes, num_classes, permutations, rng, kernel=None, unbiased=False):
    """The statistic of each class, as observed and when the samples of each class are permuted.

    Args:
        x: NumPy array of shape `(n, features)`.
        y: NumPy array of shape `(m, features)`.
        x_classes: NumPy array of class indices, `(n,)`. Samples whose class is outside `[0, num_classes)` take no part.
        y_classes: The same for `y`, `(m,)`.
        rng: NumPy `Generator`.

    Returns:
        NumPy arrays: statistics, `(num_classes, 1 + permutations)`, the observed ones first; and σ, `(num_classes,)`.
        For a class that is not compared, since x or y has too few samples of it, all statistics are 0 and σ is NaN; for
        one whose samples are not all finite all are NaN.

    Raises:
        ValueError: if `kernel` is not a kernel, or no class is compared.
    """
    kernel = check_kernel(kernel)
    statistics = np.zeros((num_classes, 1 + permutations))
    bandwidth = np.full(num_classes, np.nan)
    least = 2 if unbiased else 1
    compared = False
    for k in range(num_classes):
        of_x, of_y = x[x_classes == k], y[y_classes == k]
        n, m = len(of_x), len(of_y)
        if min(n, m) < least:
            continue
        compared = True
        if not (np.isfinite(of_x).all() and np.isfinite(of_y).all()):
            statistics[k] = np.nan
            continue
        distances = _squared_distances(np.concatenate([of_x, of_y]).astype("float64"))
        if kernel.bandwidth == "median":
            bandwidth[k] = np.median(distances[np.triu_indices(n + m, k=1)])
        else:
            bandwidth[k] = kernel.bandwidth
        # Where most samples coincide, the limit of σ → 0.
        sigma = bandwidth[k] or _COINCIDENT * distances.max() or 1.0
        unit = distances.max() or 1.0  # within what float32 holds
        in_units = ops.convert_to_tensor((distances / unit).astype("float32"))
        # k - 1, since the ones cancel and take their rounding error with them.
        excess = ops.convert_to_numpy(kernel.excess_and_slope(in_units, float(sigma / unit))[0]).astype("float64")
        weights = np.tile(np.repeat([1.0 / n, -1.0 / m], [n, m]), (1 + permutations, 1))
        weights[1:] = rng.permuted(weights[1:], axis=1)
        squared_mmd = np.einsum("ij,ij->i", weights @ excess, weights)
        if unbiased:
            statistics[k] = _unbiased(squared_mmd, excess, weights > 0, n, m)
        else:
            statistics[k] = np.sqrt(np.maximum(squared_mmd, 0.0))
    if not compared:
        raise ValueError(
            f"There should be at least {least} of {'a class' if num_classes > 1 else 'the samples'} on either side to "
            f"compare. Received: {len(x)} and {len(y)} samples"
        )
    return statistics, bandwidth


def _in_float64(samples):
    samples = np.asarray(samples) if isinstance(samples, (list, tuple)) else ops.convert_to_numpy(samples)
    return samples.reshape(len(samples), -1).astype("float64")


def _squared_distances(samples):
    samples = samples - np.median(samples, axis=0)  # in the midst of most, wherever a few of them are
    norms = np.sum(samples**2, axis=1)
    norms = norms[:, None] + norms[None, :]
    distances = norms - 2.0 * (samples @ samples.T)
    distances[distances <= _COINCIDENT * norms] = 0.0
    return distances


def _unbiased(squared_mmd, excess, in_x, n, m):
    """The U-statistics, from the V-statistics, both `(permutations,)`; `in_x` is `(permutations, samples)`.

    Known are Σ_xx + Σ_xy, Σ_yy + Σ_xy and MMD² = Σ_xx / n² + Σ_yy / m² - 2 Σ_xy / (nm), for sums of k - 1. They give
    all three.
    """
    of_samples = excess.sum(axis=1)
    with_x = in_x @ of_samples
    with_y = of_samples.sum() - with_x
    between = (with_x / n**2 + with_y / m**2 - squared_mmd) / (1 / n + 1 / m) ** 2
    return (with_x - between) / (n * (n - 1)) + (with_y - between) / (m * (m - 1)) - 2 * between / (n * m)


def p_value(statistics):
    """(1 + number of permutations that give at least what is observed) / (1 + number of them).

    `statistics` is of shape `(..., 1 + permutations)`, the observed one first. NaN if that is not finite.
    """
    observed = statistics[..., :1]
    at_least = statistics[..., 1:] >= observed - _TIED * np.abs(observed)
    share = (1 + at_least.sum(axis=-1)) / statistics.shape[-1]
    return np.where(np.isfinite(observed[..., 0]), share, np.nan)


def _classes(labels, num_classes, num_samples):
    classes = ops.convert_to_numpy(class_indices(labels, num_classes))
    if len(classes) != num_samples:
        raise ValueError(f"There should be a label for each sample. Received: {len(classes)} for {num_samples} samples")
    return classes
