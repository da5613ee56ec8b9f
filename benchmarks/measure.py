"""What the benchmarks share: arguments, times taken in turns, and tables of what was measured against its bar.

Importing it makes the networks and data sets of `experiments/` importable.
"""

import argparse
import collections
import ctypes
import json
import os
import pathlib
import platform
import re
import statistics
import sys
import time

import keras
import psutil

sys.path.append(str(pathlib.Path(__file__).resolve().parent.parent))


def _keep_freed_memory():
    """Has the C library of Linux keep what is freed. Else it hands large buffers back and gets them anew in each step,
    or does not, by what the process has allocated before: a step of 15 ms then takes 19."""
    if platform.libc_ver()[0] == "glibc":
        trim_threshold, mmap_threshold = -1, -3
        for option in (trim_threshold, mmap_threshold):
            ctypes.CDLL(None).mallopt(option, 2**30)


_keep_freed_memory()

Ratio = collections.namedtuple("Ratio", ["median", "low", "high"])
Ratio.__doc__ = "The median of ratios, and their quartiles."


def parser(doc, repeats=10):
    """An `ArgumentParser` with the arguments that every benchmark takes; `doc` is its module docstring."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=repeats, help=f"turns that are timed (default: {repeats})")
    parser.add_argument(
        "--json", type=pathlib.Path, metavar="PATH", help="file to write the results to, beside the table"
    )
    return parser


def interleaved(functions, repeats):
    """Times functions in turns, A B C A B C ..., so that whatever else the machine does hits all alike.

    Args:
        functions: Dictionary of functions without arguments, by name. What one returns is read back, so that the time
            is that of the work and not of its dispatch. One that returns a `float` gives its own time, in seconds.
        repeats: Number of turns, after one that is not counted.

    Returns:
        Dictionary of lists of seconds, one a turn, by name.
    """
    times = {name: [] for name in functions}
    for turn in range(repeats + 1):
        for name, function in functions.items():
            begun = time.perf_counter()
            result = function()
            if not isinstance(result, float):
                read_back(result)
                result = time.perf_counter() - begun
            if turn:
                times[name].append(result)
    return times


def read_back(tensors):
    """Waits until tensors are computed: JAX, and all backends on a GPU, return before the work is done."""
    for tensor in keras.tree.flatten(tensors):
        if tensor is not None:
            keras.ops.convert_to_numpy(tensor)


def ratio(numerators, denominators, times=1):
    """The `Ratio` of times taken in turns, turn by turn, to `times` times the other."""
    ratios = [a / (times * b) for a, b in zip(numerators, denominators, strict=True)]
    low, _, high = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    return Ratio(statistics.median(ratios), low, high)


def milliseconds(times):
    return 1e3 * statistics.median(times)


def report(title, rows, settings, measured=None, bar=None, at_least=False):
    """Prints a Markdown table of rows, each against its bar, and writes them to `settings.json` if that is a path.

    Args:
        title: What was measured.
        rows: Dictionaries with the same keys, the columns. Values are text, numbers, or `Ratio`s.
        settings: The parsed arguments of the program.
        measured: Key of the value that should not exceed the bar or, with `at_least`, not fall below it.
        bar: The bar, for rows that have no "bar" of their own. `None` for none.
    """
    rows = [{"bar": bar, **row} for row in rows]
    for row in rows:
        row["bar"] = row.pop("bar")  # the last column
        value = row[measured] if measured else None
        value = value.median if isinstance(value, Ratio) else value
        row["met"] = (
            None
            if row["bar"] is None or value is None
            else bool(value >= row["bar"] if at_least else value <= row["bar"])
        )
    columns = [key for key in rows[0] if key not in ("bar", "met")]
    with_bars = any(row["bar"] is not None for row in rows)
    lines = [[*columns, "bar", ""] if with_bars else columns]
    lines.append(["---"] * len(lines[0]))
    for row in rows:
        lines.append([cell(row[key]) for key in columns] + (judged(row, at_least) if with_bars else []))
    print(f"\n## {title}\n")
    print(markdown(lines))
    print("\n" + in_words(machine()))
    if settings.json:
        rows = [{k: v._asdict() if isinstance(v, Ratio) else v for k, v in row.items()} for row in rows]
        options = {key: value for key, value in vars(settings).items() if key != "json"}
        result = {
            "title": title,
            "command": command(),
            "settings": options,
            "machine": machine(),
            "measured": measured,
            "at_least": at_least,
            "rows": rows,
        }
        settings.json.parent.mkdir(parents=True, exist_ok=True)
        settings.json.write_text(json.dumps(result, indent=1, ensure_ascii=False, default=str) + "\n", encoding="utf-8")


def judged(row, at_least):
    """The last two cells of a row: its bar, and whether it was met."""
    bar = "" if row["bar"] is None else f"{'≥' if at_least else '≤'} {row['bar']:g}"
    return [bar, {None: "", True: "met", False: "missed"}[row["met"]]]


def markdown(lines):
    """A table of lists of cells."""
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def cell(value):
    if isinstance(value, Ratio):
        return f"{value.median:.3f} ({value.low:.3f} to {value.high:.3f})"
    if isinstance(value, float):
        return f"{value:#.4g}" if abs(value) < 1e3 else f"{value:,.0f}"
    return "" if value is None else str(value)


def command():
    """The command that runs this program, without where it lies and where it writes."""
    arguments = [argument for argument in sys.argv[1:] if not argument.startswith("--json=")]
    if "--json" in arguments:
        index = arguments.index("--json")
        del arguments[index : index + 2]
    return " ".join(
        [f"KERAS_BACKEND={keras.backend.backend()} python benchmarks/{pathlib.Path(sys.argv[0]).name}", *arguments]
    )


def machine():
    """What the numbers depend on, apart from the code."""
    backend = keras.backend.backend()
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        cores = os.cpu_count()
    return {
        "processor": _processor(),
        "cores": f"{cores} logical core{'s' if cores > 1 else ''}",
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "gpus": ", ".join(_gpus(backend)),
        "system": f"{platform.system()} {platform.machine()}",
        "python": f"Python {platform.python_version()}",
        "keras": f"Keras {keras.__version__}",
        "backend": f"{backend} {sys.modules[backend].__version__}",
    }


def in_words(machine):
    return ", ".join(str(value) for value in machine.values() if value)


def _processor():
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    model = cpuinfo.exists() and re.search(r"^model name\s*: (.*)$", cpuinfo.read_text(), re.MULTILINE)
    return model[1] if model else platform.processor()


def _gpus(backend):
    if backend == "tensorflow":
        import tensorflow as tf

        devices = tf.config.list_physical_devices("GPU")
        return [tf.config.experimental.get_device_details(device).get("device_name", "GPU") for device in devices]
    if backend == "jax":
        import jax

        return [device.device_kind for device in jax.devices() if device.platform == "gpu"]
    import torch

    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
