"""A scheduled step: a step of a small model with λ set before each step, against one with λ fixed.

KERAS_BACKEND=jax python benchmarks/scheduled_step.py
KERAS_BACKEND=tensorflow python benchmarks/scheduled_step.py
KERAS_BACKEND=torch python benchmarks/scheduled_step.py

A schedule costs the same whatever the model: its share is largest here, and small in a step of several milliseconds.
"""

import functools
import statistics

import measure
from long_run import BATCH_SIZE, SCHEDULES, STEPS_PER_EPOCH, small_data, small_model

from keras_itdm.callbacks import MatchWeightScheduler

EPOCHS = 4


def main():
    settings = measure.parser(__doc__, repeats=10).parse_args()
    model = small_model()
    data = small_data()

    def fit(callbacks):
        model.fit(*data, batch_size=BATCH_SIZE, epochs=EPOCHS, callbacks=callbacks, verbose=0)

    functions = {"fixed": functools.partial(fit, [])}
    for name, schedule in SCHEDULES.items():
        functions[name] = functools.partial(fit, [MatchWeightScheduler(schedule(100_000))])
    times = measure.interleaved(functions, settings.repeats)
    rows = [
        {
            "λ": name,
            "step, ms": 1e3 * statistics.median(times[name]) / (EPOCHS * STEPS_PER_EPOCH),
            "/ fixed": measure.ratio(times[name], times["fixed"]),
        }
        for name in functions
    ]
    measure.report("A step with λ by a schedule", rows, settings)


if __name__ == "__main__":
    main()
