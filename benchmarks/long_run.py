"""Long runs: 20,000 steps of a small model in which λ follows a schedule. Memory, traces, and the time of a step.

KERAS_BACKEND=jax python benchmarks/long_run.py
KERAS_BACKEND=tensorflow python benchmarks/long_run.py
KERAS_BACKEND=torch python benchmarks/long_run.py

Each schedule runs in a process of its own. "Growth" is that of the process's memory: its mean in the last tenth of the
run against its mean in the 2,000 steps that follow the first 1,000, as memory that is freed comes back in bursts.
"Slowdown" is the median processor time of 100 steps in the last tenth against that in the second: processor time, since
the machine does other things in the minutes between.
"""

import json
import statistics
import subprocess
import sys
import time

import keras
import measure
import numpy as np
import psutil
from traces import MatchedModel

from keras_itdm.callbacks import MatchWeightScheduler

STEPS_PER_EPOCH = 100
BATCH_SIZE = 20
SCHEDULES = {
    "by epoch": lambda steps: lambda epoch, match_weight: 0.2 + 0.6 * epoch * STEPS_PER_EPOCH / steps,
    "by step": lambda steps: keras.optimizers.schedules.CosineDecay(0.8, steps, alpha=0.2),
}


class Recorder(keras.callbacks.Callback):
    """After each epoch: resident memory in bytes, processor seconds that the epoch took, and traces up to here."""

    def __init__(self):
        super().__init__()
        self.memory, self.seconds, self.traces = [], [], 0

    def on_epoch_begin(self, epoch, logs=None):
        self._begun = time.process_time()

    def on_train_batch_end(self, batch, logs=None):
        self.traces += self._model.traced  # `self.model` would have all variables handed back on JAX
        self._model.traced = False

    def on_epoch_end(self, epoch, logs=None):
        self.seconds.append(time.process_time() - self._begun)
        self.memory.append(psutil.Process().memory_info().rss)


def small_model():
    keras.utils.set_random_seed(0)
    network = keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(16, activation="relu", name="features"),
            keras.layers.Dense(4, activation="softmax"),
        ]
    )
    model = MatchedModel(network, "features")
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


def small_data():
    """Arrays of an epoch."""
    rng = np.random.default_rng(0)
    return rng.random((BATCH_SIZE * STEPS_PER_EPOCH, 8), "float32"), rng.integers(4, size=BATCH_SIZE * STEPS_PER_EPOCH)


def run(schedule, steps):
    """Prints as JSON what the recorder saw."""
    recorder = Recorder()
    callbacks = [MatchWeightScheduler(SCHEDULES[schedule](steps)), recorder]
    epochs = steps // STEPS_PER_EPOCH
    small_model().fit(*small_data(), batch_size=BATCH_SIZE, epochs=epochs, callbacks=callbacks, verbose=0)
    print(json.dumps([recorder.memory, recorder.seconds, recorder.traces]))


def main():
    parser = measure.parser(__doc__, repeats=1)
    parser.add_argument(
        "--steps", type=int, default=20_000, help="steps of each training, at least 5000 (default: 20000)"
    )
    parser.add_argument("--schedule", choices=SCHEDULES, help="train with this schedule in this process, no table")
    settings = parser.parse_args()
    if settings.schedule:
        run(settings.schedule, settings.steps)
        return
    rows = []
    for schedule in SCHEDULES:
        options = ["--schedule", schedule, "--steps", str(settings.steps)]
        child = subprocess.run([sys.executable, __file__, *options], check=True, stdout=subprocess.PIPE, text=True)
        memory, seconds, traces = json.loads(child.stdout.splitlines()[-1])
        tenth = len(seconds) // 10
        early, late = statistics.mean(memory[10:30]), statistics.mean(memory[-tenth:])
        rows.append(
            {
                "λ": schedule,
                "traces": None if keras.backend.backend() == "torch" else traces,
                "step, ms": 1e3 * statistics.median(seconds[tenth:]) / STEPS_PER_EPOCH,
                "slowdown": statistics.median(seconds[-tenth:]) / statistics.median(seconds[tenth : 2 * tenth]),
                "memory, MiB": early / 2**20,
                "growth, %": 100 * (late / early - 1),
            }
        )
    measure.report(f"{settings.steps:,} steps", rows, settings, "growth, %", bar=1.0)
    if any(row["traces"] not in (None, 1) for row in rows):
        raise SystemExit("The step was traced more than once.")


if __name__ == "__main__":
    main()
