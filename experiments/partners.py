"""A second batch, or the halves of one? partner="stream" beside partner="split", at equal epochs and at equal time.

python -m experiments.partners

A step with a second batch does the work of two. For equal time, plain SGD and "split" are trained for twice the epochs
as well. At one λ the two are not equally strong: a half holds half the samples of a class, and MMD's bias grows as they
get fewer.
"""

import argparse
import dataclasses
import json
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np

from experiments import figures, tables
from experiments.alternatives import RECIPES, SIZES
from experiments.data import TITLES, load
from experiments.study import Trial, run_trials, test_metrics
from experiments.training import DefaultsHelp, check_settings, not_negative, positive, write_atomically

FAMILIES = {  # (partner, times the epochs) -> title, colour, marker; no partner: plain SGD
    (None, 1): ("plain SGD", figures.PLAIN, "s"),
    (None, 2): ("plain SGD, twice the epochs", "#000000", "D"),
    ("stream", 1): ('partner="stream"', figures.ITDM, "o"),
    ("split", 1): ('partner="split"', "#d55e00", "^"),
    ("split", 2): ('partner="split", twice the epochs', "#009e73", "v"),
}
COMPARISONS = {"equal epochs": 1, "equal time": 2}  # times the epochs of "split", beside "stream"
COLUMNS = {  # title, digits, and whether more or less is better
    "accuracy": ("test accuracy, %", 2, 1),
    "cross_entropy": ("test cross-entropy", 4, -1),
    "calibration_error": ("calibration error, %", 2, -1),
}


def recipe_of(plain, partner, times, match_weight, max_share=None):
    """The plain recipe, over `times` its epochs, with ITDM-c unless `partner` is `None`."""
    itdm = {"partner": partner, "match_weight": match_weight, "max_share": max_share} if partner else {}
    milestones = tuple(times * epoch for epoch in plain.milestones)
    return dataclasses.replace(plain, epochs=times * plain.epochs, milestones=milestones, **itdm)


def study(name, settings):
    """Trains everything on one data set with every seed.

    Returns:
        One row for each way to train, one for each λ and comparison of "split" with "stream", and one for each trial.
    """
    plain = RECIPES[name]
    if settings.epochs:
        plain = dataclasses.replace(plain, epochs=settings.epochs)
    data = load(name).take(settings.train_size or SIZES[name][0])
    weights = sorted({*settings.match_weight} - {0})
    trainings = [(partner, times, weight) for partner, times in FAMILIES for weight in (weights if partner else [0.0])]
    trials, keys = [], []
    for seed in range(settings.seeds):  # the outer loop, so that a busy hour of the machine falls on all alike
        for partner, times, weight in trainings:
            keys.append({"data": name, "partner": partner, "times": times, "match_weight": weight, "seed": seed})
            recipe = recipe_of(plain, partner, times, weight, settings.max_share)
            label = f"{name}-{partner or 'plain'}-lambda{weight:g}-epochs{recipe.epochs}-seed{seed}"
            trials.append(Trial(label, recipe, data, seed))
    numbers = run_trials(trials, settings.output, test_metrics)
    kept = [{**key, **measured} for key, measured in zip(keys, numbers, strict=True)]

    def values(partner, times, weight, measured):
        """Of every seed, in order."""
        wanted = (partner, times, weight)
        return np.array([t[measured] for t in kept if (t["partner"], t["times"], t["match_weight"]) == wanted])

    rows = []
    for partner, times, weight in trainings:
        training = (partner, times, weight)
        row = {"data": name, "partner": partner, "times": times, "match_weight": weight, "epochs": times * plain.epochs}
        row.update({key: tables.mean_and_deviation(values(*training, key)) for key in COLUMNS})
        row["collapsed"] = int(np.sum(values(*training, "accuracy") < 200 / data.num_classes))
        row["seeds"] = settings.seeds
        row["cost"] = float(np.median(values(*training, "seconds") / values(None, 1, 0.0, "seconds")))
        rows.append(row)
    differences = []
    for comparison, times in COMPARISONS.items():
        for weight in weights:
            row = {"data": name, "comparison": comparison, "match_weight": weight}
            for key in COLUMNS:
                difference = values("split", times, weight, key) - values("stream", 1, weight, key)
                row[key] = tables.mean_and_deviation(difference)
                row[f"{key}_clear"] = tables.is_clear(row[key], settings.seeds)
            differences.append(row)
    return rows, differences, kept


def table(rows):
    """One data set: every way to train. The cost is that of all training, in plain SGD's for the recipe's epochs.

    A seed learnt nothing if its test accuracy is less than twice that of guessing.
    """
    lines = []
    for row in rows:
        title = FAMILIES[row["partner"], 1][0]
        cells = [tables.cell(row[key], digits) for key, (_, digits, _) in COLUMNS.items()]
        lines.append(
            [title, f"{row['match_weight']:g}", f"{row['epochs']}", *cells, f"{row['cost']:.2f}", collapsed(row)]
        )
    titles = [title for title, _, _ in COLUMNS.values()]
    return tables.markdown(["training", "λ", "epochs", *titles, "cost of training", "learnt nothing"], lines)


def collapsed(row):
    return f"{row['collapsed']} of {row['seeds']} seeds" if row["collapsed"] else ""


def differences_table(rows):
    """One data set: "split" minus "stream" at each λ, seed by seed, and which is better where the seeds make it
    clear."""
    lines = []
    for row in rows:
        cells = []
        for key, (_, digits, better) in COLUMNS.items():
            winner = "split" if row[key][0] * better > 0 else "stream"
            cells.append(tables.cell(row[key], digits, "+") + (f", {winner} better" if row[f"{key}_clear"] else ""))
        lines.append([row["comparison"], f"{row['match_weight']:g}", *cells])
    return tables.markdown(["split - stream at", "λ", *(title for title, _, _ in COLUMNS.values())], lines)


def draw(rows, path):
    """What is reached at which cost: a column of panels a data set, a line over λ for each family.

    The costs of a family are nearly the same: its line stands at their median, and is spread out so that λ can be told.
    A λ at which some seeds learnt nothing is named, without a point: their mean would be far off the scale.
    """
    names = list(dict.fromkeys(row["data"] for row in rows))
    figure, axes = figures.panels(len(COLUMNS), len(names), height=2.9)
    for line, name in zip(axes.T, names, strict=True):
        for axis, key in zip(line, COLUMNS, strict=True):
            for (partner, times), (title, colour, marker) in FAMILIES.items():
                family = [r for r in rows if (r["data"], r["partner"], r["times"]) == (name, partner, times)]
                cost = np.median([row["cost"] for row in family]) if family else np.nan
                points = []
                for index, row in enumerate(family):
                    place, (mean, deviation) = cost + 0.11 * (index - (len(family) - 1) / 2), row[key]
                    style = {"ha": "center", "va": "bottom", "fontsize": 7}
                    if row["collapsed"]:
                        text = f"λ = {row['match_weight']:g}: {collapsed(row)} learnt nothing"
                        across = axis.get_xaxis_transform()
                        axis.text(place, 0.03, text, color=colour, rotation=90, transform=across, **style)
                        continue
                    points.append((place, mean, deviation))
                    if partner:
                        above = (place, mean + deviation)
                        axis.annotate(f"{row['match_weight']:g}", above, (0, 2), textcoords="offset points", **style)
                places, means, deviations = np.reshape(points, (-1, 3)).T
                axis.errorbar(places, means, deviations, color=colour, marker=marker, ms=5, lw=1, label=title)
            axis.margins(0.1, 0.08)
            axis.set(title=TITLES[name], xlabel="cost of training, in plain SGD's", ylabel=COLUMNS[key][0])
    handles, labels = axes[0][0].get_legend_handles_labels()
    title = "mean ± standard deviation over seeds; numbers are λ; a line stands at its median cost"
    figure.legend(handles, labels, title=title, title_fontsize=9, ncols=2, loc="outside upper center")
    figures.save(figure, path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], formatter_class=DefaultsHelp)
    add = parser.add_argument
    add("--data", nargs="+", choices=list(RECIPES), default=list(RECIPES))
    add(
        "--match-weight",
        type=not_negative,
        nargs="+",
        metavar="λ",
        default=[0.2, 0.4, 0.8, 1.6],
        help="values of λ; 0, plain SGD, is run in any case",
    )
    add("--max-share", type=not_negative, metavar="κ", help="of the bound; a constant λ if not given")
    add("--seeds", type=positive, default=5, help="number of seeds, from 0")
    add("--epochs", type=positive, help="of plain SGD; the recipe's if not given")
    add(
        "--train-size", type=positive, help="number of training images; 400 digits, 5,000 of Fashion-MNIST if not given"
    )
    add("--output", type=pathlib.Path, default=pathlib.Path("results/partners"), help="folder for the results")
    settings = parser.parse_args()
    check_settings(settings, free=("data", "match_weight", "seeds", "output"))
    rows, differences, trials, texts = [], [], [], []
    for name in settings.data:
        study_rows, study_differences, study_trials = study(name, settings)
        rows, differences, trials = rows + study_rows, differences + study_differences, trials + study_trials
        texts.append(f"{TITLES[name]}\n\n{table(study_rows)}\n\n{differences_table(study_differences)}")
        print(f"\n{texts[-1]}\n", flush=True)
    write_atomically(settings.output / "table.md", "\n\n".join(texts) + "\n")
    kept = {"settings": vars(settings), "rows": rows, "differences": differences, "trials": trials}
    write_atomically(settings.output / "results.json", json.dumps(kept, default=str, indent=1))
    draw(rows, settings.output / "partners.png")
    print(f"Written to {settings.output}: table.md, results.json, partners.png")


if __name__ == "__main__":
    main()
