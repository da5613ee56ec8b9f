"""The median squared distance over the distinct pairs of each class, by which kernels are scaled.

Compilers are handed a search that only counts; PyTorch, where each operation is a call, selects.
"""

import math

from keras import ops

from keras_itdm._ops import where

# σ is searched between the largest distance there can be and this share of it. The interval is narrowed to 3e-5 of σ:
# by halves of its logarithm or, where each count of pairs takes all distances anew, to one of 16 parts at a time. Its
# end follows from its beginning, rounded some ten times on the way, and is moved up by more than that: below the
# distance that is sought it would find the one before.
_LEAST_SHARE = math.exp(-32.0)
_MARGIN = 1.0 + 3e-5
HALVES = {"parts": 2, "times": 20}
SIXTEENTHS = {"parts": 16, "times": 5}


def selected_median(distances, blocks):
    """What `narrowed_median` gives, on PyTorch: in a handful of operations instead of some hundred.

    Args:
        distances: Of shape `(classes, width, width)`.
        blocks: The `Blocks` that they are of.
    """
    import torch

    row, column = torch.triu_indices(*distances.shape[1:], offset=1, device=distances.device)
    pairs = torch.where(blocks.takes_part[:, column], distances[:, row, column], float("nan"))  # taken slots come first
    if distances.is_cuda:  # where a median that is selected may not be had deterministically
        median = pairs.nanquantile(0.5, dim=1, keepdim=True, interpolation="midpoint")
    else:
        lower, upper = pairs.nanmedian(dim=1, keepdim=True).values, -(-pairs).nanmedian(dim=1, keepdim=True).values
        median = (lower + upper) / 2.0
    return torch.where(blocks.takes_part[:, 1:2], median, 1.0)


def narrowed_median(over_pairs, layout, counts, num_features, parts, times):
    """Median squared distance over all distinct pairs of each class, at the slots of its samples.

    Narrows an interval, counting the pairs that lie below bounds within it: comparisons only, where sorting n²
    distances takes many times as long. The largest distance below the last bound is the lower median.
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
            low = where(layout.total(number) < rank, bound, low)
        return low, ratio

    def around(distances, bound):
        within = distances <= bound[:, :, None]
        largest = ops.max(where(within, distances, 0.0), axis=2)
        next_larger = ops.min(where(within, float("inf"), distances), axis=2)
        return largest, next_larger, *num_within(distances, bound)

    largest_possible = 4.05 * num_features  # standardized features are in [-1, 1]
    low = ops.full_like(num_samples, largest_possible * _LEAST_SHARE)
    low, ratio = ops.fori_loop(0, times, narrow, (low, ops.convert_to_tensor(1.0 / _LEAST_SHARE, "float32")))
    lower, next_larger, number = over_pairs(around, low * ratio * _MARGIN)
    lower = layout.of_class(layout.max(lower))
    both = layout.total(number) >= with_diagonal(ops.floor(num_pairs / 2.0) + 1.0)
    upper = where(both, lower, layout.of_class(layout.min(next_larger)))
    return where(num_pairs > 0, (lower + upper) / 2.0, 1.0)
