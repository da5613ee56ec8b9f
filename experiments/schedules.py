"""The schedules of λ that docs/schedules.md lists, drawn over a training, and trained with beside the bound.

python -m experiments.schedules
"""

import argparse
import dataclasses
import json
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
from keras.optimizers.schedules import CosineDecay, LearningRateSchedule, PiecewiseConstantDecay, PolynomialDecay

from experiments import figures, tables
from experiments.alternatives import RECIPES, SIZES
from experiments.data import TITLES, load
from experiments.partners import COLUMNS, collapsed
from experiments.study import Trial, run_trials, test_metrics
from experiments.training import DefaultsHelp, check_settings, positive, write_atomically
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


STRENGTHS = (("stream", 0.8), ("split", 0.8), ("split", 1.6))  # partner and λ; a constant 1.6 is too much for "split"


def study(name, settings):
    """Trains on one data set plainly, with every schedule without the bound, and with the bound.

    Returns:
        One row for each way to train.
    """
    plain = RECIPES[name]
    if settings.epochs:
        plain = dataclasses.replace(plain, epochs=settings.epochs)
    data = load(name).take(settings.train_size or SIZES[name][0])
    steps = plain.steps_per_epoch(data) * plain.epochs
    ways = {("plain SGD", None, 0.0): plain}
    for partner, weight in STRENGTHS:
        itdm = dataclasses.replace(plain, partner=partner, match_weight=weight)
        for schedule, of in schedules(weight, steps).items():
            ways[schedule, partner, weight] = dataclasses.replace(itdm, schedule=of)
        ways["constant, and the bound", partner, weight] = dataclasses.replace(itdm, max_share=1.0)
    jobs = [(way, seed) for seed in range(settings.seeds) for way in ways]
    trials = [Trial("-".join(map(str, (name, *way, seed))), ways[way], data, seed) for way, seed in jobs]
    measured = list(zip(jobs, run_trials(trials, settings.output, test_metrics), strict=True))
    rows = []
    for way in ways:
        numbers = [found for (of, _), found in measured if of == way]
        row = {"data": name, **dict(zip(("schedule", "partner", "match_weight"), way, strict=True))}
        row.update({key: tables.mean_and_deviation([found[key] for found in numbers]) for key in COLUMNS})
        row["collapsed"] = sum(found["accuracy"] < 200 / data.num_classes for found in numbers)
        rows.append({**row, "seeds": settings.seeds})
    return rows


def table(rows):
    """One data set. A seed learnt nothing if its test accuracy is less than twice that of guessing."""
    lines = []
    for row in rows:
        of = [f'"{row["partner"]}"', f"{row['match_weight']:g}"] if row["partner"] else ["", "0"]
        cells = [tables.cell(row[key], digits) for key, (_, digits, _) in COLUMNS.items()]
        lines.append([*of, row["schedule"], *cells, collapsed(row)])
    titles = [title for title, _, _ in COLUMNS.values()]
    return tables.markdown(["partner", "largest λ", "schedule", *titles, "learnt nothing"], lines)


def values(schedule, steps):
    """λ at these steps, or for a function at these epochs."""
    if isinstance(schedule, LearningRateSchedule):
        return np.array([float(schedule(step)) for step in steps])
    return np.array([schedule(step, 0.0) for step in steps])


def draw(match_weight, steps, path):
    figure, axes = figures.panels(4, 2, height=1.7)
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
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], formatter_class=DefaultsHelp)
    add = parser.add_argument
    add("--data", nargs="*", choices=list(RECIPES), default=list(RECIPES), help="none: the picture of schedules alone")
    add("--seeds", type=positive, default=3, help="number of seeds, from 0")
    add("--epochs", type=positive, help="the recipe's if not given")
    add(
        "--train-size", type=positive, help="number of training images; 400 digits, 5,000 of Fashion-MNIST if not given"
    )
    add("--output", type=pathlib.Path, default=pathlib.Path("results/schedules"), help="folder for the results")
    settings = parser.parse_args()
    check_settings(settings, free=("data", "seeds", "output"))
    draw(0.8, 1000, settings.output / "schedules.png")
    if settings.data:
        rows = {name: study(name, settings) for name in settings.data}
        text = "\n\n".join(f"{TITLES[name]}\n\n{table(of)}" for name, of in rows.items())
        write_atomically(settings.output / "table.md", text + "\n")
        kept = {"settings": vars(settings), "rows": [row for of in rows.values() for row in of]}
        write_atomically(settings.output / "results.json", json.dumps(kept, default=str, indent=1) + "\n")
        print(f"\n{text}\n")
    print(f"Written to {settings.output}")


if __name__ == "__main__":
    main()
