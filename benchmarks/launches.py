"""Launches: how many kernels a training step starts, and how many of them matching adds.

KERAS_BACKEND=jax python benchmarks/launches.py
KERAS_BACKEND=torch python benchmarks/launches.py

On PyTorch they are the operations that a step runs, without those that only look at a tensor in another way (views).
On JAX they are the instructions of the executable after XLA's optimization, fusions and library calls, for the device
at hand: on a GPU each is a launch or a few; a CPU fuses in another way and stands in for it. The body of a loop counts
as often as it runs, and of a condition the branch that is taken by balanced batches, the first.
"""

import collections
import re

import fit_step
import keras
import measure
import numpy as np

from keras_itdm import ITDMModel

# Of XLA's instructions, those that no kernel is started for.
FREE = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "replica-id"),
    *("opt-barrier", "add-dependency"),
}
INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?[\w.-]+ = .*? ([\w-]+)\(")


def kernels(text):
    """Number of kernels of an executable, out of the text of its optimized HLO."""
    computations, entry, name = collections.defaultdict(list), None, None
    for line in text.splitlines():
        opening = re.match(r"^(ENTRY )?%?([\w.-]+) .*\{$", line)
        if opening:
            name = opening[2]
            entry = name if opening[1] else entry
        elif name:
            computations[name].append(line)

    def count(name):
        total = 0
        for line in computations[name]:
            instruction = INSTRUCTION.match(line)
            if not instruction or instruction[1] in FREE:
                continue
            kind = instruction[1]
            if kind == "while":
                times = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', line)
                total += (int(times[1]) if times else 1) * count(re.search(r"body=%?([\w.-]+)", line)[1])
            elif kind == "conditional":
                branches = re.search(r"branch_computations=\{([^}]*)\}", line)
                taken = re.search(r"true_computation=%?([\w.-]+)", line)
                # Of a condition made of branches by index, that of "true" comes last.
                total += count(taken[1] if taken else branches[1].split(",")[-1].strip().lstrip("%"))
            elif kind == "call":
                total += count(re.search(r"to_apply=%?([\w.-]+)", line)[1])
            else:
                total += 1
        return total

    return count(entry)


def launches_on_jax(model, batch):
    batch = keras.tree.map_structure(keras.ops.convert_to_tensor, batch)
    return kernels(fit_step.jax_executable(model, batch).as_text())


def launches_on_torch(model, batch):
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    counts = collections.Counter()

    class Counting(TorchDispatchMode):
        def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
            result = operation(*args, **(kwargs or {}))
            views = any(
                argument.alias_info and not argument.alias_info.is_write for argument in operation._schema.arguments
            )
            on_device = torch.is_tensor(result) or isinstance(result, (tuple, list))
            if on_device and not views and operation.overloadpacket.__name__ not in ("scalar_tensor", "detach"):
                counts[operation.overloadpacket.__name__] += 1
            return result

    (sample,) = keras.tree.flatten(batch)[:1]
    fit_step.compiled(model).predict_on_batch(sample)
    batch = keras.tree.map_structure(keras.ops.convert_to_tensor, batch)
    model.train_step(batch)  # makes the optimizer's state
    with Counting():
        model.train_step(batch)
    return sum(counts.values())


def main():
    parser = measure.parser(__doc__, repeats=1)
    parser.add_argument("--batch-size", type=int, default=150, help="m, samples a mini-batch (default: 150)")
    settings = parser.parse_args()
    rng = np.random.default_rng(0)
    images = rng.random((settings.batch_size, *fit_step.INPUT_SHAPES["cnn5"]), "float32")
    batch = images, (np.arange(settings.batch_size) % fit_step.NUM_CLASSES).astype("int32")
    launches, bar = {"jax": (launches_on_jax, 40), "torch": (launches_on_torch, 120)}[keras.backend.backend()]
    plain = launches(fit_step.network("cnn5"), batch)
    steps = {
        "ITDM-c": ({}, (batch, batch), 2),
        "ITDM-c, constant λ": ({"max_share": None}, (batch, batch), 2),
        'ITDM-c, partner="split"': ({"partner": "split"}, batch, 1),
    }
    rows = []
    for name, (options, data, plain_steps) in steps.items():
        total = launches(ITDMModel(fit_step.network("cnn5"), "features", **options), data)
        beyond = total - plain_steps * plain
        rows.append({"step": name, "plain": plain, "this": total, "plain steps": plain_steps, "beyond them": beyond})
    measure.report("Kernels that a step of cnn5 starts", rows, settings, "beyond them", bar)


if __name__ == "__main__":
    if keras.backend.backend() == "tensorflow":
        raise SystemExit("What is counted is the step that JAX compiles, or PyTorch runs: set KERAS_BACKEND.")
    main()
