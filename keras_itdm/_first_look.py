"""A look at the values of the first batch on TensorFlow, whose trainer builds the model inside the graph, where labels
have none, and whose compiler drops assertions. On other backends a batch is at hand when the model is built."""

import keras

from keras_itdm._keras import dataset_of, train_from


class FirstLook:
    """Mixin before `keras_itdm._keras.TrainerHooks`: has `_first_batch` see values on TensorFlow as well."""

    _refused = None  # what a look has raised, inside the pipeline

    def _take_data(self, epoch_iterator):
        super()._take_data(epoch_iterator)
        if keras.backend.backend() == "tensorflow" and self._match.looks_at_batches:
            self._look_at(epoch_iterator)

    def _look_at(self, epoch_iterator):
        """Has what `fit` trains from show its first batch, once, as NumPy arrays, when training reads it. One that is
        taken beforehand would draw from the order of S1."""
        import tensorflow as tf

        dataset, is_first = dataset_of(epoch_iterator), [True]
        if dataset is None:
            return

        def look(*leaves):
            if is_first:
                is_first.clear()
                try:
                    self._first_batch(tf.nest.pack_sequence_as(dataset.element_spec, leaves))
                except ValueError as error:
                    self._refused = error
                    raise
            return True

        def shown(number, batch):
            look_at = lambda: tf.numpy_function(look, tf.nest.flatten(batch), tf.bool)  # noqa: E731
            with tf.control_dependencies([tf.cond(number == 0, look_at, lambda: True)]):
                return tf.nest.map_structure(tf.identity, batch)

        train_from(epoch_iterator, dataset.enumerate().map(shown))

    def make_train_function(self, force=False):
        self._refused, before = None, self.train_function
        super().make_train_function(force)
        function = self.train_function
        if keras.backend.backend() != "tensorflow" or function is before:
            return

        def train_function(*args):
            try:
                return function(*args)
            except Exception:
                if self._refused is not None:  # instead of what TensorFlow makes of it
                    raise self._refused from None
                raise

        self.train_function = train_function
