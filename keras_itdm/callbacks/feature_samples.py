"""A fixed choice of training and validation samples, and the features that a model in training gives them."""

import contextlib

import keras
import numpy as np
from keras import ops, tree

from keras_itdm._keras import hand_back
from keras_itdm.checks import check_integer
from keras_itdm.features import find_layer, read_output, run_model, the_output
from keras_itdm.model import ITDMModel


class FeatureSamples:
    """Equally many samples of training and validation data, chosen once, and their features whenever asked for.

    Args:
        train_data: Arrays `x`, `(x, y)` or `(x, y, sample_weight)`, or a finite, batched `tf.data.Dataset`,
            `keras.utils.PyDataset`, PyTorch `DataLoader` or generator of these.
        validation_data: The same.
        feature_layer: As in `ITDMModel`, whose own it is by default. A plain model needs it.
        max_samples: How many samples of either are taken at most. The smaller of the two gives as many as it has, and so
            does the other.
        label_fn: Function from `y` to the labels, where `y` has several parts.
        batch_size: In reading features.
        seed: Of the choice.
    """

    def __init__(self, train_data, validation_data, feature_layer, max_samples, label_fn, batch_size, seed):
        check_integer("max_samples", max_samples, least=2)
        check_integer("batch_size", batch_size, least=1)
        self._data = {"train_data": train_data, "validation_data": validation_data}
        self.feature_layer = feature_layer
        self._max_samples = max_samples
        self._label_fn = label_fn
        self._batch_size = batch_size
        self._seed = seed
        self._chosen = None
        self._reader = None

    def set_model(self, model):
        """Prepares for reading off `model`, a compiled one whose training begins.

        Raises:
            ValueError: if there is no such layer or none is named, or the data is empty, infinite or of labels in parts.
        """
        base_model = model.base_model if isinstance(model, ITDMModel) else model
        path = self.feature_layer or getattr(model, "feature_layer", None)
        if path is None:
            raise ValueError(
                f"Name the layer whose output is looked at: feature_layer=... Received: None, for a {type(model).__name__}"
            )
        find_layer(base_model, path)
        self._model = model
        self._reader = _FeatureReader(base_model, path)
        self._reader.compile(run_eagerly=model.run_eagerly, jit_compile=model.jit_compile)
        if self._chosen is None:
            rng = np.random.default_rng(self._seed)
            chosen = [_choose(data, name, self._max_samples, rng) for name, data in self._data.items()]
            num_samples = min(_length(x) for x, _ in chosen)
            self._chosen = [tree.map_structure(lambda values: values[:num_samples], part) for part in chosen]
            self._data = None  # not needed any more

    def release(self):
        self._model = self._reader = None

    def labels(self):
        """The labels of both, NumPy arrays, or `None` for data without."""
        return [self._labels(y[0]) if y else None for _, y in self._chosen]

    def _labels(self, y):
        if self._label_fn is not None:
            y = self._label_fn(y)
        elif isinstance(self._model, ITDMModel):
            y = self._model._labels(y)
        if tree.is_nested(y):
            raise ValueError(
                f"The targets have several parts. Say which are the labels: label_fn=... Received: {type(y)}"
            )
        return ops.convert_to_numpy(y)

    def features(self):
        """The features of both in evaluation mode, NumPy arrays of shape `(samples, ...)`; nothing else changes."""
        hand_back(self._model)
        with _torch_generator_kept():
            return [self._read(x) for x, _ in self._chosen]

    def _read(self, x):
        batches = [slice(i, i + self._batch_size) for i in range(0, _length(x), self._batch_size)]
        parts = [tree.map_structure(lambda values, part=part: values[part], x) for part in batches]
        return np.concatenate([self._reader.predict_on_batch(part) for part in parts])


def _torch_generator_kept():
    """Keras' dropout and its shuffling of arrays draw from PyTorch's global generator, where that is the backend."""
    if keras.backend.backend() != "torch":
        return contextlib.nullcontext()
    import torch

    return torch.random.fork_rng([torch.cuda.current_device()] if torch.cuda.is_available() else [])


class _FeatureReader(keras.Model):
    """A model that returns the output of a layer of another, and leaves no trace on that one's state."""

    def __init__(self, model, path):
        super().__init__(name="feature_reader", dtype=model.dtype_policy)
        self.base_model = model
        self.feature_layer = path
        self.built = True

    def call(self, inputs):
        state = [(variable, variable.value) for variable in self.base_model.variables]
        with keras.StatelessScope(state), read_output(find_layer(self.base_model, self.feature_layer)) as outputs:
            run_model(self.base_model, inputs, training=False)
        return ops.cast(the_output(outputs, self.feature_layer), "float32")


def _choose(data, name, num_samples, rng):
    """`num_samples` of the data, in random order: `x` and, in a list, `y`, which is empty if there is none.

    Each sample draws a number, and those with the least are kept, so that the data is read once and never held whole.
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
        f"`{name}` is read to its end, to choose samples of it, and should be finite. Received an infinite stream: pass "
        "a part of it, such as dataset.take(100)"
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


def _length(x):
    return len(tree.flatten(x)[0])
