"""Does ITDM add to other regularizers? Each alone and with ITDM at its defaults, at the last epoch and stopped early.

    python -m experiments.combinations
    python -m experiments.combinations --data cifar10

5,000 training images, without augmentation. Each regularizer is tuned, alone and with ITDM, by cross-entropy on 2,000
held-out images at the last epoch: of three values the best, or a stronger one while the strongest is. It is trained
with every seed. Early stopping is the epoch of least cross-entropy on the held-out images of the same trainings. A
training is kept as it is finished.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from tqdm.auto import tqdm

from experiments import alternatives, figures, tables
from experiments.data import TITLES, load
from experiments.study import keep_tuned, test_metrics, tune
from experiments.training import check_settings, positive, write_atomically

METHODS = {  # values to tune, from weak to strong
    method: alternatives.METHODS[method]
    for method in ("plain SGD", "dropout", "weight decay", "label smoothing", "mixup")
}
ITDM = {"match_weight": 0.8, "max_share": 1.0}  # the defaults
RECIPE = alternatives.RECIPES["fashion_mnist"]
HELD_OUT = 2000
KEYS = {
    "accuracy": ("accuracy, %", 2, 1),
    "cross_entropy": ("cross-entropy", 3, -1),
}  # title, digits, more or less is better


class Mixed(keras.utils.PyDataset):
    """Mini-batches under mixup (Zhang et al., 2018): each sample a blend of two, images and labels alike.

    Args:
        x: Images, of shape `(samples, height, width, channels)`.
        y: One-hot labels, `(samples, classes)`.
        batch_size: Samples a batch.
        alpha: Of the Beta distribution that the blend is drawn from.
        seed: Integer.
    """

    def __init__(self, x, y, batch_size, alpha, seed):
        super().__init__()
        self.x, self.y, self.batch_size, self.alpha = x, y, batch_size, alpha
        self._rng = np.random.default_rng(seed)
        self.on_epoch_end()

    def __len__(self):
        return -(-len(self.x) // self.batch_size)

    def on_epoch_end(self):
        self._order = self._rng.permutation(len(self.x))

    def __getitem__(self, index):
        first = self._order[index * self.batch_size : (index + 1) * self.batch_size]
        second = self._rng.permutation(first)
        blend = self._rng.beta(self.alpha, self.alpha, size=len(first)).astype("float32")
        along = blend[:, None, None, None]
        x = along * self.x[first] + (1 - along) * self.x[second]
        return x, blend[:, None] * self.y[first] + (1 - blend[:, None]) * self.y[second]


class BestEpoch(keras.callbacks.Callback):
    """Keeps the weights of the epoch of least cross-entropy on held-out images."""

    def on_train_begin(self, logs=None):
        self.least, self.epoch, self.weights = np.inf, None, None

    def on_epoch_end(self, epoch, logs=None):
        value = logs["val_cross_entropy"]
        if value < self.least or self.weights is None:
            plain = getattr(self.model, "base_model", self.model)
            self.least, self.epoch, self.weights = np.fmin(value, self.least), epoch + 1, plain.get_weights()


def train(recipe, mixup, seed, data, held_out):
    """One training.

    Returns:
        Dictionary of "last" and "stopped", the numbers of `test_metrics`; "held_out", cross-entropy there after the
        last epoch; "epoch", the one of least; "seconds".
    """
    model = recipe.compiled_model(data, seed)
    x, y = data.training()
    stream = {"x": x, "y": y, "batch_size": recipe.batch_size}
    if mixup:
        stream = {"x": Mixed(x, y, recipe.batch_size, mixup, seed)}
    best = BestEpoch()
    begun = time.perf_counter()
    history = model.fit(
        **stream,
        epochs=recipe.epochs,
        validation_data=held_out.test(),
        validation_batch_size=1000,
        callbacks=[best],
        verbose=0,
    ).history
    seconds = time.perf_counter() - begun
    plain = getattr(model, "base_model", model)
    result = {"held_out": history["val_cross_entropy"][-1], "epoch": best.epoch, "seconds": seconds}
    result["last"] = test_metrics(plain, data)
    plain.set_weights(best.weights)
    result["stopped"] = test_metrics(plain, data)
    keras.backend.clear_session()
    return result


def middle(values, number):
    """So many of them, or one more where they cannot be in the middle; all where there are fewer."""
    left_out = max(0, len(values) - number) // 2
    return values[left_out : len(values) - left_out]


def study(name, settings):
    """Tunes and trains everything on one data set.

    Returns:
        One row for each method, alone and with ITDM; one for each training that was measured or tried.
    """
    data = load(name)
    size, epochs = settings.train_size, settings.epochs or RECIPE.epochs
    held_out = data.take(size, validation_size=max(1, size * HELD_OUT // 5000))
    data = dataclasses.replace(data.take(size), augment=False)

    def once(method, itdm, seed, setting):
        of = "-ITDM" if itdm else ""
        path = settings.output / "runs" / f"{name}-{method}{of}-{alternatives.describe(setting)}-{seed}.json"
        path = path.with_name(path.name.replace(" ", "_"))
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            setting = dict(setting)
            mixup = setting.pop("mixup", 0.0)
            scale = epochs / RECIPE.epochs
            milestones = tuple(max(1, round(scale * epoch)) for epoch in RECIPE.milestones)
            recipe = dataclasses.replace(
                RECIPE, epochs=epochs, milestones=milestones, **setting, **(ITDM if itdm else {})
            )
            write_atomically(path, json.dumps(train(recipe, mixup, seed, data, held_out)))
        seen.add(path)
        bar.update(len(seen) - bar.n)
        return json.loads(path.read_text(encoding="utf-8"))

    rows, tried_rows, seen = [], [], set()
    methods = dict.fromkeys(["plain SGD", *settings.methods])
    grids = {method: middle(METHODS[method], settings.values) for method in methods}
    at_least = sum(min(len(grid), 3) + settings.seeds - 1 for grid in grids.values())
    with tqdm(total=2 * at_least, unit="training", smoothing=0, desc=name) as bar:
        for method, grid in grids.items():
            for itdm in (False, True):
                best, tried = tune(grid, lambda setting, of=(method, itdm): once(*of, 0, setting)["held_out"])
                of = {"data": name, "method": method, "itdm": itdm}
                for setting, value in tried:
                    tried_rows.append({**of, "setting": alternatives.describe(setting), "held_out": value})
                measured = [once(method, itdm, seed, best) for seed in range(settings.seeds)]
                row = {**of, "setting": alternatives.describe(best), "epochs": [run["epoch"] for run in measured]}
                for when in ("last", "stopped"):
                    for key in KEYS:
                        row[f"{when}_{key}"] = [run[when][key] for run in measured]
                rows.append(row)
    return rows, tried_rows


def table(rows):
    """One data set: every method alone and with ITDM, after the last epoch and at the best one; mean over seeds."""
    header = ["", "tuned", "accuracy, %", "cross-entropy", "stopped early: accuracy, %", "cross-entropy", "epoch"]
    lines = []
    for row in rows:
        cells = [
            tables.cell(tables.mean_and_deviation(row[f"{when}_{key}"]), digits)
            for when in ("last", "stopped")
            for key, (_, digits, _) in KEYS.items()
        ]
        lines.append([title(row), row["setting"], *cells, f"{np.mean(row['epochs']):.0f}"])
    return tables.markdown(header, lines)


def title(row):
    if row["method"] == "plain SGD" and row["itdm"]:
        return "ITDM"
    return f"{row['method']} + ITDM" if row["itdm"] else row["method"]


def differences_table(rows):
    """One data set: both together minus each of the two, seed by seed, and which is better where that is clear."""
    header = ["", "accuracy, %", "cross-entropy", "stopped early: accuracy, %", "cross-entropy"]
    of = {(row["method"], row["itdm"]): row for row in rows}
    pairs = [("plain SGD", True, "plain SGD", False)]
    for method in dict.fromkeys(row["method"] for row in rows):
        if method != "plain SGD":
            pairs += [(method, True, method, False), (method, True, "plain SGD", True)]
    lines = []
    for *both, method, itdm in pairs:
        row, other = of[tuple(both)], of[method, itdm]
        cells = []
        for when in ("last", "stopped"):
            for key, (_, digits, better) in KEYS.items():
                difference = np.subtract(row[f"{when}_{key}"], other[f"{when}_{key}"])
                value = tables.mean_and_deviation(difference)
                verdict = ", better" if value[0] * better > 0 else ", worse"
                clear = tables.is_clear(value, len(difference))
                cells.append(tables.cell(value, digits, "+") + (verdict if clear else ""))
        lines.append([f"{title(row)} - {title(other)}", *cells])
    return tables.markdown(header, lines)


def tuning_table(rows):
    lines = [[title(row), row["setting"], f"{row['held_out']:.4f}"] for row in rows]
    return tables.markdown(["", "setting", "held-out cross-entropy"], lines)


def draw(rows, path):
    """Accuracy and cross-entropy of every method, a row of panels a data set: alone or with ITDM, last or stopped
    early."""
    names = list(dict.fromkeys(row["data"] for row in rows))
    methods = list(dict.fromkeys(row["method"] for row in rows))
    figure, axes = figures.panels(len(names), 2)
    for line, name in zip(axes, names, strict=True):
        for axis, (key, (label, _, _)) in zip(line, KEYS.items(), strict=True):
            for index, (when, itdm) in enumerate((w, i) for w in ("last", "stopped") for i in (False, True)):
                chosen = [row for row in rows if row["data"] == name and row["itdm"] == itdm]
                values = [tables.mean_and_deviation(row[f"{when}_{key}"]) for row in chosen]
                means, deviations = zip(*values, strict=True)
                axis.errorbar(
                    means,
                    np.arange(len(chosen)) + 0.17 * (index - 1.5),
                    xerr=deviations,
                    fmt="so"[itdm],
                    color=figures.ITDM if itdm else figures.PLAIN,
                    mfc="white" if when == "stopped" else None,
                    ms=5,
                    label=f"{('without', 'with ITDM')[itdm]}, {'last epoch' if when == 'last' else 'stopped early'}",
                )
            axis.set(yticks=range(len(methods)), yticklabels=methods if axis is line[0] else [])
            axis.set(title=TITLES[name], xlabel=f"test {label}")
            axis.invert_yaxis()
    figure.legend(*axes[0][0].get_legend_handles_labels(), ncols=2, loc="outside upper center")
    figures.save(figure, path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", nargs="+", choices=["fashion_mnist", "cifar10"], default=["fashion_mnist", "cifar10"])
    add("--methods", nargs="+", choices=list(METHODS), default=list(METHODS), help="beside plain SGD (default: all)")
    add("--seeds", type=positive, default=3, help="number of seeds, from 0 (default: 3)")
    add("--train-size", type=positive, default=5000, help="training images (default: 5000)")
    add("--epochs", type=positive, help=f"{RECIPE.epochs} if not given")
    add("--values", type=positive, default=7, help="values of a regularizer to try at most (default: 7)")
    add("--output", type=pathlib.Path, default=pathlib.Path("results/combinations"), help="folder for the results")
    settings = parser.parse_args()
    check_settings(settings, free=("data", "methods", "seeds", "values", "output"))
    rows, tried, texts, tuning_texts = [], [], [], []
    for name in settings.data:
        study_rows, study_tried = study(name, settings)
        rows, tried = rows + study_rows, tried + study_tried
        texts.append(f"{TITLES[name]}\n\n{table(study_rows)}\n\n{differences_table(study_rows)}")
        tuning_texts.append(f"{TITLES[name]}\n\n{tuning_table(study_tried)}")
        print(f"\n{texts[-1]}\n", flush=True)
    keep_tuned(settings, texts, tuning_texts, rows, tried)
    draw(rows, settings.output / "combinations.png")
    print(f"Written to {settings.output}: table.md, tuning.md, results.json, combinations.png")


if __name__ == "__main__":
    main()
