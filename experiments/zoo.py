"""Does matching harm anybody's network? Each of some twenty ordinary ones, plain, with the constructor's defaults, with
other weights under the same bound, and with constant weights as in the paper; and what comes of it as a table.

    python -m experiments.zoo                     # everything: some hours on one core; start it on each core there is
    python -m experiments.zoo --members CNN MLP   # two of them
    python -m experiments.zoo --table             # prints the table of what has been trained so far

A run is kept as a line of its own file under --output. Started again, or several times at once over one folder, it
trains what is missing.
"""

import argparse
import functools
import json
import pathlib
import re
import time

import keras
import numpy as np
from filelock import FileLock, Timeout

from experiments.zoo_members import LOGITS, MEMBERS, load
from keras_itdm import ITDMModel
from keras_itdm.losses import ClassConditionalMMD

PLAIN, DEFAULT = "plain", "the defaults"
BOUNDED = {  # by name: arguments of ITDMModel, in the order in which they are trained
    DEFAULT: {},
    "split": {"partner": "split"},
    "split 1.6": {"partner": "split", "match_weight": 1.6},
    "split 3.2": {"partner": "split", "match_weight": 3.2},
    "stream 1.6": {"match_weight": 1.6},
    "split 0.2": {"partner": "split", "match_weight": 0.2},
    "stream 0.2": {"match_weight": 0.2},
    "stream 3.2": {"match_weight": 3.2},
    "max_share 0.5": {"max_share": 0.5},
    "max_share 2": {"max_share": 2.0},
}
CONSTANT = {
    f"constant {partner} {weight}": {"partner": partner, "match_weight": weight, "max_share": None}
    for partner, weights in (("split", (0.05, 0.2, 0.1, 0.4, 0.025, 0.8, 1.6)), ("stream", (0.2, 0.05, 0.8)))
    for weight in weights
}
ALL_SEEDS = {PLAIN, DEFAULT, "split", "split 1.6"}


def train(member, arguments, seed, data):
    """Trains one network. Returns what is kept of it: test accuracy and cross-entropy, and how it went."""
    (x, y), (x_test, y_test) = data
    keras.utils.set_random_seed(seed)
    model = member.network()
    binary = model.output_shape[-1] == 1
    if arguments is not None:
        matching = ClassConditionalMMD(num_classes=2 if binary else model.output_shape[-1])
        model = ITDMModel(model, "features", matching, **arguments)
    name, options = member.optimizer
    steps = -(-len(x) // member.batch_size) * member.epochs
    rates = [member.rate * share for share in (1, 0.2, 0.04)]
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([steps // 2, 4 * steps // 5], rates)
    model.compile(
        getattr(keras.optimizers, name)(schedule, **options),
        keras.losses.BinaryCrossentropy() if binary else LOGITS(from_logits=True),
        metrics=["accuracy"],
    )
    began = time.perf_counter()
    history = model.fit(x, y, batch_size=member.batch_size, epochs=member.epochs, verbose=0).history
    seconds = time.perf_counter() - began
    base = model if arguments is None else model.base_model
    base.compile(loss=model.loss, metrics=["accuracy"])
    loss, accuracy = base.evaluate(x_test, y_test, batch_size=1000, verbose=0)
    return {
        "accuracy": 100 * accuracy,
        "cross_entropy": loss if np.isfinite(loss) else None,
        "training_accuracy": 100 * history["accuracy"][-1],
        "match_weight": history.get("match_weight", [None])[:: max(member.epochs // 10, 1)],
        "seconds": round(seconds, 1),
        "backend": keras.backend.backend(),
    }


def jobs(members, variants, seeds):
    """`(member, variant, seed)`, what matters most first."""
    chosen = [(variant, seed) for seed in range(seeds) for variant in variants if variant in ALL_SEEDS]
    chosen += [(variant, 0) for variant in variants if variant not in ALL_SEEDS]
    chosen += [(variant, seed) for seed in range(1, seeds) for variant in variants if variant not in ALL_SEEDS]
    return [(member, variant, seed) for variant, seed in chosen for member in members]


def path_of(output, member, variant, seed):
    slug = lambda text: re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-")  # noqa: E731
    return output / slug(member) / f"{slug(variant)}-{seed}.json"


def read(output, member, variant, seeds):
    paths = [path_of(output, member, variant, seed) for seed in range(seeds)]
    own = [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.exists()]
    return own or [published for published in kept(output).get((member, variant), []) if published["seed"] < seeds]


@functools.cache
def kept(output):
    """The trainings of a folder that are kept in one file, `trainings.jsonl`, a line each, by network and variant."""
    trainings, path = {}, output / "trainings.jsonl"
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        training = json.loads(line)
        trainings.setdefault((training["member"], training["variant"]), []).append(training)
    return trainings


def run(settings, arrays):
    variants = {PLAIN: None, **BOUNDED, **CONSTANT}
    loaded = {}
    for member, variant, seed in jobs(settings.members, variants, settings.seeds):
        path = path_of(settings.output, member, variant, seed)
        if path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(path.with_suffix(".lock"), timeout=0):
                if path.exists():
                    continue
                data = MEMBERS[member].data
                if data not in loaded:
                    loaded[data] = load(data, arrays)
                result = train(MEMBERS[member], variants[variant], seed, loaded[data])
                result = {"member": member, "variant": variant, "seed": seed, **result}
                path.with_suffix(".part").write_text(json.dumps(result) + "\n", encoding="utf-8")
                path.with_suffix(".part").replace(path)
                print(json.dumps(result), flush=True)
        except Timeout:
            continue  # another process is at it
        keras.backend.clear_session()


# The table


def half_width(differences):
    """Of Student's 95 % interval of a mean."""
    quantiles = {2: 12.71, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571}
    n = len(differences)
    return quantiles.get(n, np.inf) * np.std(differences, ddof=1) / np.sqrt(n) if n > 1 else np.inf


def learnt_nothing(run, plain):
    """Whether its training accuracy is nearer to guessing than to plain training's."""
    return run["cross_entropy"] is None or run["training_accuracy"] < 0.5 * np.mean(
        [r["training_accuracy"] for r in plain]
    )


def difference(runs, plain, key):
    """Mean of the paired differences from plain, and half the width of their interval."""
    of_plain = {run["seed"]: run[key] for run in plain}
    differences = [run[key] - of_plain[run["seed"]] for run in runs if run["seed"] in of_plain and run[key] is not None]
    return (float(np.mean(differences)), float(half_width(differences))) if differences else (np.nan, np.inf)


def table(settings, shown):
    """Rows by member, and what they come to."""
    header = ["network", "plain", *shown, "best constant λ"]
    rows, gains, failed = [], {name: [] for name in (*shown, "constant")}, {}
    harm = {name: [] for name in shown}
    for member in settings.members:
        plain = read(settings.output, member, PLAIN, settings.seeds)
        if not plain:
            continue
        mean = lambda runs, key: np.mean([run[key] for run in runs])  # noqa: E731
        row = [member, f"{mean(plain, 'cross_entropy'):.3f} ({mean(plain, 'accuracy'):.1f})"]
        for variant in (*BOUNDED, *CONSTANT):
            runs = read(settings.output, member, variant, settings.seeds)
            dead = sum(learnt_nothing(run, plain) for run in runs)
            failed.setdefault(variant, [0, 0])
            failed[variant][0] += dead
            failed[variant][1] += len(runs)
        for variant in shown:
            runs = read(settings.output, member, variant, settings.seeds)
            if not runs or any(learnt_nothing(run, plain) for run in runs):
                row.append("-" if runs else "")
                continue
            entropy, width = difference(runs, plain, "cross_entropy")
            points, points_width = difference(runs, plain, "accuracy")
            if entropy - width > 0:
                harm[variant].append(f"{member}: cross-entropy {entropy:+.3f} ± {width:.3f}")
            if points + points_width < 0:
                harm[variant].append(f"{member}: accuracy {points:+.2f} ± {points_width:.2f}")
            gains[variant].append((member, -entropy / mean(plain, "cross_entropy")))
            row.append(f"{mean(runs, 'cross_entropy'):.3f} ({points:+.1f})")
        best = None
        for variant in CONSTANT:
            runs = read(settings.output, member, variant, settings.seeds)
            if runs and not any(learnt_nothing(run, plain) for run in runs):
                entropy, _ = difference(runs, plain, "cross_entropy")
                if best is None or entropy < best[0]:
                    best = entropy, variant, runs
        if best is None or best[0] >= 0:
            row.append("none")
            gains["constant"].append((member, 0.0))
        else:
            row.append(f"{mean(best[2], 'cross_entropy'):.3f} ({best[1].removeprefix('constant ')})")
            gains["constant"].append((member, -best[0] / mean(plain, "cross_entropy")))
        rows.append(row)
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    lines += [
        "",
        "| | gain, mean over the networks | worse than plain beyond Student's 95 % interval |",
        "|---|---|---|",
    ]
    for name in (*shown, "constant"):
        mean = np.mean([gain for _, gain in gains[name]]) if gains[name] else np.nan
        title = "best constant λ of each" if name == "constant" else name
        lines.append(f"| {title} | {100 * mean:.1f} % | {'; '.join(harm.get(name, [])) or '-'} |")
    lines += ["", "| setting | learnt nothing, of so many trainings |", "|---|---|"]
    lines += [f"| {variant} | {dead} of {runs} |" for variant, (dead, runs) in failed.items() if runs]
    return "\n".join(lines)


def arrays_in(folder):
    """Reads `fashion_mnist.npz` and `cifar10.npz` of a folder, or `tensorflow_datasets` where there is none."""

    def arrays(name):
        if folder is not None:
            with np.load(folder / f"{name}.npz") as data:
                return [(data[f"x_{part}"], data[f"y_{part}"]) for part in ("train", "test")]
        import tensorflow_datasets as tfds

        return tfds.as_numpy(tfds.load(name, split=["train", "test"], batch_size=-1, as_supervised=True))

    return arrays


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--members", nargs="+", choices=MEMBERS, default=list(MEMBERS), metavar="NAME", help="which networks"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("results/zoo"))
    parser.add_argument("--data-dir", type=pathlib.Path, help="folder with fashion_mnist.npz and cifar10.npz")
    parser.add_argument("--table", action="store_true", help="train nothing, print the table")
    settings = parser.parse_args(arguments)
    if not settings.table:
        run(settings, arrays_in(settings.data_dir))
    print(table(settings, [DEFAULT, "split", "split 1.6"]))


if __name__ == "__main__":
    main()
