"""What the examples share: networks, the sweep over λ and seeds, its table, its figure, and the command line."""

import argparse
import dataclasses
import json
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import matplotlib
import numpy as np
from keras import layers
from tqdm.auto import tqdm

import keras_itdm

matplotlib.use("Agg")
from matplotlib import pyplot as plt

LAST = 10  # results are means over the last ten evaluations, as in the paper


@dataclasses.dataclass
class Data:
    """Images of shape `(n, height, width, channels)` in [0, 1], and class indices `(n,)`."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray

    def take(self, train_size, seed=0):
        """The first `train_size` training images of a shuffled order that depends on `seed` alone."""
        if train_size is None or train_size == len(self.x_train):
            return self
        if not 0 < train_size <= len(self.x_train):
            raise SystemExit(f"--train-size should be in 1..{len(self.x_train)}. Received: {train_size}")
        order = np.random.default_rng(seed).permutation(len(self.x_train))[:train_size]
        return dataclasses.replace(self, x_train=self.x_train[order], y_train=self.y_train[order])


def small_cnn(input_shape, num_classes, filters=(32, 64, 128), dense_units=128):
    """Five layers: three convolutions with batch normalization, a dense layer, named "features", and the classifier.

    Weights and normalization start as PyTorch's do, in which the paper's networks were written.
    """
    options = {"kernel_initializer": keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")}
    model = keras.Sequential([keras.Input(input_shape)], name="small_cnn")
    for size in filters:
        model.add(layers.Conv2D(size, 3, padding="same", use_bias=False, **options))
        model.add(layers.BatchNormalization(momentum=0.9, epsilon=1e-5))
        model.add(layers.ReLU())
        model.add(layers.MaxPooling2D())
    model.add(layers.Flatten())
    model.add(layers.Dense(dense_units, activation="relu", name="features", **options))
    model.add(layers.Dense(num_classes, activation="softmax", **options))
    return model


def parser(description, **defaults):
    """Command line of an example, with its defaults."""
    result = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    result.add_argument("--train-size", type=int, help="number of training images; all of them if not given")
    result.add_argument("--epochs", type=int)
    result.add_argument("--batch-size", type=int)
    result.add_argument("--learning-rate", type=float, help="times 0.2 after 40 %% and 80 %% of the epochs")
    result.add_argument("--momentum", type=float)
    result.add_argument("--match-weight", type=float, nargs="+", metavar="λ", help="values of λ; 0 is run in any case")
    result.add_argument("--matching", choices=["class_conditional", "joint"])
    result.add_argument("--partner", choices=["stream", "split"])
    result.add_argument("--seeds", type=int, help="number of seeds, from 0")
    result.add_argument("--output", type=pathlib.Path, help="folder for the results")
    common = {"matching": "class_conditional", "partner": "stream", "momentum": 0.5, "batch_size": 150}
    result.set_defaults(**common, **defaults)
    return result


def train(data, settings, match_weight, seed, on_epoch=lambda logs: None):
    """Trains one network, without ITDM where `match_weight` is 0, and returns its history."""
    keras.utils.set_random_seed(seed)
    num_classes = int(data.y_train.max()) + 1
    model = small_cnn(data.x_train.shape[1:], num_classes, settings.filters, settings.dense_units)
    if match_weight > 0:
        model = keras_itdm.ITDMModel(
            model,
            feature_layer="features",
            matching=settings.matching,
            match_weight=match_weight,
            partner=settings.partner,
        )
    steps = -(-len(data.x_train) // settings.batch_size) * settings.epochs
    rate = keras.optimizers.schedules.PiecewiseConstantDecay(
        [int(0.4 * steps), int(0.8 * steps)], [settings.learning_rate * factor for factor in (1.0, 0.2, 0.04)]
    )
    model.compile(
        optimizer=keras.optimizers.SGD(rate, momentum=settings.momentum),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy", keras.metrics.SparseCategoricalCrossentropy(name="cross_entropy")],
    )
    history = model.fit(
        data.x_train,
        data.y_train,
        batch_size=settings.batch_size,
        epochs=settings.epochs,
        validation_data=(data.x_test, data.y_test),
        validation_batch_size=1000,
        verbose=0,
        callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: on_epoch(logs))],
    )
    return history.history


def run(name, data, settings):
    """Trains every λ with every seed, prints the table, and writes it, the histories and the curves to files."""
    data = data.take(settings.train_size)
    weights = sorted({0.0, *settings.match_weight})
    settings.output.mkdir(parents=True, exist_ok=True)
    histories = {weight: [] for weight in weights}
    with tqdm(total=len(weights) * settings.seeds * settings.epochs, unit="epoch", desc=name) as progress:
        for seed in range(settings.seeds):
            for weight in weights:

                def show(logs, weight=weight, seed=seed):
                    progress.set_postfix_str(f"λ={weight:g} seed={seed} test accuracy={logs['val_accuracy']:.4f}")
                    progress.update()

                histories[weight].append(train(data, settings, weight, seed, show))
    rows = table_rows(histories)
    table = markdown(rows)
    title = (
        f"{name}: {len(data.x_train)} training and {len(data.x_test)} test images, {settings.matching}, "
        f"{settings.epochs} epochs, {settings.seeds} seeds"
    )
    (settings.output / "table.md").write_text(f"{title}\n\n{table}\n")
    (settings.output / "results.json").write_text(
        json.dumps({"settings": vars(settings), "rows": rows, "histories": histories}, default=str, indent=1)
    )
    draw_curves(histories, title, settings.output / "curves.png")
    print(f"\n{title}\n\n{table}\n\n{verdict(rows, settings.seeds)}\n")
    print(f"Written to {settings.output}: table.md, results.json, curves.png")
    return rows


def table_rows(histories):
    """One row a λ: test accuracy and cross-entropy, and their differences to λ = 0, as mean and deviation over seeds."""

    def last(weight, key):
        return np.array([np.mean(history[key][-LAST:]) for history in histories[weight]])

    rows = []
    for weight in histories:
        accuracy, entropy = 100 * last(weight, "val_accuracy"), last(weight, "val_cross_entropy")
        values = {
            "accuracy": accuracy,
            "accuracy_difference": accuracy - 100 * last(0.0, "val_accuracy"),  # seed by seed: the same start
            "cross_entropy": entropy,
            "cross_entropy_difference": entropy - last(0.0, "val_cross_entropy"),
            "train_cross_entropy": last(weight, "cross_entropy"),
        }
        statistics = {key: [float(v.mean()), float(v.std(ddof=1)) if len(v) > 1 else 0.0] for key, v in values.items()}
        rows.append({"match_weight": weight, **statistics})
    return rows


def markdown(rows):
    """The paper's kind of table; ± is the standard deviation over seeds, of the paired differences for Δ."""

    def cell(value, digits, sign=""):
        return f"{value[0]:{sign}.{digits}f} ± {value[1]:.{digits}f}"

    lines = [
        "| λ | test accuracy, % | Δ | test cross-entropy | Δ | training cross-entropy |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        plain = row["match_weight"] == 0
        cells = [
            f"{row['match_weight']:g}" + (" (plain SGD)" if plain else ""),
            cell(row["accuracy"], 2),
            "" if plain else cell(row["accuracy_difference"], 2, "+"),
            cell(row["cross_entropy"], 4),
            "" if plain else cell(row["cross_entropy_difference"], 4, "+"),
            cell(row["train_cross_entropy"], 4),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def verdict(rows, num_seeds):
    """What the differences amount to, in words: they count beyond two standard errors of the mean over seeds."""
    if num_seeds < 2:
        return "One seed tells nothing about chance: run several before you believe a difference."
    lines = []
    for row in rows[1:]:
        judged = []
        for name, key, better in (("accuracy", "accuracy", 1), ("cross-entropy", "cross_entropy", -1)):
            mean, deviation = row[f"{key}_difference"]
            if abs(mean) <= 2 * deviation / num_seeds**0.5:
                judged.append(f"no clear difference in {name}")
            else:
                judged.append(f"{'better' if mean * better > 0 else 'worse'} {name}")
        lines.append(f"λ = {row['match_weight']:g} against plain SGD: {', '.join(judged)}.")
    return "\n".join(lines)


def draw_curves(histories, title, path):
    """Training and test cross-entropy by epoch: mean over seeds, and from the lowest to the highest (as Figure 1)."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for axis, key, name in ((axes[0], "cross_entropy", "training"), (axes[1], "val_cross_entropy", "test")):
        for index, weight in enumerate(histories):
            curves = np.array([history[key] for history in histories[weight]])
            epochs = np.arange(1, curves.shape[1] + 1)
            colour = plt.get_cmap("cividis")(index / max(1, len(histories) - 1) * 0.8)
            label = "plain SGD" if weight == 0 else f"ITDM, λ = {weight:g}"
            axis.plot(epochs, curves.mean(axis=0), color=colour, label=label, linestyle="--" if weight == 0 else "-")
            axis.fill_between(epochs, curves.min(axis=0), curves.max(axis=0), color=colour, alpha=0.2, linewidth=0)
        axis.set(xlabel="epoch", ylabel=f"{name} cross-entropy", yscale="log")
        axis.grid(alpha=0.3, which="both")
    axes[1].legend()
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=120)
    plt.close(figure)
