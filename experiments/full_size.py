"""The paper's data at full size, for a GPU that is lent for minutes: Fashion-MNIST and CIFAR-10, plain and with ITDM,
by Keras alone, without TensorFlow, and with every epoch kept.

    python -m experiments.full_size fashion_mnist --network cnn5_pooled
    python -m experiments.full_size cifar10 --network resnet18 --epochs 60 --rate 0.1 --mixed-precision
    python -m experiments.full_size --table results/full_size

A training is kept as a file under --output; one that is there is not trained again, and one that another process trains
is passed over, so several may run at once. The recipe is the paper's: SGD with a momentum of 0.5 and batches of 150;
for grey images a rate of 0.01 that falls to a fifth at 40 and 80 % of the epochs, for colour ones to a tenth at a third
and two thirds. (The paper's 0.5 for colour images is more than some networks bear: --rate.) Images of CIFAR-10 are
cropped and flipped.
"""

import argparse
import json
import operator
import pathlib
import time
import types

import keras
import numpy as np
from filelock import FileLock, Timeout
from keras import layers, ops

from experiments.networks import NETWORKS
from experiments.zoo import arrays_in
from keras_itdm import ITDMModel

PAPER = {f"λ = {weight}": {"match_weight": weight, "max_share": None} for weight in (0.2, 0.4, 0.6, 0.8, 1.0)}
VARIANTS = {
    "plain": None,
    **PAPER,
    "the defaults": {},
    "split, λ = 0.4": {"partner": "split", "match_weight": 0.4, "max_share": None},
    "split, λ = 0.8": {"partner": "split", "match_weight": 0.8, "max_share": None},
    "split": {"partner": "split"},
}


class CropAndFlip(layers.Layer):
    """In training, crops each image at random from a black margin of 4 pixels, and flips it with even chance."""

    def __init__(self, margin=4, **options):
        super().__init__(**options)
        self.margin = margin
        self.seeds = keras.random.SeedGenerator(seed=0)

    def call(self, images, training=None):
        if not training:
            return images
        (count, side), margin = (ops.shape(images)[0], images.shape[1]), self.margin
        padded = ops.pad(images, [[0, 0], [margin, margin], [margin, margin], [0, 0]])
        corners = keras.random.randint((2, count, 1), 0, 2 * margin + 1, seed=self.seeds)
        rows, columns = (corner + ops.arange(side) for corner in corners)
        flips = keras.random.uniform((count, 1), seed=self.seeds) < 0.5
        columns = ops.where(flips, columns[:, ::-1], columns)
        cropped = ops.take_along_axis(padded, rows[:, :, None, None], axis=1)
        return ops.take_along_axis(cropped, columns[:, None, :, None], axis=2)


class Stopwatch(keras.callbacks.Callback):
    """Notes the seconds that each epoch took, with its evaluation."""

    def on_train_begin(self, logs=None):
        self.seconds, self._began = [], time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        now = time.perf_counter()
        self.seconds.append(round(now - self._began, 3))
        self._began = now


def network(name, shape, augment):
    """One of `NETWORKS`, that takes bytes and augments them itself: on the GPU, which is not kept waiting for data."""
    inputs = keras.Input(shape, dtype="uint8")
    x = layers.Rescaling(1 / 255)(inputs)
    x = CropAndFlip()(x) if augment else x
    inner = NETWORKS[name](shape)
    return keras.Model(inputs, inner(x)), f"{inner.name}/features"


def train(settings, variant, seed, data):
    (x, y), (x_test, y_test) = data
    keras.config.set_dtype_policy("mixed_bfloat16" if settings.mixed_precision else "float32")
    keras.utils.set_random_seed(seed)
    grey = settings.data == "fashion_mnist"
    model, features = network(settings.network, x.shape[1:], augment=not grey)
    base = model
    if VARIANTS[variant] is not None:
        model = ITDMModel(model, features, **VARIANTS[variant])
    steps = -(-len(x) // settings.batch_size) * settings.epochs
    falls, decay = ((0.4, 0.8), 0.2) if grey else ((1 / 3, 2 / 3), 0.1)
    rates = [settings.rate * decay**index for index in range(3)]
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([round(steps * share) for share in falls], rates)
    model.compile(
        keras.optimizers.SGD(schedule, momentum=0.5),
        "sparse_categorical_crossentropy",
        metrics=["accuracy", keras.metrics.SparseCategoricalCrossentropy(name="cross_entropy")],
    )
    watch = Stopwatch()
    history = model.fit(
        x,
        y,
        batch_size=settings.batch_size,
        epochs=settings.epochs,
        validation_data=(x_test, y_test),
        validation_batch_size=1000,
        callbacks=[watch],
        verbose=0,
    ).history
    return {
        "data": settings.data,
        "images": len(x),
        "network": settings.network,
        "variant": variant,
        "seed": seed,
        "epochs": settings.epochs,
        "rate": settings.rate,
        "dtype_policy": base.dtype_policy.name,
        "backend": keras.backend.backend(),
        "seconds": watch.seconds,
        "parameters": base.count_params(),
        "history": {key: [round(float(value), 5) for value in values] for key, values in history.items()},
    }


def run(settings):
    data = None
    for seed in settings.seeds:
        for variant in settings.variants:
            name = f"{settings.data}-{settings.network}-{settings.epochs}epochs-{variant}-{seed}"
            for character, instead in {" ": "", "λ=": "lambda", ",": "-"}.items():
                name = name.replace(character, instead)
            path = settings.output / f"{name}.json"
            settings.output.mkdir(parents=True, exist_ok=True)
            try:
                with FileLock(path.with_suffix(".lock"), timeout=0):
                    if path.exists():
                        continue
                    data = data or arrays_in(settings.data_dir)(settings.data)
                    kept = train(settings, variant, seed, data)
                    path.with_suffix(".part").write_text(json.dumps(kept) + "\n", encoding="utf-8")
                    path.with_suffix(".part").replace(path)
                    print(
                        name,
                        {key: values[-1] for key, values in kept["history"].items()},
                        sum(kept["seconds"]),
                        flush=True,
                    )
            except Timeout:
                continue
            keras.backend.clear_session()


def trainings(folder):
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]


def table(kept):
    """Of each data set, network and number of epochs: the last epoch, and that of least test cross-entropy, where one
    might stop."""
    lines = []
    kind = operator.itemgetter("data", "network", "epochs")
    for group in sorted(set(map(kind, kept))):
        (data, name, _), runs = group, [run for run in kept if kind(run) == group]
        one = runs[0]
        lines += [
            f"{data}, {one['images']} images, {name}, {one['parameters']:,} parameters, {one['epochs']} epochs, "
            f"rate {one['rate']:g}, {one['dtype_policy']}, {one['backend']}:",
            "",
            "| | seeds | accuracy, % | cross-entropy | of training | least cross-entropy (epoch) | s an epoch |",
            "|---|---|---|---|---|---|---|",
        ]
        elsewhere = {run["backend"] for run in runs} - {one["backend"]}
        for variant in VARIANTS:
            for backend in (one["backend"], *sorted(elsewhere)):
                chosen = [run for run in runs if (run["variant"], run["backend"]) == (variant, backend)]
                if not chosen:
                    continue
                histories = [run["history"] for run in chosen]
                last = lambda key: np.mean([history[key][-1] for history in histories])  # noqa: B023, E731
                least = [np.argmin(history["val_cross_entropy"]) for history in histories]
                lowest = np.mean([min(history["val_cross_entropy"]) for history in histories])
                seconds = np.mean([np.median(run["seconds"]) for run in chosen])
                name = variant if backend == one["backend"] else f"{variant}, on {backend}, CPU"
                lines.append(
                    f"| {name} | {len(chosen)} | {100 * last('val_accuracy'):.2f} | {last('val_cross_entropy'):.3f} "
                    f"| {last('cross_entropy'):.3f} | {lowest:.3f} ({np.mean(least) + 1:.0f}) | {seconds:.1f} |"
                )
        lines.append("")
    return "\n".join(lines)


def draw(kept, path):
    """Figure 4, of Fashion-MNIST: what the last epoch has, against constant λ."""
    from experiments import figures, tables

    rows, weights = [], {"plain": 0.0, **{variant: options["match_weight"] for variant, options in PAPER.items()}}
    for variant, match_weight in weights.items():
        chosen = [run["history"] for run in kept if (run["data"], run["variant"]) == ("fashion_mnist", variant)]
        if chosen:
            row = {"title": "Fashion-MNIST", "match_weight": match_weight}
            for key, share, name in (
                ("val_accuracy", 100, "accuracy"),
                ("val_cross_entropy", 1, "cross_entropy"),
                ("cross_entropy", 1, "train_cross_entropy"),
            ):
                row[name] = tables.mean_and_deviation([share * history[key][-1] for history in chosen])
            rows.append(row)
    if len(rows) > 1:
        figures.by_match_weight([types.SimpleNamespace(title="Fashion-MNIST")], rows, path)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("data", nargs="?", choices=["fashion_mnist", "cifar10"])
    add("--network", choices=list(NETWORKS), default="cnn5_pooled")
    add("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), metavar="NAME", help=", ".join(VARIANTS))
    add("--seeds", nargs="+", type=int, default=[0])
    add("--epochs", type=int, default=50)
    add("--rate", type=float, default=0.01)
    add("--batch-size", type=int, default=150)
    add("--mixed-precision", action="store_true", help="bfloat16")
    add("--data-dir", type=pathlib.Path, help="folder with fashion_mnist.npz and cifar10.npz")
    add("--output", type=pathlib.Path, default=pathlib.Path("results/full_size"))
    add(
        "--table",
        type=pathlib.Path,
        metavar="FOLDER",
        help="print the table of what is kept there, draw Figure 4, and train nothing",
    )
    settings = parser.parse_args(arguments)
    if settings.table is None and settings.data is None:
        parser.error("name a data set, or --table FOLDER")
    if settings.table is None:
        run(settings)
    kept = trainings(settings.table or settings.output)
    print(table(kept))
    if settings.table:
        draw(kept, settings.table / "match_weight.png")


if __name__ == "__main__":
    main()
