"""Draws the schedules of λ that docs/schedules.md lists, over a training.

python -m experiments.schedules
"""

import argparse
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
from keras.optimizers.schedules import CosineDecay, LearningRateSchedule, PiecewiseConstantDecay, PolynomialDecay

from experiments import figures
from experiments.training import not_negative, positive
from keras_itdm.schedules import DANNRamp


def schedules(λ, steps):
    """Name -> schedule that reaches λ, over a training of so many steps: each line as docs/schedules.md has it."""
    return {
        "constant": lambda epoch, match_weight: λ,
        "warm-up": PolynomialDecay(0.0, 0.2 * steps, end_learning_rate=λ),
        "linear ramp": PolynomialDecay(0.0, steps, end_learning_rate=λ),
        "linear decay": PolynomialDecay(λ, steps, end_learning_rate=0.0),
        "cosine decay": CosineDecay(λ, steps),
        "warm-up, then cosine": CosineDecay(0.0, 0.8 * steps, warmup_target=λ, warmup_steps=0.2 * steps),
        "piecewise": PiecewiseConstantDecay([0.4 * steps, 0.8 * steps], [λ / 4, λ / 2, λ]),
        "DANN's ramp": DANNRamp(λ, steps),
    }


def values(schedule, steps):
    """λ at these steps, or for a function at these epochs."""
    if isinstance(schedule, LearningRateSchedule):
        return np.array([float(schedule(step)) for step in steps])
    return np.array([schedule(step, 0.0) for step in steps])


def draw(match_weight, steps, path):
    figure, axes = figures.panels(2, 4, width=2.6, height=2.1)
    read = np.linspace(0, steps, 101).astype(int)
    for axis, (name, schedule) in zip(axes.flat, schedules(match_weight, steps).items(), strict=True):
        axis.plot(read, values(schedule, read), color=figures.ITDM)
        axis.set(title=name, ylim=(-0.04 * match_weight, 1.1 * match_weight))
    for axis in axes[-1]:
        axis.set_xlabel("step")
    for axis in axes[:, 0]:
        axis.set_ylabel("λ")
    figures.save(figure, path)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--match-weight", type=not_negative, default=0.8, metavar="λ", help="the largest λ of each")
    add("--steps", type=positive, default=1000, help="steps of the training")
    add("--output", type=pathlib.Path, default=pathlib.Path("results/schedules"), help="folder for schedules.png")
    settings = parser.parse_args()
    settings.output.mkdir(parents=True, exist_ok=True)
    draw(settings.match_weight, settings.steps, settings.output / "schedules.png")
    print(f"Written to {settings.output}: schedules.png")


if __name__ == "__main__":
    main()
