"""A random choice of samples out of data of any kind that `fit` takes."""

import keras
import numpy as np
from keras import ops, tree


def choose_samples(data, name, num_samples, rng):
    """Some samples of the data, in random order.

    Each sample draws a number, and those with the least are kept, so that the data is read once and never held whole.

    Args:
        data: Arrays `x`, `(x, y)` or `(x, y, sample_weight)`, or a finite, batched `tf.data.Dataset`,
            `keras.utils.PyDataset`, PyTorch `DataLoader` or generator of these.
        name: Of the data, for errors.
        num_samples: How many are taken; as many as there are, if there are fewer.
        rng: NumPy `Generator`.

    Returns:
        Nested NumPy arrays: `x` and, in a list, `y`, which is empty if there is none.

    Raises:
        ValueError: if there is no sample, or no end of them, or data is not batched.
        TypeError: if it is neither arrays nor a dataset.
    """
    structure, kept, kept_keys = None, None, None
    for batch in _batches(data, name):
        x, y, _ = keras.utils.unpack_x_y_sample_weight(tuple(batch) if isinstance(batch, list) else batch)
        structure = (x, [] if y is None else [y])
        values = [_as_numpy(value) for value in tree.flatten(structure)]
        if values[0].ndim == 0 or len({len(value) for value in values if value.ndim}) != 1:
            shapes = [value.shape for value in values]
            raise ValueError(f"`{name}` should be batched, with as many targets as inputs. Received shapes: {shapes}")
        keys = rng.random(len(values[0]))
        if kept is not None and len(kept_keys) == num_samples:
            lower = keys < kept_keys[-1]
            keys, values = keys[lower], [value[lower] for value in values]
        order = np.argsort(keys)[:num_samples]
        keys, values = keys[order], [value[order] for value in values]
        if kept is not None:
            keys = np.concatenate([kept_keys, keys])
            order = np.argsort(keys)[:num_samples]
            keys = keys[order]
            values = [np.concatenate(pair)[order] for pair in zip(kept, values, strict=True)]
        kept, kept_keys = values, keys
    if kept is None or not len(kept_keys):
        raise ValueError(f"`{name}` should hold at least one sample. Received none")
    return tree.pack_sequence_as(structure, kept)


def _batches(data, name):
    infinite = ValueError(
        f"`{name}` is read to its end, to choose samples of it, and should be finite. Received an infinite stream: "
        "pass a part of it, such as dataset.take(100)"
    )
    if isinstance(data, keras.utils.PyDataset):
        if data.num_batches is None:
            raise infinite
        return (data[index] for index in range(data.num_batches))
    if isinstance(data, (tuple, list, dict)) or hasattr(data, "shape"):
        return [tuple(data) if isinstance(data, list) else data]
    if hasattr(data, "cardinality") and int(data.cardinality()) == -1:
        raise infinite
    if not hasattr(data, "__iter__"):
        raise TypeError(f"`{name}` should be arrays or a dataset. Received: {data!r} of type {type(data).__name__}")
    return data


def _as_numpy(value):
    return ops.convert_to_numpy(value) if keras.ops.is_tensor(value) else np.asarray(value)


def num_samples_of(x):
    """The number of samples in nested arrays."""
    return len(tree.flatten(x)[0])
