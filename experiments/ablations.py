"""Why does ITDM work? The choices that the paper leaves open, and the plainest terms that would do the same, on
Fashion-MNIST.

python -m experiments.ablations
"""

import argparse
import dataclasses
import json
import os
import pathlib
import shlex

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from keras import ops

from experiments import figures, tables
from experiments.alternatives import RECIPES, SIZES
from experiments.data import load
from experiments.study import Trial, run_trials, test_metrics
from experiments.training import DefaultsHelp, check_settings, not_negative, positive, write_atomically
from keras_itdm._mmd import root, squared_distances, squared_norms
from keras_itdm.kernels import GaussianMixture
from keras_itdm.losses import ClassConditionalMMD, class_indices

SAMPLES = 2000  # of the training and of the test images, for the MMD between them


class GradientIntoS1(ClassConditionalMMD):
    """Match_c whose gradient flows into the features of S1 alone."""

    def call(self, features, labels, partner_features, partner_labels):
        return super().call(features, labels, ops.stop_gradient(partner_features), partner_labels)


class OneBandwidth(ClassConditionalMMD):
    """Match_c with one σ, the median squared distance over the whole of both batches, for all classes."""

    def call(self, features, labels, partner_features, partner_labels):
        kernel = self._kernel_matrix(ops.concatenate([features, partner_features]))
        shares = [self._membership(y) for y in (labels, partner_labels)]
        counts = [ops.sum(share, axis=0) for share in shares]
        present = (counts[0] > 0) & (counts[1] > 0)
        first, second = (share / ops.maximum(n, 1.0) for share, n in zip(shares, counts, strict=True))
        weights = ops.where(present, ops.concatenate([first, -second]), 0.0)
        return ops.mean(root(ops.sum(weights * ops.matmul(kernel, weights), axis=0)))  # w' K w, class by class

    def _membership(self, labels):
        return ops.one_hot(class_indices(labels, self.num_classes), self.num_classes)

    def _kernel_matrix(self, pooled):
        pooled = pooled - ops.mean(pooled, axis=0)
        norms = squared_norms(pooled)
        distances = squared_distances(pooled, pooled, norms, norms)
        n = ops.shape(pooled)[0]
        in_order = ops.sort(ops.reshape(ops.stop_gradient(distances), (-1,)))  # n zeros of the diagonal first
        return self.kernel(distances, ops.maximum(in_order[n + (n * n - n) // 2], 1e-12))


class Compactness(OneBandwidth):
    """1 - mean kernel within a class of S1, over the classes: no second batch, and nothing is matched.

    With `as_bias` it is brought to the form that the biased estimate of MMD takes for two batches of one distribution
    and as many samples `n` of a class as S1 has: √((1/n + 1/n) (1 - mean kernel)).
    """

    def __init__(self, as_bias=False, **kwargs):
        super().__init__(**kwargs)
        self.as_bias = as_bias

    def call(self, features, labels, partner_features, partner_labels):  # with partner="split": the halves of S1
        kernel = self._kernel_matrix(ops.concatenate([features, partner_features]))
        member = ops.concatenate([self._membership(labels), self._membership(partner_labels)])
        n = ops.sum(member, axis=0)
        within = (ops.sum(member * ops.matmul(kernel, member), axis=0) - n) / ops.maximum(n * (n - 1.0), 1.0)
        spread = ops.where(n > 1, 1.0 - within, 0.0)
        return ops.mean(root(2.0 / ops.maximum(n, 1.0) * spread) if self.as_bias else spread)

    def get_config(self):
        return {**super().get_config(), "as_bias": self.as_bias}


def variants(base, default_weight):
    """Name -> recipe. What a row does not say is as in "ITDM-c": biased, with the root, σ a class, both gradients."""

    def itdm(matching="class_conditional", weight=default_weight, **changes):
        return dataclasses.replace(base, matching=matching, match_weight=weight, **changes)

    def bias(weight=default_weight, **options):
        return itdm(ClassConditionalMMD(squared=True, **options), weight)

    rows = {
        "plain SGD": base,
        "ITDM-c": itdm(),
        f"ITDM-c, λ = {2 * default_weight:g}": itdm(weight=2 * default_weight),
        "squared": bias(),
        f"squared, λ = {4 * default_weight:g}": bias(4 * default_weight),
        "unbiased, squared": bias(unbiased=True),
        f"unbiased, squared, λ = {4 * default_weight:g}": bias(4 * default_weight, unbiased=True),
        "one σ for the whole batch": itdm(OneBandwidth()),
        "gradient into S1 alone": itdm(GradientIntoS1()),
        "one kernel": itdm(ClassConditionalMMD(kernel=GaussianMixture(multipliers=(1,)))),
        "features before activation": itdm(feature_layer="preactivation"),
        "ITDM-j": itdm("joint"),
        'partner="split"': itdm(partner="split"),
        "the defaults (max_share=1)": itdm(max_share=1.0),
        'partner="split", max_share=1': itdm(partner="split", max_share=1.0),
        "no S2: bias of the estimate": itdm(Compactness(as_bias=True), partner="split"),
        f"no S2: compactness, λ = {default_weight / 4:g}": itdm(Compactness(), default_weight / 4, partner="split"),
        f"no S2: compactness, λ = {default_weight:g}": itdm(Compactness(), partner="split"),
    }
    for batch_size in (50, 200, 600):
        rows[f"plain SGD, batch {batch_size}"] = dataclasses.replace(base, batch_size=batch_size)
        rows[f"ITDM-c, batch {batch_size}"] = itdm(batch_size=batch_size)
    return rows


def measure(model, data):
    """Test metrics, and how the features lie: spread within and between classes, and MMD of training to test data."""
    extractor = keras.Model(model.inputs, model.get_layer("features").output)
    features, labels = {}, {}
    for part, images, y in (("train", data.x_train, data.y_train), ("test", data.x_test, data.y_test)):
        x = data.scale * images.astype("float32")
        features[part], labels[part] = extractor.predict(x, batch_size=1000, verbose=0).astype("float64"), y
    result = test_metrics(model, data)
    for part in features:
        within, between = spread(features[part], labels[part])
        result |= {f"{part}_within": within, f"{part}_between": between, f"{part}_share": within / (within + between)}
    mmd = ClassConditionalMMD(num_classes=data.num_classes, squared=True, unbiased=True)
    result["train_test_mmd"] = float(
        mmd(*(part[:SAMPLES] for name in ("train", "test") for part in (features[name], labels[name])))
    )
    return result


def spread(features, labels):
    """Mean squared distance of features `(n, d)` to the mean of their class, and of that to the mean of all."""
    classes, of_sample = np.unique(labels, return_inverse=True)
    means = np.stack([features[labels == k].mean(axis=0) for k in classes])[of_sample]
    within = np.mean(np.sum((features - means) ** 2, axis=1))
    between = np.mean(np.sum((means - features.mean(axis=0)) ** 2, axis=1))
    return float(within), float(between)


COLUMNS = {
    "accuracy": ("test accuracy, %", 2),
    "cross_entropy": ("test cross-entropy", 4),
    "calibration_error": ("calibration error, %", 2),
    "train_share": ("within-class share, training", 3),
    "test_share": ("within-class share, test", 3),
    "train_test_mmd": ("train/test MMD²", 4),
}


def table(rows):
    lines = [[row["name"], *(tables.cell(row[key], digits) for key, (_, digits) in COLUMNS.items())] for row in rows]
    return tables.markdown(["variant", *(title for title, _ in COLUMNS.values())], lines)


def draw_effects(rows, path):
    """Test cross-entropy of every variant, with its standard deviation, beside those of plain SGD and ITDM-c."""
    figure, axes = figures.panels(1, 2, height=6)
    for axis, key in zip(axes[0], ("cross_entropy", "calibration_error"), strict=True):
        means, deviations = np.array([row[key] for row in rows]).T
        for index, colour, style in ((0, figures.PLAIN, "--"), (1, figures.ITDM, "-")):
            axis.axvline(means[index], color=colour, linestyle=style, linewidth=1, label=rows[index]["name"])
        colours = [figures.PLAIN if row["name"].startswith("plain") else figures.ITDM for row in rows]
        axis.barh(range(len(rows)), means, xerr=deviations, color=colours, height=0.6, alpha=0.7, capsize=2)
        axis.set(yticks=range(len(rows)), yticklabels=[row["name"] for row in rows] if key == "cross_entropy" else [])
        axis.set(xlabel=COLUMNS[key][0])
        axis.invert_yaxis()
    figure.legend(*axes[0][0].get_legend_handles_labels(), ncols=2, loc="outside upper center")
    figures.save(figure, path)


GROUPS = {  # by the beginning of a row's name; the rest compare two batches, with bias
    "plain SGD": ("plain SGD", figures.PLAIN, "s"),
    "unbiased": ("unbiased", "#000000", "x"),
    "no S2": ("no second batch", "#d55e00", "^"),
    "ITDM-j": ("ITDM-j", "#cc79a7", "D"),
    "": ("class by class, biased", figures.ITDM, "o"),
}


def draw_features(rows, path):
    """Test cross-entropy against how the features lie: does it go with compact classes, or with train like test?"""
    figure, axes = figures.panels(1, 2, height=3.4)
    for axis, key in zip(axes[0], ("train_share", "train_test_mmd"), strict=True):
        for row in rows:
            label, colour, marker = next(group for start, group in GROUPS.items() if row["name"].startswith(start))
            axis.scatter(row[key][0], row["cross_entropy"][0], color=colour, marker=marker, s=28, label=label)
        axis.set(xlabel=COLUMNS[key][0], ylabel=COLUMNS["cross_entropy"][0])
    handles, labels = axes[0][0].get_legend_handles_labels()
    groups = dict(zip(labels, handles, strict=True))
    figure.legend(groups.values(), groups, ncols=3, loc="outside upper center")
    figures.save(figure, path)


def main():
    parser = argparse.ArgumentParser(
        description="Why does ITDM work? Ablations on Fashion-MNIST.",
        formatter_class=DefaultsHelp,
    )
    add = parser.add_argument
    add("--data", choices=list(RECIPES), default="fashion_mnist")
    names = f"rows of the table at λ = 0.8, all if not given: {shlex.join(variants(RECIPES['fashion_mnist'], 0.8))}"
    add("--variants", nargs="+", metavar="NAME", help=names)
    add("--match-weight", type=not_negative, default=0.8, metavar="λ")
    add("--seeds", type=positive, default=3, help="number of seeds, from 0")
    add("--train-size", type=positive, help="number of training images; 5,000 of Fashion-MNIST if not given")
    add("--epochs", type=positive, help="the recipe's if not given")
    add("--output", type=pathlib.Path, default=pathlib.Path("results/ablations"), help="folder for the results")
    settings = parser.parse_args()
    base = RECIPES[settings.data]
    if settings.epochs:
        base = dataclasses.replace(base, epochs=settings.epochs)
    chosen = variants(base, settings.match_weight)
    unknown = set(settings.variants or []) - set(chosen)
    if unknown:
        parser.error(f"--variants should be among {list(chosen)}. Got: {sorted(unknown)}")
    chosen = {name: chosen[name] for name in settings.variants or chosen}
    data = load(settings.data).take(settings.train_size or SIZES[settings.data][0])
    check_settings(settings, free=("variants", "seeds", "output"))
    jobs = [(name, seed) for name in chosen for seed in range(settings.seeds)]
    trials = [Trial(f"{name}-seed{seed}", chosen[name], data, seed) for name, seed in jobs]
    results = list(zip(jobs, run_trials(trials, settings.output, measure), strict=True))
    rows = []
    for name in chosen:
        measured = [numbers for (n, _), numbers in results if n == name]
        rows.append(
            {"name": name, **{key: tables.mean_and_deviation([m[key] for m in measured]) for key in measured[0]}}
        )
    text = table(rows)
    write_atomically(settings.output / "table.md", text + "\n")
    kept = {"settings": vars(settings), "rows": rows}
    write_atomically(settings.output / "results.json", json.dumps(kept, default=str, indent=1))
    draw_effects(rows, settings.output / "effects.png")
    draw_features(rows, settings.output / "features.png")
    print(f"\n{text}\n\nWritten to {settings.output}: table.md, results.json, effects.png, features.png")


if __name__ == "__main__":
    main()
