"""Long runs: 20,000 steps of a small model in which λ follows a schedule. Memory, traces, and the time of a step.

KERAS_BACKEND=jax python benchmarks/long_run.py
KERAS_BACKEND=tensorflow python benchmarks/long_run.py
KERAS_BACKEND=torch python benchmarks/long_run.py

Each schedule runs in a process of its own. Growth is that of the process's memory after the first 1,000 steps: the mean of
the last tenth against the mean of the steps from 1,000 to 3,000, since memory that is freed comes back in bursts. "Slowdown" is
the median time of an epoch, of 100 steps, in the last tenth against the second.
"""

import json
import os
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
SCHEDULES = {
    "none": lambda steps: [],
    "by epoch": lambda steps: [
        MatchWeightScheduler(lambda epoch, match_weight: 0.2 + 0.6 * epoch * STEPS_PER_EPOCH / steps)
    ],
    "by step": lambda steps: [MatchWeightScheduler(keras.optimizers.schedules.CosineDecay(0.8, steps, alpha=0.2))],
}


class Recorder(keras.callbacks.Callback):
    """After each epoch: resident memory in bytes, seconds that the epoch took, and traces up to here."""

    def __init__(self):
        super().__init__()
        self.memory, self.seconds, self.traces = [], [], 0

    def on_epoch_begin(self, epoch, logs=None):
        self._begun = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        self.traces += self._model.traced  # `self.model` would have JAX hand its state back at each step
        self._model.traced = False

    def on_epoch_end(self, epoch, logs=None):
        self.seconds.append(time.perf_counter() - self._begun)
        self.memory.append(psutil.Process().memory_info().rss)


def run(schedule, steps):
    """Prints as JSON what the recorder saw."""
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
    rng = np.random.default_rng(0)
    x, y = rng.random((20 * STEPS_PER_EPOCH, 8), "float32"), rng.integers(4, size=20 * STEPS_PER_EPOCH)
    recorder = Recorder()
    callbacks = [*SCHEDULES[schedule](steps), recorder]
    model.fit(x, y, batch_size=20, epochs=steps // STEPS_PER_EPOCH, callbacks=callbacks, verbose=0)
    print(json.dumps([recorder.memory, recorder.seconds, recorder.traces]))


def main():
    parser = measure.parser(__doc__, repeats=1)
    parser.add_argument(
        "--steps", type=int, default=20_000, help="steps of each training, at least 5000 (default: 20000)"
    )
    parser.add_argument(
        "--schedule", choices=SCHEDULES, help="to run this one alone, in this process, as the program does"
    )
    settings = parser.parse_args()
    if settings.schedule:
        return run(settings.schedule, settings.steps)
    rows = []
    for schedule in SCHEDULES:
        options = ["--schedule", schedule, "--steps", str(settings.steps)]
        child = subprocess.run(
            [sys.executable, __file__, *options], env=os.environ, check=True, capture_output=True, text=True
        )
        memory, seconds, traces = json.loads(child.stdout.splitlines()[-1])
        tenth = len(seconds) // 10
        early, late = statistics.mean(memory[10:30]), statistics.mean(memory[-tenth:])
        rows.append(
            {
                "schedule of λ": schedule,
                "traces": None if keras.backend.backend() == "torch" else traces,
                "step, ms": 1e3 * statistics.median(seconds[tenth:]) / STEPS_PER_EPOCH,
                "/ without schedule": statistics.median(seconds[tenth:])
                / (rows[0]["median"] if rows else statistics.median(seconds[tenth:])),
                "slowdown": statistics.median(seconds[-tenth:]) / statistics.median(seconds[tenth : 2 * tenth]),
                "memory, MiB": early / 2**20,
                "growth, %": 100 * (late / early - 1),
                "median": statistics.median(seconds[tenth:]),
            }
        )
    for row in rows:
        del row["median"]
    measure.report(f"{settings.steps:,} steps", rows, settings, "growth, %", bar=1.0)


if __name__ == "__main__":
    main()
