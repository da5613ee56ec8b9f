"""A training script, as users write it, that kills itself where it is told to, for `test_resuming.py`.

python -m tests.integration.killed_training DIRECTORY STREAM MOMENT
"""

import os
import pathlib
import signal
import sys

import keras

from keras_itdm import ITDMModel, zip_batches
from keras_itdm.callbacks import MatchWeightScheduler
from tests.networks import NUM_CLASSES, compiled, data

EPOCHS = 4
STEPS = 3  # an epoch
MOMENTS = (
    "middle of epoch 1",
    "writing weights of epoch 1",
    "between writes of epoch 2",
    "writing metadata of epoch 2",
)


def half(epoch, match_weight):
    return match_weight / 2 if epoch else 0.8


def network_with_state():
    """A network with moving averages, and a seed generator that advances."""
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(8, activation="relu", name="features"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.3, seed=5),  # without a seed, PyTorch draws from its global generator
            keras.layers.Dense(NUM_CLASSES, activation="softmax"),
        ]
    )


SCHEDULES = {"zipped": keras.optimizers.schedules.PolynomialDecay(1.6, EPOCHS * STEPS, 0.4), "arrays": half}


class Recorder(keras.callbacks.Callback):
    """Appends what each finished epoch logs to a file, λ at its steps among it."""

    def __init__(self, path):
        super().__init__()
        self.path = path

    def on_epoch_begin(self, epoch, logs=None):
        self.match_weights = []

    def on_train_batch_end(self, batch, logs=None):
        self.match_weights.append(self.model.match_weight)

    def on_epoch_end(self, epoch, logs=None):
        with open(self.path, "a") as file:
            print(epoch, sorted(logs.items()), self.match_weights, file=file)


class Kill(keras.callbacks.Callback):
    """Kills the process at one of `MOMENTS`."""

    def __init__(self, moment):
        super().__init__()
        what, epoch = moment.rsplit(" of epoch ", 1)
        self.what, self.when, self.epoch = what, int(epoch), None

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch
        if epoch == self.when and self.what != "middle":
            self._kill_in_write()

    def on_train_batch_end(self, batch, logs=None):
        if self.epoch == self.when and self.what == "middle" and batch == 1:
            kill()

    def _kill_in_write(self):
        save_weights = self.model.save_weights

        def save_and_kill(filepath, **options):
            save_weights(filepath, **options)
            path = pathlib.Path(filepath)
            if self.what == "writing weights":
                os.truncate(path, path.stat().st_size // 2)
            if self.what == "writing metadata":
                path.with_name("training_metadata.json").write_text("")
            kill()

        self.model.save_weights = save_and_kill


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def train(directory, stream, moment=None):
    """Trains, or goes on with what an earlier run in the same directory began.

    Returns:
        All variables of the model and its optimizer, as a list of arrays.
    """
    directory.mkdir(exist_ok=True)
    model = compiled(ITDMModel(network_with_state(), "features"))
    x, y = data(20 * STEPS)
    callbacks = [
        MatchWeightScheduler(SCHEDULES[stream]),
        Recorder(directory / "epochs.txt"),
        *([Kill(moment)] if moment else []),
        keras.callbacks.BackupAndRestore(directory / "backup", double_checkpoint=True),
    ]
    keras.utils.set_random_seed(4)
    options = {"epochs": EPOCHS, "callbacks": callbacks, "verbose": 0}
    if stream == "arrays":
        model.fit(x, y, batch_size=20, **options)
    else:
        import tensorflow as tf

        dataset = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(len(x), seed=1).batch(20)
        model.fit(zip_batches(dataset, seed=2), **options)
    return [keras.ops.convert_to_numpy(v) for v in (*model.variables, *model.optimizer.variables)]


if __name__ == "__main__":
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    directory, stream, moment = sys.argv[1:]
    train(pathlib.Path(directory), stream, moment)
