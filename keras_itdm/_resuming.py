"""Going on where a training was killed: what `ITDMModel.fit` adds to `BackupAndRestore` and `ModelCheckpoint`.

Keras restores weights, optimizer and the number of the epoch. For the same result as without the kill, bit for bit,
three things are missing: the state of the seed generators, such as dropout's, which is saved with the weights here; the
order of the data, which begins anew with the first epoch's; and an epoch's number that cannot be that of other weights,
since Keras writes it to a second file.
"""

import keras
import numpy as np
from keras import tree

from keras_itdm._keras import begin_with_epoch, skip_epochs


class TrainingState:
    """What a killed training needs, beside what Keras saves, to go on as it would have gone on.

    Args:
        model: A model that holds another as `base_model`.

    Attributes:
        epochs_done: Number of epochs that the weights have been trained, saved with them; `None` if not known.
        data: The Keras `EpochIterator` that `fit` trains from, until the first step.
    """

    def __init__(self, model):
        self._model = model
        self._has_trained = False
        self.epochs_done = None
        self.data = None

    def begin(self, callbacks, initial_epoch, further=()):
        """A `fit` begins: the callbacks it is to take, with those that keep this state around the user's own."""
        begin_with_epoch(self._model, None)  # Keras does not forget what an earlier fit restored
        self.epochs_done = None
        if isinstance(callbacks, keras.callbacks.CallbackList):
            return callbacks
        callbacks = tree.flatten(callbacks) if callbacks else []
        restores = any(isinstance(callback, keras.callbacks.BackupAndRestore) for callback in callbacks)
        return [_EpochCounter(self), *callbacks, *further, _Resumer(self, initial_epoch, restores)]

    def resume(self, initial_epoch, restores):
        """Callbacks have begun: goes on with the epoch that a restored backup is of, and with the data of that epoch.

        Args:
            initial_epoch: The epoch that `fit` begins with where nothing is restored.
            restores: Whether there is a `BackupAndRestore` among the callbacks.
        """
        if restores:
            # The number saved with the weights. Keras' own is of other weights after a kill between its two writes.
            begin_with_epoch(self._model, self.epochs_done)
            initial_epoch = self.epochs_done or initial_epoch
        if not self._has_trained:  # a later fit finds the stream where the earlier one left it
            skip_epochs(self.data, initial_epoch)
        self._has_trained = True
        self.data = None

    def save(self, store):
        """Puts the number of epochs and the seeds into a store, as a layer does in `save_own_variables`."""
        store["epochs_done"] = np.array(self.epochs_done or 0)
        for index, seed in enumerate(self._seeds):
            store[f"seed_{index}"] = seed

    def load(self, store):
        """Takes out what `save` has put in; nothing from the file of an earlier version of this package."""
        names = set(store.keys())
        if "epochs_done" in names:
            self.epochs_done = int(np.array(store["epochs_done"]))
        for index, seed in enumerate(self._seeds):
            if f"seed_{index}" in names:
                seed.assign(store[f"seed_{index}"])

    @property
    def _seeds(self):
        """The states of the seed generators of the plain model's layers: its variables that are no weights."""
        weights = {id(weight) for weight in self._model.base_model.weights}
        return [variable for variable in self._model.base_model.variables if id(variable) not in weights]


class ResumableWeights:
    """Mixin before `keras.Model`: λ and the `TrainingState` of a model stand in the files of its weights."""

    def save_own_variables(self, store):
        """Saves λ and, which Keras does not, what a killed training needs to go on as it would have gone on."""
        super().save_own_variables(store)
        self._training_state.save(store)

    def load_own_variables(self, store):
        super().load_own_variables({name: store[name] for name in store.keys() if name.isdigit()})  # noqa: SIM118
        self._match_weight.refresh()
        self._training_state.load(store)


class _EpochCounter(keras.callbacks.Callback):
    """First of the callbacks: those behind it save the number of epochs done with the weights."""

    def __init__(self, state):
        super().__init__()
        self.state = state

    def on_epoch_begin(self, epoch, logs=None):
        self.state.epochs_done = epoch

    def on_epoch_end(self, epoch, logs=None):
        self.state.epochs_done = epoch + 1


class _Resumer(keras.callbacks.Callback):
    """Last of the callbacks: when it begins, `BackupAndRestore` has restored."""

    def __init__(self, state, initial_epoch, restores):
        super().__init__()
        self.state = state
        self.initial_epoch = initial_epoch
        self.restores = restores

    def on_train_begin(self, logs=None):
        self.state.resume(self.initial_epoch, self.restores)
