"""What callbacks share that look at the features of training and validation data as training goes on."""

import contextlib

import keras
import numpy as np
from keras import ops, tree

from keras_itdm._checks import check_integer
from keras_itdm._feature_layers import paths_of
from keras_itdm._features import features_without_trace, find_layers
from keras_itdm._labels import class_indices, count_classes, labels_of
from keras_itdm.callbacks._samples import choose_samples, num_samples_of
from keras_itdm.model import ITDMModel


class FeatureCallback(keras.callbacks.Callback):
    """Base class: equally many samples of training and validation data, chosen once, and their features when asked for.

    A subclass overrides `look`, which is called as every so many epochs end, beginning with the first of a `fit`.

    Args:
        train_data: Arrays `x`, `(x, y)` or `(x, y, sample_weight)`, or a finite, batched `tf.data.Dataset`,
            `keras.utils.PyDataset`, PyTorch `DataLoader` or generator of these.
        validation_data: The same.
        feature_layer: Name of one layer, as in `ITDMModel`, whose own it is by default: of several, the last. A plain
            model needs it.
        every: Number of epochs from one look to the next.
        max_samples: How many samples of either are taken at most. The smaller of the two gives as many as it has, and
            so does the other.
        label_fn: Function from `y` to the labels, where `y` has several parts.
        batch_size: In reading features.
        seed: Of the choice.
    """

    def __init__(self, train_data, validation_data, feature_layer, every, max_samples, label_fn, batch_size, seed):
        super().__init__()
        check_integer("every", every, least=1)
        check_integer("max_samples", max_samples, least=2)
        check_integer("batch_size", batch_size, least=1)
        self.feature_layer = feature_layer
        self.every = every
        self.max_samples = max_samples
        self.label_fn = label_fn
        self.batch_size = batch_size
        self.seed = seed
        self._data = {"train_data": train_data, "validation_data": validation_data}
        self._samples = self._reader = self._first_epoch = None

    def look(self, epoch, logs):
        raise NotImplementedError(f"{type(self).__name__} should override `look`.")

    def on_train_begin(self, logs=None):
        """Chooses the samples.

        Raises:
            ValueError: if there is no such layer or none is named, or the data is empty or infinite.
        """
        model = self.model
        base_model = model.base_model if isinstance(model, ITDMModel) else model
        path = self.feature_layer
        if path is None and isinstance(model, ITDMModel):
            path = paths_of(model.feature_layer)[-1]
        if path is None:
            raise ValueError(
                "Name the layer whose output is looked at: feature_layer=... "
                f"Received: None, for a {type(model).__name__}"
            )
        find_layers(base_model, [path])
        self._reader = _FeatureReader(base_model, path)
        self._reader.compile(run_eagerly=model.run_eagerly, jit_compile=model.jit_compile)
        self._first_epoch = None
        if self._samples is None:
            rng = np.random.default_rng(self.seed)
            chosen = [choose_samples(data, name, self.max_samples, rng) for name, data in self._data.items()]
            num_samples = min(num_samples_of(x) for x, _ in chosen)
            self._samples = [tree.map_structure(lambda values: values[:num_samples], part) for part in chosen]
            self._data = None  # not needed any more

    def on_epoch_end(self, epoch, logs=None):
        if self._first_epoch is None:
            self._first_epoch = epoch
        if (epoch - self._first_epoch) % self.every == 0:
            self.look(epoch, logs)

    def on_train_end(self, logs=None):
        self._reader = None

    def classes(self):
        """The classes of the samples of both, int32 NumPy arrays with -1 for no class, and the number of classes.

        `None` instead of an array for data without labels.

        Raises:
            ValueError: if the targets have several parts, or are no labels.
        """
        labels = [self._labels(*y) if y else None for _, y in self._samples]
        num_classes = count_classes(*(y for y in labels if y is not None))
        indices = [None if y is None else ops.convert_to_numpy(class_indices(y, num_classes)) for y in labels]
        return indices, num_classes

    def _labels(self, y):
        model = self.model
        if self.label_fn is not None:
            y = self.label_fn(y)
        elif isinstance(model, ITDMModel):
            y = labels_of(y, model.label_fn, model.output_names)
        if tree.is_nested(y):
            raise ValueError(
                f"The targets have several parts. Say which are the labels: label_fn=... Received: {type(y)}"
            )
        return y

    def features(self):
        """The features of both in evaluation mode, NumPy arrays of shape `(samples, ...)`; nothing else changes."""
        _ = self.model  # has `fit` on JAX hand back the variables
        with _torch_generator_kept():
            return [self._read(x) for x, _ in self._samples]

    def _read(self, x):
        batches = [slice(i, i + self.batch_size) for i in range(0, num_samples_of(x), self.batch_size)]
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
        (features,) = features_without_trace(self.base_model, [self.feature_layer], inputs, training=False)
        return ops.cast(features, "float32")
