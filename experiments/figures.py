"""The paper's figures, in one style: colour-blind safe, and legible where they are printed without colour or shown on a
phone, with no more than two panels side by side and type of 10 points on a page of 6 inches."""

import matplotlib
import numpy as np

from experiments import tables

matplotlib.use("Agg")
from matplotlib import pyplot as plt

STYLE = {
    "font.size": 10,
    "axes.titlesize": 10,
    "legend.fontsize": 9,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "figure.dpi": 120,
    "figure.constrained_layout.use": True,
}
PAGE = 6.2  # inches
PLAIN, ITDM = "#555555", "#0072b2"  # of Okabe and Ito's palette, safe for the colour-blind
CLASS_COLOURS = [
    "#000000",
    "#e69f00",
    "#56b4e9",
    "#009e73",
    "#f0e442",
    "#0072b2",
    "#d55e00",
    "#cc79a7",
    "#999999",
    "#7b4f00",
]
CLASS_MARKERS = "os^vD<>Pp*"


def panels(rows, columns, height=2.7):
    """A figure as wide as a page, and its axes, `(rows, columns)`. The height is that of a row, in inches."""
    plt.rcParams.update(STYLE)
    return plt.subplots(rows, columns, figsize=(PAGE, height * rows), squeeze=False)


def save(figure, path):
    figure.savefig(path)
    plt.close(figure)


def curves(cases, path):
    """Figure 1: training and test cross-entropy by epoch; mean over seeds, and from the lowest to the highest."""
    figure, axes = panels(len(cases), 2)
    for (left, right), case in zip(axes, cases, strict=True):
        for axis, key, name in ((left, "cross_entropy", "training"), (right, "val_cross_entropy", "test")):
            for index, (weight, results) in enumerate(case.results.items()):
                values = np.array([result["history"][key] for result in results])
                epochs = np.arange(1, values.shape[1] + 1)
                colour = plt.get_cmap("viridis")(1 - index / max(1, len(case.results) - 1)) if weight else PLAIN
                label = f"ITDM, λ = {weight:g}" if weight else "plain SGD"
                axis.plot(epochs, values.mean(axis=0), "-" if weight else "--", color=colour, label=label)
                axis.fill_between(epochs, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.15, lw=0)
            axis.set(title=case.title, xlabel="epoch", ylabel=f"{name} cross-entropy", yscale="log")
        right.legend(fontsize=7)
    save(figure, path)


def by_match_weight(cases, rows, path):
    """Figures 3, 4, 5 and 7: accuracy and cross-entropy against λ, with a standard deviation over seeds."""
    figure, axes = panels(len(cases), 2)
    for (left, right), case in zip(axes, cases, strict=True):
        chosen = [row for row in rows if row["title"] == case.title]
        weights = [row["match_weight"] for row in chosen]
        for axis, key, marker, label in (
            (left, "accuracy", "o", None),
            (right, "cross_entropy", "o", "test"),
            (right, "train_cross_entropy", "s", "training"),
        ):
            values, deviations = np.array([row[key] for row in chosen]).T
            filled = "white" if label == "training" else ITDM
            axis.errorbar(weights, values, deviations, color=ITDM, marker=marker, mfc=filled, capsize=3, label=label)
            if label != "training":
                axis.axhline(values[0], color=PLAIN, linestyle="--", linewidth=1, label="test, plain (λ = 0)")
        left.set(title=case.title, xlabel="λ", ylabel="test accuracy, %", xticks=weights)
        right.set(title=case.title, xlabel="λ", ylabel="cross-entropy", xticks=weights, ylim=(0, None))
        right.legend(fontsize=8)
    save(figure, path)


def projections(cases, rows, path):
    """Figures 2 and 6: t-SNE of the features of test images, without ITDM and with it at the λ of best accuracy."""
    from sklearn.manifold import TSNE

    figure, axes = panels(len(cases), 2, height=3)
    for line, case in zip(axes, cases, strict=True):
        weights = [row["match_weight"] for row in (tables.plain(case, rows), tables.best(case, rows)) if row]
        for axis, weight in zip(line, weights, strict=False):
            kept = np.load(case.folders[weight][0] / "features.npz")
            features, labels = kept["features"], kept["labels"]
            axis.set_title(f"{case.title}, " + (f"ITDM, λ = {weight:g}" if weight else "plain SGD"))
            if not np.isfinite(features).all():
                axis.text(0.5, 0.5, "training diverged", ha="center")
                continue
            perplexity = min(30, (len(features) - 1) / 3)
            points = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(features)
            scatter_classes(axis, points, labels)
    points, names = axes[0][0].get_legend_handles_labels()
    figure.legend(points, names, title="class", markerscale=2, ncols=10, loc="outside lower center", columnspacing=1)
    save(figure, path)


def scatter_classes(axis, points, labels):
    """Points `(n, 2)`, each class in a colour and a shape of its own."""
    for k in np.unique(labels):
        colour, marker = CLASS_COLOURS[k % len(CLASS_COLOURS)], CLASS_MARKERS[k % len(CLASS_MARKERS)]
        axis.scatter(*points[labels == k].T, s=7, color=colour, marker=marker, linewidths=0, alpha=0.7, label=str(k))
    axis.set(xlabel="t-SNE 1", ylabel="t-SNE 2", xticks=[], yticks=[])
    axis.grid(False)
