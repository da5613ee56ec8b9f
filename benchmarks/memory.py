"""Memory: what a large mini-batch takes beyond its features, value and gradient, compilation included.

KERAS_BACKEND=jax python benchmarks/memory.py
KERAS_BACKEND=tensorflow python benchmarks/memory.py
KERAS_BACKEND=torch python benchmarks/memory.py

Each case runs once in a process of its own: the most memory that it ever held, less what it held with the features
made. On a GPU that is the wrong memory to look at, and the program does not.
"""

import os
import resource
import subprocess
import sys
import time

import losses
import measure
import psutil

from keras_itdm.losses import ClassConditionalMMD, JointMMD

CASES = {
    "ITDM-j": JointMMD(),
    "ITDM-c, 10 classes": ClassConditionalMMD(10),
    "ITDM-c, 100 classes": ClassConditionalMMD(100),
}


def run(name, batch_size, size):
    """Prints bytes and seconds."""
    num_classes = getattr(CASES[name], "num_classes", 10)
    arguments = losses.features(batch_size, size, losses.balanced(batch_size, num_classes))
    small = losses.features(8, size, losses.balanced(8, num_classes))
    measure.read_back(
        losses.value_and_gradients(CASES[name], small)()
    )  # loads what the backend loads when it is first used
    function = losses.value_and_gradients(CASES[name], arguments)
    before = psutil.Process().memory_info().rss
    begun = time.perf_counter()
    measure.read_back(function())
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before, time.perf_counter() - begun)


def main():
    parser = measure.parser(__doc__, repeats=1)
    parser.add_argument("--batch-size", type=int, default=8192, help="m, samples a mini-batch (default: 8192)")
    parser.add_argument("--size", type=int, default=512, help="D, numbers in a feature (default: 512)")
    parser.add_argument("--case", choices=CASES, help="to run this one alone, in this process, as the program does")
    settings = parser.parse_args()
    if settings.case:
        return run(settings.case, settings.batch_size, settings.size)
    rows = []
    for name, loss in CASES.items():
        options = ["--case", name, "--batch-size", str(settings.batch_size), "--size", str(settings.size)]
        child = subprocess.run(
            [sys.executable, __file__, *options], env=os.environ, check=True, capture_output=True, text=True
        )
        taken, seconds = (float(number) for number in child.stdout.split()[-2:])
        form = loss.form_for(settings.batch_size, settings.batch_size)
        rows.append(
            {
                "loss": name,
                "form": form.name,
                "rows at a time": form.rows_at_once,
                "one n × n matrix, GiB": 4 * (2 * settings.batch_size) ** 2 / 2**30,
                "seconds, with compilation": seconds,
                "memory, GiB": taken / 2**30,
            }
        )
    title = f"Memory beyond the features, m = {settings.batch_size}, D = {settings.size}"
    measure.report(title, rows, settings, "memory, GiB", bar=1.0)


if __name__ == "__main__":
    main()
