"""S2 in an order of its own, from a second reader of the same arrays, `PyDataset` or `DataLoader`."""

import contextlib
import functools

import keras
import numpy as np
from keras import tree

from keras_itdm._generators import OwnRandomness
from keras_itdm._keras import ArrayDataAdapter, array_slicing
from keras_itdm.data._pairs import Pair


class ReorderedArrays(ArrayDataAdapter):
    """The arrays of another adapter in an order of its own, anew in each epoch."""

    def __init__(self, adapter, seed):
        if keras.backend.backend() == "tensorflow":  # which copies arrays: once for S1 and S2
            vars(adapter)["_inputs"] = _as_tensors(vars(adapter)["_inputs"])
        self.__dict__.update(vars(adapter))
        self._seed = seed
        self._generator = np.random.default_rng(seed)

    def _get_iterator(self, slice_and_convert_fn, inputs):
        order = self._generator.permutation(self._num_samples)
        for start in range(0, self._num_samples, self._batch_size):
            grab = functools.partial(slice_and_convert_fn, indices=order[start : start + self._batch_size])
            yield tree.map_structure(grab, inputs, none_is_leaf=False)

    def get_torch_dataloader(self):
        inputs = array_slicing.convert_to_sliceable(self._inputs, target_backend="torch")

        def grab(array, indices):
            return keras.ops.convert_to_tensor(array.convert_to_torch_compatible(array[indices]))

        return self._get_iterator(grab, inputs)

    def get_tf_dataset(self):
        import tensorflow as tf

        inputs = array_slicing.convert_to_sliceable(self._inputs, target_backend="tensorflow")
        inputs = tree.lists_to_tuples(inputs)

        def grab(array, indices):
            if isinstance(array, array_slicing.TensorflowSparseWrapper):
                return array_slicing.slice_tensorflow_sparse_wrapper(array, indices)
            if array is None or isinstance(array, (list, tuple, dict)):
                return None  # look into it
            return tf.gather(array, indices)

        order = tf.data.Dataset.range(self._num_samples).shuffle(self._num_samples, seed=self._seed)
        # Arrays go through the pipeline: what a function closes over becomes a constant of the graph, of 2 GiB at most.
        batches = tf.data.Dataset.zip(
            (order.batch(self._batch_size), tf.data.Dataset.from_tensors(inputs).repeat())
        ).map(
            lambda indices, inputs: tree.traverse(lambda array: grab(array, indices), inputs),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
        options = tf.data.Options()
        options.experimental_optimization.apply_default_optimizations = (
            False  # it would write the arrays out, as a graph
        )
        return batches.with_options(options).prefetch(tf.data.AUTOTUNE)


def _as_tensors(arrays):
    """Arrays as TensorFlow's data adapter takes them, as tensors in the host's memory."""
    import tensorflow as tf

    def as_tensor(array):
        sliceable = array_slicing.convert_to_sliceable(array, target_backend="tensorflow")
        if isinstance(sliceable, array_slicing.TensorflowSparseWrapper):
            return array  # which Keras does not take in this form
        return tf.convert_to_tensor(sliceable) if isinstance(sliceable, np.ndarray) else sliceable

    with tf.device("CPU:0"):
        return tree.map_structure(as_tensor, arrays, none_is_leaf=False)


class PairedPyDataset(keras.utils.PyDataset):
    """Beside each batch of another `PyDataset` one of its batches in an order of its own, anew in each epoch. What that
    draws from global generators is not drawn from S1's, unless threads read at the same time."""

    def __init__(self, dataset, seed):
        super().__init__(
            workers=dataset.workers,
            use_multiprocessing=dataset.use_multiprocessing,
            max_queue_size=dataset.max_queue_size,
        )
        self.dataset = dataset
        self._generator = np.random.default_rng(seed)
        in_threads = dataset.workers > 1 and not dataset.use_multiprocessing
        self._randomness = contextlib.nullcontext() if in_threads else OwnRandomness(seed)
        self._draw_order()

    @property
    def num_batches(self):
        return self.dataset.num_batches

    def __getitem__(self, index):
        batch = self.dataset[index]
        with self._randomness:
            partner = self.dataset[int(self._order[index % len(self._order)])]
        return Pair(batch, partner)

    def on_epoch_begin(self):
        self.dataset.on_epoch_begin()

    def on_epoch_end(self):
        self.dataset.on_epoch_end()
        self._draw_order()

    def _draw_order(self):
        if self.num_batches is None:  # endless: any index will do
            self._order = self._generator.integers(2**31, size=4096)
        else:
            self._order = self._generator.permutation(self.num_batches)


def reordered_data_loader(loader, seed):
    """A second DataLoader over the same data, in a random order of its own; `None` where there is no such order: of a
    stream, or with a sampler of the user's own, which may give the same order again or draw from a shared generator."""
    import torch

    data = torch.utils.data
    sampler = loader.sampler
    known = type(sampler) in (data.SequentialSampler, data.RandomSampler)
    if isinstance(loader.dataset, data.IterableDataset) or loader.batch_size is None or not known:
        return None
    generator = torch.Generator()
    generator.manual_seed(seed)
    drawn = {"num_samples": sampler.num_samples} if isinstance(sampler, data.RandomSampler) else {}
    return data.DataLoader(
        loader.dataset,
        batch_size=loader.batch_size,
        sampler=data.RandomSampler(
            loader.dataset, replacement=getattr(sampler, "replacement", False), generator=generator, **drawn
        ),
        drop_last=loader.drop_last,
        collate_fn=loader.collate_fn,
        num_workers=loader.num_workers,
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        persistent_workers=loader.persistent_workers,
        generator=generator,
    )
