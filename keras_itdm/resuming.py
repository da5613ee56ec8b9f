"""Going on where a training was killed: what `ITDMModel.fit` adds to `BackupAndRestore` and `ModelCheckpoint`.

Keras restores weights, optimizer and the number of the epoch. For the same result as without the kill, bit for bit, three
things are missing: the state of the seed generators, such as dropout's, which `ITDMModel` saves with its weights; the
order of the data, which begins anew with the first epoch's; and an epoch's number that cannot be that of other weights,
since Keras writes it to a second file.
"""

import keras


class EpochCounter(keras.callbacks.Callback):
    """First of the callbacks: those behind it save the number of epochs done with the weights."""

    def on_epoch_begin(self, epoch, logs=None):
        self.model._epochs_done = epoch

    def on_epoch_end(self, epoch, logs=None):
        self.model._epochs_done = epoch + 1


class Resumer(keras.callbacks.Callback):
    """Last of the callbacks: once `BackupAndRestore` has restored a backup, goes on with the epoch that it is of.

    Args:
        initial_epoch: The epoch that `fit` begins with where nothing is restored.
        restores: Whether there is a `BackupAndRestore` among the callbacks.
    """

    def __init__(self, initial_epoch, restores):
        super().__init__()
        self.initial_epoch = initial_epoch
        self.restores = restores

    def on_train_begin(self, logs=None):
        model = self.model
        if self.restores:
            # The number saved with the weights. Keras' own is of other weights after a kill between its two writes.
            model._initial_epoch = model._epochs_done
        if not model._has_trained:
            pass_over(model._fit_iterator, model._initial_epoch or self.initial_epoch)
        model._has_trained = True
        model._fit_iterator = None


def pass_over(epoch_iterator, epochs):
    """Brings data to the state in which so many epochs leave it, without reading more than a batch of each.

    What counts is that iterators are made, for `tf.data`, or begun: that is when they draw their order. Where
    `steps_per_epoch` says that one iterator serves several epochs, nothing is passed over.

    Args:
        epoch_iterator: The Keras `EpochIterator` that `fit` trains from.
        epochs: Number of epochs to pass over.
    """
    if epoch_iterator.steps_per_epoch:
        return
    for _ in range(epochs):
        for step, _, batches in epoch_iterator._enumerate_iterator():
            if step == 0:
                next(batches, None)
            if epoch_iterator.num_batches is None:  # the length is not known before the end is met
                epoch_iterator.data_adapter.on_epoch_end()
                break
