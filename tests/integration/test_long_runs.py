"""Nothing grows with the number of steps while λ is set at each, nor with that of models; a step is traced once."""

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
    """Counts how often the step's code has run: where it is compiled, it runs only where it is traced."""

    traces = 0

    def train_step(self, *args):
        self.traces += 1
        return super().train_step(*args)


class Counter(keras.callbacks.Callback):
    """Counts the live objects after each epoch."""

    def __init__(self):
        super().__init__()
        self.objects = []

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
    assert model.traces == (EPOCHS * STEPS if keras.backend.backend() == "torch" else 1)
    # What grows with steps does so in each epoch; what a backend sets up once, in one.
    assert min(np.diff(counter.objects[1:])) < STEPS / 5, counter.objects


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="PyTorch traces nothing")
@pytest.mark.parametrize("in_dicts", [False, True])
@pytest.mark.parametrize("by_batch", [False, True])
def test_a_step_is_traced_once(in_dicts, by_batch):
    """Variables that are made while a step is traced have TensorFlow trace it once more."""
    inputs = {"image": keras.Input((6, 6, 1), name="image"), "more": keras.Input((4,), name="more")}
    hidden = keras.layers.Concatenate()([keras.layers.Flatten()(inputs["image"]), inputs["more"]])
    hidden = keras.layers.Dense(8, activation="relu", name="features")(hidden)
    output = keras.layers.Dense(NUM_CLASSES, activation="softmax", name="kind")(hidden)
    other = keras.layers.Dense(1, name="size")(hidden)
    x, y = data(40)
    x, more = {"image": x, "more": np.zeros((40, 4), "float32")}, np.zeros((40, 1), "float32")
    losses = ["sparse_categorical_crossentropy", "mse"]
    if in_dicts:
        model = Counted(keras.Model(inputs, {"kind": output, "size": other}), "features", label_fn="kind")
        y, losses = {"kind": y, "size": more}, dict(zip(["kind", "size"], losses, strict=True))
    else:
        model = Counted(keras.Model(list(inputs.values()), [output, other]), "features", label_fn="kind")
        x, y = list(x.values()), [y, more]
    model.compile(keras.optimizers.Adam(), losses, metrics=losses)
    for _ in range(3):
        if by_batch:
            model.train_on_batch((x, y), (x, y))
        else:
            model.fit(x, y, batch_size=20, verbose=0)
    assert model.traces == 1


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
