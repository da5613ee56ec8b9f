"""The paper's experiments: networks on a data set, each trained over λ and seeds, with tables and figures.

python -m experiments.paper fashion_mnist                                    # Table 3 and Figure 4
python -m experiments.paper cifar10 --network resnet18 --mixed-precision     # of Table 4
python -m experiments.paper table_1
"""

import argparse
import dataclasses
import json
import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from tqdm.auto import tqdm

from experiments import figures, tables
from experiments.data import load
from experiments.networks import NETWORKS
from experiments.training import DefaultsHelp, Recipe, check_settings, not_negative, positive, train, write_atomically

LAMBDAS = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
GREY = {  # section 4.2
    "network": ["cnn5"],
    "epochs": 50,
    "learning_rate": 0.01,
    "milestones": [20, 40],
    "decay": 0.2,
}
COLOUR = {
    "network": ["vgg13", "resnet18", "mobilenet"],
    "epochs": 150,
    "learning_rate": 0.5,
    "milestones": [50, 100],
    "decay": 0.1,
}
DIGITS = {
    "network": ["cnn5"],
    "filters": (16, 32),
    "epochs": 60,
    "batch_size": 100,
    "learning_rate": 0.1,
    "momentum": 0.9,
    "milestones": [24, 48],
    "decay": 0.2,
    "match_weight": [0.8],
    "seeds": 5,
}
JOINT = {"matching": "joint", "network": ["cnn2"], "match_weight": [0.8]}  # for Table 1 the paper gives no settings
TSNE_IMAGES = 2000


@dataclasses.dataclass
class Case:
    """A data set and a network, and what came of training them."""

    data: str
    network: str
    title: str
    results: dict  # λ -> list over seeds of what `train` returned
    folders: dict  # λ -> list over seeds of where


def parser(description, **defaults):
    """Command line of an experiment, with its defaults."""
    result = argparse.ArgumentParser(description=description, formatter_class=DefaultsHelp)
    add = result.add_argument
    add("experiment", choices=EXPERIMENTS, help="what is trained; the defaults of the others depend on it")
    add("--matching", choices=["class_conditional", "joint"], help="ITDM-c or ITDM-j")
    add(
        "--match-weight",
        type=not_negative,
        nargs="+",
        metavar="λ",
        help="values of λ; 0, plain SGD, is run in any case",
    )
    add("--partner", choices=["stream", "split"], help="S2 is a second batch, or S1 and S2 the halves of one")
    add("--network", choices=list(NETWORKS), nargs="+", help="one or more")
    add("--seeds", type=positive, help="number of seeds, from 0")
    add("--train-size", type=positive, help="number of training images; all of them if not given")
    add("--epochs", type=positive, help="passes over S1")
    add("--batch-size", type=positive, help="samples in S1, and in S2")
    add("--learning-rate", type=float, help="of SGD, at first")
    add("--milestones", type=positive, nargs="*", help="epochs after which the rate is multiplied by --decay")
    add("--decay", type=float, help="factor of the rate")
    add("--momentum", type=float, help="of SGD")
    add("--last", type=positive, help="results are means over this many evaluations, one an epoch, the last ones")
    add(
        "--mixed-precision",
        nargs="?",
        const="bfloat16",
        default="no",
        choices=["no", "bfloat16", "float16"],
        help="bfloat16 where it stands alone",
    )
    add("--output", type=pathlib.Path, help="folder for the results, and for what it takes to go on after a kill")
    common = {"matching": "class_conditional", "partner": "stream", "momentum": 0.5, "batch_size": 150}
    result.set_defaults(
        **{**common, "seeds": 1, "last": 10, "match_weight": LAMBDAS, "filters": None, "train_size": None, **defaults}
    )
    return result


EXPERIMENTS = {  # name: data sets, and the defaults of the command line
    "digits": (["digits"], DIGITS),
    "qmnist": (["qmnist"], GREY | JOINT),  # the paper has no ITDM-c on it
    "kmnist": (["kmnist"], GREY),  # Table 2, Figure 3
    "fashion_mnist": (["fashion_mnist"], GREY),  # Table 3, Figure 4
    "cifar10": (["cifar10"], COLOUR),  # Table 4, Figures 5 and 6
    "stl10": (["stl10"], COLOUR),  # Table 5, Figure 7
    "table_1": (["qmnist", "kmnist", "fashion_mnist"], GREY | JOINT),
}


def main(arguments=None):
    """Runs an experiment, in the paper's settings where the command line does not say otherwise."""
    name = argparse.ArgumentParser(add_help=False)
    name.add_argument("experiment", choices=EXPERIMENTS)
    arguments = sys.argv[1:] if arguments is None else arguments
    chosen = name.parse_known_args(arguments)[0].experiment if arguments[:1] not in (["-h"], ["--help"]) else "digits"
    names, defaults = EXPERIMENTS[chosen]
    settings = parser(__doc__.splitlines()[0], output=pathlib.Path("results") / chosen, **defaults).parse_args(
        arguments
    )
    return run([load(name) for name in names], settings)


def run(data_sets, settings):
    """Trains every λ with every seed, prints the tables, and writes them, the histories and the figures to files."""
    data_sets = [data.take(settings.train_size) for data in data_sets]
    weights = sorted({0.0, *settings.match_weight})
    check_settings(settings, free=("match_weight", "network", "seeds", "output", "last"))
    cases = [
        Case(data.name, network, f"{data.title}, {network}", {w: [] for w in weights}, {w: [] for w in weights})
        for data in data_sets
        for network in dict.fromkeys(settings.network)
    ]
    runs = [(case, seed, weight) for case in cases for seed in range(settings.seeds) for weight in weights]
    by_name = {data.name: data for data in data_sets}
    with tqdm(total=len(runs) * settings.epochs, unit="epoch", smoothing=0, dynamic_ncols=True) as progress:
        for case, seed, weight in runs:
            folder = settings.output / "runs" / f"{case.data}-{case.network}-lambda{weight:g}-seed{seed}"
            result = run_one(by_name[case.data], case, seed, weight, folder, settings, progress)
            case.results[weight].append(result)
            case.folders[weight].append(folder)
    return report(cases, by_name, settings)


def run_one(data, case, seed, weight, folder, settings, progress):
    """One training, shown in the progress bar; what an earlier call finished counts as there from the start."""
    shown = 0

    def show(epochs_done, history):
        nonlocal shown
        if shown == 0 and epochs_done > 1:
            progress.initial += epochs_done - 1  # so that the time left follows from the epochs trained now
        progress.set_postfix_str(
            f"{case.title} λ={weight:g} seed={seed} test accuracy={history['val_accuracy'][-1]:.4f}"
        )
        progress.update(epochs_done - shown)
        shown = epochs_done

    recipe = Recipe(
        network=case.network,
        filters=settings.filters,
        batch_size=settings.batch_size,
        epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        momentum=settings.momentum,
        milestones=tuple(settings.milestones),
        decay=settings.decay,
        match_weight=weight,
        matching=settings.matching,
        partner=settings.partner,
        dtype_policy="float32" if settings.mixed_precision == "no" else f"mixed_{settings.mixed_precision}",
    )
    result = train(
        recipe,
        data,
        seed,
        folder,
        measure=(lambda folder, model: keep_features(folder, model, data)) if seed == 0 else None,
        on_epoch_end=show,
    )
    if shown < settings.epochs:
        progress.initial += settings.epochs - shown
        progress.update(settings.epochs - shown)
    return result


def keep_features(folder, model, data):
    """Keeps the features of the first test images, for the t-SNE of Figures 2 and 6."""
    extractor = keras.Model(model.inputs, model.get_layer("features").output)
    x, y = data.test(TSNE_IMAGES)
    features = extractor.predict(x, batch_size=500, verbose=0)
    np.savez_compressed(folder / "features.npz", features=features.astype("float32"), labels=y.argmax(axis=1))
    return {}


def report(cases, data_sets, settings):
    """Tables and figures, as files and on the screen."""
    output = settings.output
    rows = [row for case in cases for row in tables.rows(case, settings.last)]
    sizes = ", ".join(f"{len(data.x_train)} {data.title} images" for data in data_sets.values())
    title = (
        f"ITDM-{settings.matching[0]} on {sizes}, {settings.epochs} epochs, batch {settings.batch_size}, "
        f"{settings.seeds} seed{'s' * (settings.seeds > 1)}, mean of the last {min(settings.last, settings.epochs)} "
        f"evaluations, {keras.backend.backend()} backend"
    )
    if settings.matching == "joint":
        paper = [tables.joint(cases, rows)]
    else:
        paper = [tables.best_and_worst(case, rows) for case in cases]
    text = "\n\n".join([title, *paper, tables.by_match_weight(rows), tables.verdict(rows, settings.seeds)])
    write_atomically(output / "table.md", text + "\n")
    kept = {
        "settings": vars(settings),
        "rows": rows,
        "runs": [
            {"data": case.data, "network": case.network, "match_weight": weight, "seed": seed, **result}
            for case in cases
            for weight, results in case.results.items()
            for seed, result in enumerate(results)
        ],
    }
    write_atomically(output / "results.json", json.dumps(kept, default=str))
    print(f"\n{text}\n", flush=True)
    figures.curves(cases, output / "curves.png")
    figures.by_match_weight(cases, rows, output / "match_weight.png")
    figures.projections(cases, rows, output / "tsne.png")
    print(f"Written to {output}: table.md, results.json, curves.png, match_weight.png, tsne.png")
    return rows


if __name__ == "__main__":
    main()
