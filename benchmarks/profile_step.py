"""Profile: where the time of one ITDM-c step goes, from a trace of the executable that JAX compiles, on a CPU.

KERAS_BACKEND=jax python benchmarks/profile_step.py
KERAS_BACKEND=jax python benchmarks/profile_step.py --network resnet18 --repeats 3

Keras names what a step does in the executable, and the profiler says how long each operation of it ran. One that the
compiler fused of several parts counts for the part that it ends in. A plain step, run in turn with it, is shown beside
it. "idle" is what is left of the time on the clock: dispatch, and the profiler's own work. Where operations run side by
side, on several cores, their sum may exceed it.
"""

import collections
import pathlib
import re
import statistics
import tempfile

import fit_step
import jax
import keras
import measure
import numpy as np

from keras_itdm import ITDMModel

PARTS = [
    *(
        "S1, forward",
        "S1, backward",
        "S2, forward",
        "S2, backward",
        "cross-entropy, forward",
        "cross-entropy, backward",
    ),
    *("Match, forward", "Match, backward", "optimizer", "rest"),
]
CONTAINERS = ("while", "call", "conditional")  # what they hold is timed by itself


class ScopedModel(ITDMModel):
    """Names what `compute_loss` does, so that its pass over the network, of S2, is told from that of S1."""

    def compute_loss(self, *args, **kwargs):
        with jax.named_scope("objective"):
            return super().compute_loss(*args, **kwargs)


def part(path, network):
    """The part of the step that an operation belongs to, by its name: the scopes it lies in, joined by slashes."""
    direction = "backward" if "transpose(" in path else "forward"
    scopes = set(re.split(r"[/()]+", path))
    if "compile_loss" in scopes:
        return f"cross-entropy, {direction}"
    if "objective" in scopes:
        return f"S2, {direction}" if network in scopes else f"Match, {direction}"
    if "jvp" in scopes:  # all that is differentiated
        return f"S1, {direction}"
    return "optimizer" if "sgd" in scopes else "rest"


def operations(hlo):
    """The paths of a module's operations, by name.

    One that the compiler made up, without a path, has that of the last operation fused in it or else the last operand.
    """
    paths, last, computation = {}, {}, None
    for line in hlo.splitlines():  # what an operation refers to stands above it
        if line.endswith("{"):
            computation = re.match(r"(?:ENTRY )?%?([\w.-]+)", line)[1]
        operation = re.match(r"\s+(?:ROOT )?%?([\w.-]+) = (?:\(.*?\)|\S+) ([\w-]+)\((.*?)\)", line)
        if not operation or operation[2] in CONTAINERS:
            continue
        name, _, operands = operation.groups()
        path, called = re.search(r'op_name="([^"]*)"', line), re.search(r"calls=%?([\w.-]+)", line)
        operands = [paths.get(operand, "") for operand in re.findall(r"%([\w.-]+)", operands)]
        known = [*operands, last.get(called[1], "") if called else "", path[1] if path else ""]
        paths[name] = last[computation] = next(filter(None, reversed(known)), "")
    return paths


class Run:
    """A step of a model, compiled under a name, and run on one batch over and over."""

    def __init__(self, name, model, batch):
        optimizer = keras.optimizers.SGD(0.01, momentum=0.5, name="sgd")
        model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
        self._state = fit_step.jax_state(model, batch)
        self._batch = batch

        def step(state, batch):
            return model.train_step(state, batch)

        step.__name__ = name
        self._step = jax.jit(step).lower(self._state, batch).compile()
        self.operations = operations(self._step.as_text())

    def __call__(self):
        _, self._state = jax.block_until_ready(self._step(self._state, self._batch))


def profile(runs, network, steps):
    """Milliseconds that each part of a step takes, and "total" on the clock: medians of steps taken in turns, by
    name."""
    with tempfile.TemporaryDirectory() as folder:
        measure.interleaved(runs, 1)
        with jax.profiler.trace(folder):
            total = measure.interleaved(runs, steps)
        (file,) = pathlib.Path(folder).rglob("*.xplane.pb")
        trace = jax.profiler.ProfileData.from_file(str(file))
    times = {name: collections.defaultdict(collections.Counter) for name in runs}  # by step and part
    for event in (event for plane in trace.planes for line in plane.lines for event in line.events):
        details = dict(event.stats)
        name = details.get("hlo_module", "").removeprefix("jit_")
        path = runs[name].operations.get(details["hlo_op"]) if name in runs else None
        if path is not None and not event.name.startswith("end: "):
            times[name][details["run_id"]][part(path, network)] += event.duration_ns / 1e6
    for name, steps in times.items():
        medians = {part: statistics.median(step[part] for step in steps.values()) for part in PARTS}
        total_ms = measure.milliseconds(total[name])
        times[name] = {**medians, "idle": total_ms - sum(medians.values()), "total": total_ms}
    return times


def main():
    parser = measure.parser(__doc__, repeats=30)
    parser.add_argument("--network", choices=fit_step.INPUT_SHAPES, default="cnn5", help="network to train")
    parser.add_argument("--batch-size", type=int, default=150, help="m, samples a mini-batch (default: 150)")
    settings = parser.parse_args()
    rng = np.random.default_rng(0)
    name, shape = settings.network, (settings.batch_size, *fit_step.INPUT_SHAPES[settings.network])
    first, second = (
        (jax.numpy.asarray(rng.random(shape, "float32")), jax.numpy.asarray(rng.integers(10, size=shape[0])))
        for _ in ("S1", "S2")
    )
    runs = {
        "plain": Run("plain", fit_step.network(name), first),
        "matched": Run("matched", ScopedModel(fit_step.network(name), "features"), (first, second)),
    }
    times = profile(runs, name, settings.repeats)
    rows = [
        {
            "part": part,
            "plain step, ms": times["plain"][part],
            "ITDM-c step, ms": milliseconds,
            "share, %": 100 * milliseconds / times["matched"]["total"],
        }
        for part, milliseconds in times["matched"].items()
    ]
    measure.report(f"One ITDM-c step of {name}, in parts", rows, settings)


if __name__ == "__main__":
    if keras.backend.backend() != "jax":
        raise SystemExit("What is profiled is the step that JAX compiles: set KERAS_BACKEND=jax.")
    main()
