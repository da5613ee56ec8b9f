"""Operations of Keras that cost more than is asked of them here: on PyTorch, where each runs by itself.

There a number becomes a tensor first, which a GPU is sent and waited for, and indices are searched for negative ones.
"""

import keras
from keras import ops


def where(condition, x, y):
    """`ops.where`, of tensors and numbers."""
    if keras.backend.backend() == "torch":
        import torch

        return torch.where(condition, x, y)
    return ops.where(condition, x, y)


def take(values, indices):
    """`ops.take(values, indices, axis=0)`, of indices that are there."""
    return values[indices] if keras.backend.backend() == "torch" else ops.take(values, indices, axis=0)


def at_least(values, bound):
    """`ops.maximum(values, bound)`, of a number."""
    return values.clamp(min=bound) if keras.backend.backend() == "torch" else ops.maximum(values, bound)


def pick(values, indices):
    """One of each row: from `(rows, width, ...)`, at indices `(rows,)` that are there, to `(rows, ...)`."""
    if keras.backend.backend() == "torch":
        import torch

        return values[torch.arange(len(values), device=values.device), indices]
    indices = ops.reshape(indices, (-1,) + (1,) * (len(values.shape) - 1))
    return ops.take_along_axis(values, indices, axis=1)[:, 0]
