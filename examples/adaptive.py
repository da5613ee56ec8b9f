"""λ that keeps matching at a share of the gradient: plain SGD, a fixed λ, and `AdaptiveMatchWeight` on Fashion-MNIST.

python examples/adaptive.py
"""

import argparse
import dataclasses
import json
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
from alternatives import RECIPES
from common import figures, tables
from common.data import load
from common.study import Trial, run_trials, test_metrics
from common.training import check_settings, not_negative, positive, write_atomically

COLUMNS = {  # title, digits
    "accuracy": ("test accuracy, %", 2),
    "accuracy_difference": ("Δ", 2),
    "cross_entropy": ("test cross-entropy", 4),
    "cross_entropy_difference": ("Δ", 4),
    "calibration_error": ("calibration error, %", 2),
    "first_match_weight": ("λ, first epoch", 3),
    "last_match_weight": ("λ, last epoch", 3),
}
COLOURS = [figures.PLAIN, "#56b4e9", figures.ITDM, "#d55e00", "#009e73", "#cc79a7"]


def share(text):
    """Type of a command-line argument: a number of at least 0 and below 1."""
    number = not_negative(text)
    if number >= 1:
        raise argparse.ArgumentTypeError(f"should be below 1. Got: {text}")
    return number


def recipes(plain, match_weight, shares):
    """Name -> recipe. λ begins at the same value, fixed or not."""
    fixed = dataclasses.replace(plain, match_weight=match_weight)
    adaptive = {f"share {s:g}": dataclasses.replace(fixed, match_share=s) for s in shares}
    return {"plain SGD": plain, f"λ = {match_weight:g}": fixed, **adaptive}


def study(settings):
    """Trains everything with every seed.

    Returns:
        One row for each way to train, and each way's histories of λ and its share, seed by seed.
    """
    plain = RECIPES[settings.data]
    if settings.epochs:
        milestones = tuple(round(m * settings.epochs / plain.epochs) for m in plain.milestones)
        plain = dataclasses.replace(plain, epochs=settings.epochs, milestones=tuple(m for m in milestones if m))
    data = load(settings.data).take(settings.train_size)
    chosen = recipes(plain, settings.match_weight, settings.shares)
    trials = [
        Trial(f"{name}-seed{seed}", recipe, data, seed)
        for seed in range(settings.seeds)
        for name, recipe in chosen.items()
    ]
    numbers = run_trials(trials, settings.output, test_metrics)
    histories = [json.loads((t.folder(settings.output) / "result.json").read_text())["history"] for t in trials]
    rows, paths = [], {}
    for index, name in enumerate(chosen):
        measured, base = numbers[index :: len(chosen)], numbers[:: len(chosen)]
        row = {"name": name, "seeds": settings.seeds}
        for key in ("accuracy", "cross_entropy", "calibration_error", "seconds_per_epoch"):
            row[key] = tables.mean_and_deviation([m[key] for m in measured])
        for key in ("accuracy", "cross_entropy"):
            difference = np.subtract([m[key] for m in measured], [m[key] for m in base])
            row[f"{key}_difference"] = tables.mean_and_deviation(difference) if index else None
            row[f"{key}_clear"] = bool(index) and tables.is_clear(row[f"{key}_difference"], settings.seeds)
        if index:
            paths[name] = {
                key: [h[key] for h in histories[index :: len(chosen)] if key in h]
                for key in ("match_weight", "match_share")
            }
            for when, epoch in (("first", 0), ("last", -1)):
                weights = [path[epoch] for path in paths[name]["match_weight"]]
                row[f"{when}_match_weight"] = tables.mean_and_deviation(weights)
        rows.append(row)
    return rows, paths


def table(rows):
    lines = []
    for row in rows:
        cells = []
        for key, (_, digits) in COLUMNS.items():
            is_difference = key.endswith("_difference")
            cells.append(tables.cell(row[key], digits, "+" if is_difference else "") if row.get(key) else "")
            if is_difference and row[key.replace("_difference", "_clear")]:
                cells[-1] += " *"
        lines.append([row["name"], *cells])
    return tables.markdown(["training", *(title for title, _ in COLUMNS.values())], lines)


def draw(paths, path):
    """λ by epoch, and the share reached as it was measured; every seed a line."""
    figure, axes = figures.panels(1, 2, width=4.6, height=3.2)
    for axis, key, title in zip(
        axes[0], ("match_weight", "match_share"), ("λ", "share of the gradient at the features"), strict=True
    ):
        for index, (name, kept) in enumerate(paths.items()):
            colour = COLOURS[index % len(COLOURS)]
            for seed, values in enumerate(kept[key]):
                label = name if seed == 0 else None
                axis.plot(np.arange(1, len(values) + 1), values, color=colour, lw=1.2, label=label)
        axis.set(xlabel="epoch", ylabel=title)
        axis.set_ylim(bottom=0)
    axes[0][0].legend(fontsize=8)
    figures.save(figure, path)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--data", choices=list(RECIPES), default="fashion_mnist")
    add("--match-weight", type=not_negative, default=0.8, metavar="λ", help="the fixed λ, and where adapting begins")
    add("--shares", type=share, nargs="+", default=[0.1, 0.2, 0.4], help="shares of the gradient")
    add("--seeds", type=positive, default=3, help="number of seeds, from 0")
    add("--train-size", type=positive, default=5000, help="number of training images")
    add("--epochs", type=positive, help="the recipe's if not given")
    add("--output", type=pathlib.Path, default=pathlib.Path("results/adaptive"), help="folder for the results")
    settings = parser.parse_args()
    if settings.match_weight == 0:
        parser.error("--match-weight should be positive. Got: 0")
    check_settings(settings, free=("shares", "seeds", "output"))
    rows, paths = study(settings)
    text = table(rows) + "\n\n\\* 0 is outside Student's 95 % interval of the difference to plain SGD."
    write_atomically(settings.output / "table.md", text + "\n")
    kept = {"settings": vars(settings), "rows": rows, "paths": paths}
    write_atomically(settings.output / "results.json", json.dumps(kept, default=str, indent=1))
    draw(paths, settings.output / "adaptive.png")
    print(f"\n{text}\n\nWritten to {settings.output}: table.md, results.json, adaptive.png")


if __name__ == "__main__":
    main()
