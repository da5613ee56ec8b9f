"""Does ITDM pay? Plain SGD, ITDM and other regularizers, each tuned on held-out images, on clean and poisoned labels.

python -m experiments.alternatives
"""

import argparse
import dataclasses
import os
import pathlib
import shlex

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from experiments import figures, tables
from experiments.data import TITLES, load
from experiments.study import Trial, keep_tuned, run_trials, test_metrics, tune
from experiments.training import DefaultsHelp, Recipe, check_settings, positive

# The plain recipes overfit: they end with a training cross-entropy near 0.
RECIPES = {
    "digits": Recipe(filters=(16, 32), batch_size=100, epochs=60, learning_rate=0.1, momentum=0.9, milestones=(24, 48)),
    "fashion_mnist": Recipe(batch_size=100, epochs=25, learning_rate=0.05, momentum=0.9, milestones=(12, 20)),
}
SIZES = {"digits": (400, 100), "fashion_mnist": (5000, 2000)}  # training images, held-out ones to tune on

WEIGHTS = (0.05, 0.1, 0.2, 0.8, 1.6, 3.2, 6.4)  # λ, constant as in the paper
METHODS = {  # values to tune, from weak to strong; one: as it stands
    "plain SGD": [{}],
    "plain SGD, twice the batch": [{"batch": 2, "rate": rate} for rate in (0.125, 0.25, 0.5, 1, 2, 4, 8)],
    "label smoothing": [{"label_smoothing": share} for share in (0.0125, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6)],
    "weight decay": [{"weight_decay": decay} for decay in (1e-5, 1e-4, 0.001, 0.01, 0.03, 0.1, 0.3)],
    "dropout": [{"dropout": share} for share in (0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9)],
    "mixup": [{"mixup": alpha} for alpha in (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)],
    "SAM": [{"sam": radius} for radius in (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4)],
    "ITDM-c": [{"match_weight": weight} for weight in WEIGHTS],
    'ITDM-c, partner="split"': [{"match_weight": weight, "partner": "split"} for weight in WEIGHTS],
    "ITDM, the defaults": [{"match_weight": 0.8, "max_share": 1.0}],
}
COLUMNS = {
    "accuracy": ("test accuracy, %", 2),
    "cross_entropy": ("test cross-entropy", 4),
    "calibration_error": ("calibration error, %", 2),
    "seconds_per_epoch": ("seconds an epoch", 2),
}


def recipe_of(plain, setting):
    """The plain recipe with one setting of a method. Twice the batch goes with twice the epochs: as many steps as
    before."""
    setting = dict(setting)
    batch, rate = setting.pop("batch", 1), setting.pop("rate", 1)
    return dataclasses.replace(
        plain,
        batch_size=batch * plain.batch_size,
        epochs=batch * plain.epochs,
        milestones=tuple(batch * epoch for epoch in plain.milestones),
        learning_rate=rate * plain.learning_rate,
        **setting,
    )


def describe(setting):
    return (
        ", ".join(f"{key}={value:g}" for key, value in setting.items() if key not in ("partner", "batch", "max_share"))
        or "none"
    )


def study(name, poisoned, settings):
    """Tunes each method with seed 0 by cross-entropy on held-out images, and trains the best setting with every seed.

    Returns:
        One row for each method, and one for each setting tried in tuning.
    """
    size = settings.train_size
    sizes = SIZES[name] if size is None else (size, max(1, size // 4))
    plain = RECIPES[name]
    if settings.epochs:
        plain = dataclasses.replace(plain, epochs=settings.epochs)
    methods = {method: METHODS[method] for method in dict.fromkeys(["plain SGD", *(settings.methods or METHODS)])}
    data = load(name)
    held_out, tested = data.take(*sizes), data.take(sizes[0])
    prefix = f"{name}-poisoned{poisoned:g}"

    def run(data, jobs):
        """Trains `(method, setting, seed)` each."""
        trials = [
            Trial(
                f"{prefix}-{part}-{method}-{describe(setting)}-seed{seed}",
                recipe_of(plain, setting),
                data.poison(poisoned, seed),
                seed,
            )
            for method, setting, seed in jobs
        ]
        return run_trials(trials, settings.output, test_metrics)

    part, best, tried = "tuning", {}, []
    for method, grid in methods.items():
        if len(grid) == 1:
            best[method] = grid[0]
            continue
        tuned = {}

        def once(setting, method=method, tuned=tuned):
            (tuned[describe(setting)],) = run(held_out, [(method, setting, 0)])
            return tuned[describe(setting)]["cross_entropy"]

        best[method], in_order = tune(grid, once)
        for setting, _ in in_order:
            of = {"data": name, "poisoned": poisoned, "method": method, "setting": describe(setting)}
            tried.append({**of, **tuned[describe(setting)]})

    part = "test"
    jobs = [(method, best[method], seed) for method in methods for seed in range(settings.seeds)]
    results = list(zip(jobs, run(tested, jobs), strict=True))
    rows = []
    for method in methods:
        measured = [numbers for (m, _, _), numbers in results if m == method]
        row = {"data": name, "poisoned": poisoned, "method": method, "setting": describe(best[method])}
        row.update({key: tables.mean_and_deviation([m[key] for m in measured]) for key in measured[0]})
        rows.append(row)
    return rows, tried


def tuning_table(rows):
    lines = [[row["method"], row["setting"], f"{row['accuracy']:.2f}", f"{row['cross_entropy']:.4f}"] for row in rows]
    return tables.markdown(["method", "setting", "held-out accuracy, %", "held-out cross-entropy"], lines)


def table(rows):
    """One data set at one share of poisoned labels. The cost is that of all training, in plain SGD's."""
    lines = []
    for row in rows:
        cells = [tables.cell(row[key], digits) for key, (_, digits) in COLUMNS.items()]
        cost = row["seconds"][0] / rows[0]["seconds"][0]  # plain SGD is always the first
        lines.append([row["method"], row["setting"], *cells, f"{cost:.1f}"])
    return tables.markdown(["method", "tuned", *(title for title, _ in COLUMNS.values()), "cost of training"], lines)


def draw(rows, path):
    """Accuracy, cross-entropy and calibration error of every method, a column of panels a data set, a mark a
    share."""
    names = list(dict.fromkeys(row["data"] for row in rows))
    methods = list(dict.fromkeys(row["method"] for row in rows))
    shares = list(dict.fromkeys(row["poisoned"] for row in rows))
    figure, axes = figures.panels(3, len(names))
    for line, name in zip(axes.T, names, strict=True):
        for axis, key in zip(line, ("accuracy", "cross_entropy", "calibration_error"), strict=True):
            for index, share in enumerate(shares):
                chosen = [row for row in rows if row["data"] == name and row["poisoned"] == share]
                means, deviations = zip(*(row[key] for row in chosen), strict=True)
                heights = [methods.index(row["method"]) + 0.2 * (index - (len(shares) - 1) / 2) for row in chosen]
                colour = (figures.ITDM, "#d55e00", "#009e73")[index % 3]
                label = f"{share:.0%}"
                axis.errorbar(means, heights, xerr=deviations, fmt="os^"[index % 3], color=colour, ms=4, label=label)
            axis.set(yticks=range(len(methods)), yticklabels=methods if name == names[0] else [])
            axis.set(title=TITLES[name], xlabel=COLUMNS[key][0])
            axis.invert_yaxis()
    marks, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(marks, labels, title="training labels poisoned", ncols=3, loc="outside upper center")
    figures.save(figure, path)


def a_share(text):
    """Type of a command-line argument: a number in [0, 1]."""
    if not 0 <= float(text) <= 1:
        raise argparse.ArgumentTypeError(f"should be in 0..1, such as 0.2 for 20 %. Got: {text}")
    return float(text)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], formatter_class=DefaultsHelp)
    add = parser.add_argument
    add("--data", nargs="+", choices=list(RECIPES), default=list(RECIPES))
    add("--poisoned", type=a_share, nargs="+", default=[0.0, 0.2, 0.4], help="shares of labels replaced at random")
    names = f"all if not given: {shlex.join(METHODS)}"
    add("--methods", nargs="+", choices=list(METHODS), metavar="NAME", help=names)
    add("--seeds", type=positive, default=3, help="number of seeds, from 0")
    add("--epochs", type=positive, help="of plain SGD; the recipe's if not given")
    add(
        "--train-size", type=positive, help="number of training images; 400 digits, 5,000 of Fashion-MNIST if not given"
    )
    add("--output", type=pathlib.Path, default=pathlib.Path("results/alternatives"), help="folder for the results")
    settings = parser.parse_args()
    check_settings(settings, free=("data", "poisoned", "methods", "seeds", "output"))
    rows, tried, texts, tuning_texts = [], [], [], []
    for name in settings.data:
        for share in settings.poisoned:
            study_rows, study_tried = study(name, share, settings)
            rows, tried = rows + study_rows, tried + study_tried
            title = f"{TITLES[name]}, {share:.0%} of the training labels replaced at random"
            texts.append(f"{title}\n\n{table(study_rows)}")
            tuning_texts.append(f"{title}\n\n{tuning_table(study_tried)}")
            print(f"\n{texts[-1]}\n", flush=True)
    keep_tuned(settings, texts, tuning_texts, rows, tried)
    draw(rows, settings.output / "alternatives.png")
    print(f"Written to {settings.output}: table.md, tuning.md, results.json, alternatives.png")


if __name__ == "__main__":
    main()
