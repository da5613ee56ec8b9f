"""KerasTuner chooses λ, the matching and the feature layer on digits; the best is then trained over seeds beside λ = 0.

python -m experiments.tune
"""

import argparse
import dataclasses
import json
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras_tuner

from experiments import tables
from experiments.alternatives import RECIPES, SIZES
from experiments.data import load
from experiments.study import Trial, run_trials, test_metrics
from experiments.training import DefaultsHelp, check_settings, positive, write_atomically

COLUMNS = {"accuracy": ("test accuracy, %", 2), "cross_entropy": ("test cross-entropy", 4)}


def hyperparameters(hp):
    """What is chosen, by the names of `Recipe`."""
    return {
        "match_weight": hp.Float("match_weight", 0.05, 1.6, sampling="log"),
        "matching": hp.Choice("matching", ["class_conditional", "joint"]),
        "feature_layer": hp.Choice("feature_layer", ["features", "preactivation"]),
    }


def tune(plain, data, settings):
    """A search by cross-entropy on held-out images; an earlier one in the same folder is taken up again."""

    def build(hp):
        """What KerasTuner asks for: a compiled model, here an `ITDMModel`."""
        return dataclasses.replace(plain, **hyperparameters(hp)).compiled_model(data, seed=0)

    tuner = keras_tuner.BayesianOptimization(
        build,
        objective=keras_tuner.Objective("val_cross_entropy", "min"),
        max_trials=settings.trials,
        seed=0,
        directory=settings.output,
        project_name="search",
    )
    tuner.search(
        *data.training(),
        validation_data=data.test(),
        epochs=plain.epochs,
        batch_size=plain.batch_size,
        verbose=settings.verbose,
    )
    return tuner


def compare(plain, best, data, settings):
    """One row for λ = 0 and one for the best, trained on all training images and measured on the test images."""
    recipes = {"λ = 0": plain, "best trial": best}
    trials = [
        Trial(f"{name}-seed{seed}", recipe, data, seed)
        for name, recipe in recipes.items()
        for seed in range(settings.seeds)
    ]
    numbers = run_trials(trials, settings.output, test_metrics)
    rows = []
    for index, name in enumerate(recipes):
        measured = numbers[index * settings.seeds : (index + 1) * settings.seeds]
        row = {"name": name, **{key: tables.mean_and_deviation([m[key] for m in measured]) for key in COLUMNS}}
        for key in COLUMNS:
            differences = [m[key] - base[key] for m, base in zip(measured, numbers, strict=False)]
            row[f"{key}_difference"] = tables.mean_and_deviation(differences)
        rows.append(row)
    return rows


def table(rows):
    header, lines = ["training"], [[row["name"]] for row in rows]
    for key, (title, digits) in COLUMNS.items():
        header += [title, "Δ"]
        for line, row in zip(lines, rows, strict=True):
            line.append(tables.cell(row[key], digits))
            line.append(tables.cell(row[f"{key}_difference"], digits, "+") if row is not rows[0] else "")
    return tables.markdown(header, lines)


def main():
    parser = argparse.ArgumentParser(
        description="KerasTuner chooses λ, the matching and the feature layer on digits.",
        formatter_class=DefaultsHelp,
    )
    add = parser.add_argument
    add("--trials", type=positive, default=12, help="hyperparameters to try")
    add("--seeds", type=positive, default=5, help="number of seeds, from 0, of the comparison with λ = 0")
    add("--train-size", type=positive, default=SIZES["digits"][0], help="training images; a quarter as many to tune on")
    add("--epochs", type=positive, help="the recipe's if not given")
    add("--verbose", type=int, choices=[0, 1, 2], default=0, help="of the search's training")
    add("--output", type=pathlib.Path, default=pathlib.Path("results/tune"), help="folder for the results")
    settings = parser.parse_args()
    check_settings(settings, free=("trials", "seeds", "verbose", "output"))
    plain = RECIPES["digits"]
    if settings.epochs:
        plain = dataclasses.replace(plain, epochs=settings.epochs)
    data = load("digits")
    tuner = tune(plain, data.take(settings.train_size, validation_size=settings.train_size // 4), settings)
    (trial,) = tuner.oracle.get_best_trials(1)
    (model,) = tuner.get_best_models(1)  # an ITDMModel, with the weights of its best epoch
    chosen = hyperparameters(trial.hyperparameters)
    best = ", ".join(f"{name} = {value}" for name, value in chosen.items())
    rows = compare(plain, dataclasses.replace(plain, **chosen), data.take(settings.train_size), settings)
    reloaded = test_metrics(model.base_model, data)
    text = (
        f"Best of {len(tuner.oracle.get_best_trials(settings.trials))} trials: {best}\n\nheld-out cross-entropy of its "
        f"best epoch {trial.score:.4f}; its weights, read back, on the test images: {reloaded['cross_entropy']:.4f}\n\n"
        f"{table(rows)}"
    )
    write_atomically(settings.output / "table.md", text + "\n")
    kept = {"settings": vars(settings), "best": chosen, "score": trial.score, "reloaded": reloaded, "rows": rows}
    write_atomically(settings.output / "results.json", json.dumps(kept, default=str, indent=1))
    print(f"\n{text}\n\nWritten to {settings.output}: table.md, results.json")


if __name__ == "__main__":
    main()
