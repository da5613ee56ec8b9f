"""Operations of Keras that cost more than is asked of them here: on PyTorch, where each runs by itself. There a number
becomes a tensor first, which a GPU is sent and waited for, and indices are searched for negative ones; that search is a
dozen operations to trace on TensorFlow. And `matmul`, which Keras leaves to the precision that a backend thinks enough
for layers.
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
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return tf.gather(values, indices)
    return values[indices] if backend == "torch" else ops.take(values, indices, axis=0)


def at_least(values, bound):
    """`ops.maximum(values, bound)`, of a number."""
    return values.clamp(min=bound) if keras.backend.backend() == "torch" else ops.maximum(values, bound)


def pick(values, indices):
    """One of each row: from `(rows, width, ...)`, at indices `(rows,)` that are there, to `(rows, ...)`."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return tf.gather(values, indices, batch_dims=1)
    if backend == "torch":
        import torch

        return values[torch.arange(len(values), device=values.device), indices]
    indices = ops.reshape(indices, (-1,) + (1,) * (len(values.shape) - 1))
    return ops.take_along_axis(values, indices, axis=1)[:, 0]


def matmul(x, y):
    """`x @ y` of float32 tensors, in float32.

    On a GPU JAX and TensorFlow round factors to TensorFloat-32, which has 10 bits of mantissa, on a TPU to bfloat16:
    enough for a layer, but a distance is what is left of a difference. PyTorch does so where its user asks for it.
    """
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return jax.numpy.matmul(x, y, precision="highest")
    return _matmul_of_parts(x, y) if backend == "tensorflow" and _rounds_to_tf32() else x @ y


def _rounds_to_tf32():
    import tensorflow as tf

    return tf.config.experimental.tensor_float_32_execution_enabled() and bool(tf.config.list_logical_devices("GPU"))


def _matmul_of_parts(x, y):
    """On TensorFlow, whose products take no precision of their own: out of two parts of each number, both of which
    TensorFloat-32 holds, or all but their last bit."""
    (x, x_rest), (y, y_rest) = _parts(x), _parts(y)
    return x @ y + (x @ y_rest + x_rest @ y + x_rest @ y_rest)


def _parts(x):
    """`x` to the nearest number with 10 bits of mantissa, and the rest."""
    import tensorflow as tf

    rounded = tf.bitcast(tf.bitwise.bitwise_and(tf.bitcast(x, "int32") + 0x1000, -0x2000), "float32")
    return rounded, x - rounded
