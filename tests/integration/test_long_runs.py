"""Nothing grows with the number of steps while λ is set at each, nor is the step traced again."""

import gc

import keras
import pytest

from keras_itdm import ITDMModel
from keras_itdm.callbacks import MatchWeightScheduler
from tests.networks import NUM_CLASSES, compiled, data

EPOCHS, STEPS = 5, 25  # an epoch


class Counted(ITDMModel):
    """Knows whether the step's code has run: where it is compiled, it runs only where it is traced."""

    traced = False

    def train_step(self, *args):
        self.traced = True
        return super().train_step(*args)


class Counter(keras.callbacks.Callback):
    """Counts the steps that were traced and, after each epoch, the live objects."""

    def __init__(self):
        super().__init__()
        self.traces, self.objects = 0, []

    def on_train_batch_end(self, batch, logs=None):
        self.traces += self._model.traced
        self._model.traced = False

    def on_epoch_end(self, epoch, logs=None):
        gc.collect()
        self.objects.append(len(gc.get_objects()))


@pytest.mark.filterwarnings("ignore")  # pytest keeps each warning, and PyTorch's NumPy gives one a step
def test_many_steps_leave_nothing_behind():
    network = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(8, activation="relu", name="features"),
            keras.layers.Dense(NUM_CLASSES, activation="softmax"),
        ]
    )
    model = compiled(Counted(network, "features"))
    counter = Counter()
    schedule = keras.optimizers.schedules.CosineDecay(0.8, EPOCHS * STEPS, alpha=0.2)
    callbacks = [MatchWeightScheduler(schedule), counter]
    model.fit(*data(6 * STEPS), batch_size=6, epochs=EPOCHS, callbacks=callbacks, verbose=0)
    assert counter.traces == (EPOCHS * STEPS if keras.backend.backend() == "torch" else 1)
    assert counter.objects[-1] - counter.objects[1] < STEPS, counter.objects  # in three epochs
