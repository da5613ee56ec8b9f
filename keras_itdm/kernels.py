"""Kernels for the maximum mean discrepancy.

A kernel is asked for `k - 1` rather than `k`. MMD is a sum of kernel values whose weights add up to zero, so the ones
cancel; left out, they take their rounding error with them, and a small discrepancy keeps its digits in float32.
"""

from collections.abc import Sequence
from typing import Any, Literal

import keras
from keras import ops

from keras_itdm._checks import is_positive_number
from keras_itdm._typing import Array


class Kernel:
    """Base class: a kernel of the squared distance between two samples over a bandwidth, `d² / σ`.

    A subclass overrides `excess_and_slope`, and `get_config` if it takes more arguments. Register it with
    `keras.saving.register_keras_serializable` to have it saved with a model.

    Args:
        bandwidth: `"median"`, to take as `σ` the median squared distance over all distinct pairs of the samples
            (section 3.3, after Gretton et al., 2012), or a positive number, `σ` itself, in squared feature units.

    Raises:
        ValueError: if the bandwidth is not a positive number, or an unknown name.

    Example:

    >>> @keras.saving.register_keras_serializable(package="example")
    ... class InverseMultiquadric(Kernel):
    ...     def excess_and_slope(self, squared_distances: Array, bandwidth: Array) -> tuple[Array, Array]:
    ...         k = bandwidth / (bandwidth + squared_distances)
    ...         return -1.0 / (1.0 + bandwidth / squared_distances), -k * k / bandwidth
    >>> float(InverseMultiquadric()(3.0, bandwidth=1.0))
    0.25
    """

    def __init__(self, bandwidth: float | Literal["median"] = "median"):
        if not is_positive_number(bandwidth) and not (isinstance(bandwidth, str) and bandwidth == "median"):
            raise ValueError(f"`bandwidth` should be 'median' or a positive number. Received: {bandwidth!r}")
        self.bandwidth = bandwidth if bandwidth == "median" else _plain(bandwidth)

    def __call__(self, squared_distances: Array, bandwidth: Array) -> Array:
        """Kernel values, of the shape of `squared_distances`."""
        return 1.0 + self.excess_and_slope(squared_distances, bandwidth)[0]

    def excess_and_slope(self, squared_distances: Array, bandwidth: Array) -> tuple[Array, Array]:
        """`k - 1`, and the derivative of `k` by the squared distance, both of the shape of `squared_distances`.

        Args:
            squared_distances: At least 0. Infinite where samples are of different classes: there `k - 1` should be
                finite, and the derivative 0.
            bandwidth: σ, a number or a tensor that broadcasts.
        """
        raise NotImplementedError(f"{type(self).__name__} should override `excess_and_slope`.")

    def get_config(self) -> dict[str, Any]:
        return {"bandwidth": self.bandwidth}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


@keras.saving.register_keras_serializable(package="keras_itdm")
class GaussianMixture(Kernel):
    """Mean of Gaussian kernels whose bandwidths are multiples of one another.

    `k(x, y) = mean over c of exp(-‖x - y‖² / (c · σ))`, for `c` in `multipliers` (section 3.3 of Li, Pan, Li and Zhu,
    2020). With the median as bandwidth the kernel adapts to the scale of the features as they change in training.

    Args:
        multipliers: Positive numbers `c`, one a kernel. The default is the paper's. Multipliers that double from one to
            the next cost one exponential together.
        bandwidth: σ, as in `Kernel`: `"median"` or a positive number.

    Raises:
        ValueError: if a multiplier or the bandwidth is not a positive number, or `bandwidth` is an unknown name.

    Example:

    >>> kernel = GaussianMixture(multipliers=(1, 2), bandwidth=1.0)
    >>> round(float(kernel(1.0, bandwidth=1.0)), 4)  # (exp(-1) + exp(-1/2)) / 2
    0.4872
    """

    def __init__(
        self, multipliers: Sequence[float] = (1, 2, 4, 8, 16), bandwidth: float | Literal["median"] = "median"
    ):
        numbers = tuple(multipliers) if hasattr(multipliers, "__iter__") else ()
        if not numbers or not all(is_positive_number(c) for c in numbers):
            raise ValueError(f"`multipliers` should be positive numbers, at least one. Received: {multipliers!r}")
        super().__init__(bandwidth)
        self.multipliers = tuple(_plain(c) for c in numbers)

    def excess_and_slope(self, squared_distances: Array, bandwidth: Array) -> tuple[Array, Array]:
        """`k - 1`, in [-1, 0], accurate where `k` is near 1, and the derivative of `k` by the squared distance.

        Both are of the shape of `squared_distances`.
        """
        total: Array = None
        slope: Array = None
        excess: Array = None
        previous = None
        for multiplier in sorted(self.multipliers, reverse=True):
            if previous == 2 * multiplier:  # k(c) = k(2c)², and so k(c) - 1 = e · (e + 2) for e = k(2c) - 1
                excess = excess * (excess + 2.0)
            else:
                excess = ops.expm1(squared_distances / (-multiplier * bandwidth))
            part = (1.0 + excess) / multiplier
            total, slope = (excess, part) if previous is None else (total + excess, slope + part)
            previous = multiplier
        return total / len(self.multipliers), slope / (-len(self.multipliers) * bandwidth)

    def get_config(self) -> dict[str, Any]:
        return {"multipliers": list(self.multipliers), **super().get_config()}


def _plain(number):
    """Python's own number, which JSON can hold, of NumPy's."""
    return number.item() if hasattr(number, "item") else number


def check_kernel(kernel):
    """`kernel`, or the paper's for `None`.

    Raises:
        ValueError: if it is neither.
    """
    if kernel is None:
        return GaussianMixture()
    if not isinstance(kernel, Kernel):
        raise ValueError(
            f"`kernel` should be a Kernel, such as GaussianMixture(). Received: {kernel!r} of type "
            f"{type(kernel).__name__}"
        )
    return kernel
