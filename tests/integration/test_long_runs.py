"""Nothing grows with the number of steps while λ is set at each, nor with that of models; no step is traced again."""

import gc
import time
import weakref

import keras
import numpy as np
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


@pytest.mark.parametrize("max_share", [1.0, None], ids=["bounded", "constant"])
def test_a_model_that_is_done_with_is_freed(max_share):
    """As in a search over many: on TensorFlow a gradient function that was registered kept the model and 14 MiB."""

    def train():
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, name="features"), keras.layers.Dense(3)])
        itdm = ITDMModel(model, "features", max_share=max_share)
        itdm.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
        itdm.fit(np.random.normal(size=(12, 4)), np.arange(12) % 3, batch_size=6, verbose=0)
        return weakref.ref(itdm)

    itdm = train()
    keras.backend.clear_session()
    for _ in range(20):  # what finalizers free leaves more to be freed, and threads take their time
        gc.collect()
        if itdm() is None:
            return
        time.sleep(0.2)
    raise AssertionError("Something holds the model.")
