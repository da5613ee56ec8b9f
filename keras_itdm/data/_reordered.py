"""S2 out of arrays, in an order of its own."""

import functools

import keras
import numpy as np
from keras import tree

from keras_itdm._keras import ArrayDataAdapter, array_slicing


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
