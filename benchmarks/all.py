"""Every benchmark that the machine can run, one after another, and one table of what was measured against its bar.

    python benchmarks/all.py
    python benchmarks/all.py --quick

What has been measured is kept in the folder --output, one file a benchmark and backend, and not measured again: start
it anew and it goes on. --quick is for a GPU that is lent for ten minutes: the benchmarks that a GPU changes, fewer
repeats.
"""

import argparse
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
BACKENDS = ("jax", "torch", "tensorflow")
# Program: the backends it is for, and its arguments.
PROGRAMS = {
    "launches": (("jax", "torch"), ""),
    "step": (BACKENDS, "--network cnn5"),
    "split": (BACKENDS, "--network cnn5"),
    "zero_weight": (BACKENDS, "--network cnn5"),
    "loss": (BACKENDS, ""),
    "many_classes": (BACKENDS, ""),
    "growth": (("jax", "tensorflow"), ""),
    "arithmetic": (("jax",), ""),
    "memory": (("jax", "tensorflow"), ""),
    "precision": (("jax",), ""),
    "scheduled_step": (("jax",), ""),
    "traces": (("jax", "tensorflow"), ""),
    "long_run": (("jax", "tensorflow"), ""),
    "stream": (("tensorflow",), "--train-size 20000"),
    "overlap": (("tensorflow",), ""),
}
QUICK = {  # in the order of how much a GPU changes
    "launches": (("jax", "torch"), ""),
    "step": (("jax", "torch", "tensorflow"), "--repeats 5 --seconds 0.5"),
    "split": (("jax", "torch", "tensorflow"), "--repeats 5 --seconds 0.5"),
    "loss": (("jax", "torch", "tensorflow"), "--repeats 5 --batch-size 150 1024"),
    "zero_weight": (("jax", "tensorflow"), "--repeats 5 --seconds 0.5 --network cnn5"),
    "growth": (("jax",), "--repeats 5"),
    "many_classes": (("jax",), "--repeats 5"),
}


def run(name, backend, arguments, settings):
    """Measures, unless it has been, and returns what was; `None` if it failed."""
    path = settings.output / f"{name}-{backend}.json"
    if not path.exists():
        print(f"\nKERAS_BACKEND={backend} python benchmarks/{name}.py {arguments}", flush=True)
        new = path.with_suffix(".new")
        environment = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "TF_CPP_MIN_LOG_LEVEL": "2", **os.environ}
        command = [sys.executable, str(HERE / f"{name}.py"), *arguments.split(), "--json", str(new)]
        done = subprocess.run(command, env={**environment, "KERAS_BACKEND": backend}, check=False)
        if done.returncode or not new.exists():
            return None
        new.replace(path)
    return json.loads(path.read_text(encoding="utf-8"))


def lines(name, backend, result):
    """The rows of a benchmark, in the columns that all have in common."""
    import measure

    for row in result["rows"]:
        sizes = [f"{key} {row[key]}" for key in ("m", "D") if key in row]
        words = sizes + [value for value in row.values() if isinstance(value, str)]
        times = [f"{key[:-4]} {measure.cell(value)}" for key, value in row.items() if key.endswith(", ms")]
        value = row.get(result["measured"])
        value = measure.Ratio(**value) if isinstance(value, dict) else value
        judged = measure.judged(row, result["at_least"])
        yield [name, backend, ", ".join(words), "; ".join(times), measure.cell(value), *judged]


def table(results):
    """One Markdown table, and above it the machine."""
    import measure

    machines = dict.fromkeys(measure.in_words(result["machine"]) for _, _, result in results)
    header = ["benchmark", "backend", "of", "ms", "measured", "bar", ""]
    rows = [line for name, backend, result in results for line in lines(name, backend, result)]
    return "\n".join([*machines, "", measure.markdown([header, ["---"] * len(header), *rows])])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--quick", action="store_true", help="in under eight minutes on a GPU")
    add("--backends", nargs="+", choices=BACKENDS, help="those that are installed if not given")
    add("--programs", nargs="+", choices=PROGRAMS, metavar="NAME", help=", ".join(PROGRAMS))
    add("--minutes", type=float, help="begin no other benchmark after so long")
    add("--output", type=pathlib.Path, default=pathlib.Path("results/benchmarks"), help="folder for the results")
    settings = parser.parse_args()
    settings.output.mkdir(parents=True, exist_ok=True)
    backends = settings.backends or [name for name in BACKENDS if importlib.util.find_spec(name)]
    begun, results, failed = time.monotonic(), [], []
    for name, (of, arguments) in (QUICK if settings.quick else PROGRAMS).items():
        for backend in backends:
            late = settings.minutes is not None and time.monotonic() - begun > 60 * settings.minutes
            if backend not in of or (settings.programs and name not in settings.programs) or late:
                continue
            result = run(name, backend, arguments, settings)
            (failed if result is None else results).append((name, backend, result))
    os.environ["KERAS_BACKEND"] = backends[0]  # for what is imported to write the table
    text = table(results) if results else "Nothing was measured."
    (settings.output / "table.md").write_text(text + "\n", encoding="utf-8")
    print(f"\n{text}\n\nWritten to {settings.output / 'table.md'}, {time.monotonic() - begun:.0f} s")
    if failed:
        raise SystemExit("Failed: " + ", ".join(f"{name} on {backend}" for name, backend, _ in failed))


if __name__ == "__main__":
    main()
