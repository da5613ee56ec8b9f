"""Going on where a training was killed: what `ITDMModel.fit` adds to `BackupAndRestore` and `ModelCheckpoint`.

Keras restores weights, optimizer and the number of the epoch. For the same result as without the kill, bit for bit, three
things are missing: the state of the seed generators, such as dropout's, which `ITDMModel` saves with its weights; the
order of the data, which begins anew with the first epoch's; and an epoch's number that cannot be that of other weights,
since Keras writes it to a second file.
"""

import keras

from keras_itdm._keras import begin_with_epoch, skip_epochs


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
            begin_with_epoch(model, model._epochs_done)
        if not model._has_trained:
            skip_epochs(model.epoch_iterator, (model._epochs_done if self.restores else None) or self.initial_epoch)
        model._has_trained = True
        model.epoch_iterator = None
