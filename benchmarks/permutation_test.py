"""The permutation test: its time, and its decisions beside those of alibi-detect's `MMDDrift` on the same data.

KERAS_BACKEND=torch python benchmarks/permutation_test.py

alibi-detect is no dependency. It needs NumPy 1, and does not load beside a recent TensorFlow, so it goes into an
environment of its own, with PyTorch alone:

    python3 -m venv .venv-alibi && .venv-alibi/bin/pip install -q alibi-detect keras torch psutil
    KERAS_BACKEND=torch PYTHONPATH=. .venv-alibi/bin/python benchmarks/permutation_test.py

Without it the time alone is measured. Both tests take a Gaussian kernel with the same bandwidth, the median of this
package (alibi-detect's own takes the distances of samples to themselves in), and the unbiased estimate; they draw
permutations of their own, so p-values near 5 % differ by chance: by √(p (1 - p) / permutations), 1.5 % for 200.
"""

import time

import measure
import numpy as np

from keras_itdm import two_sample_test
from keras_itdm.kernels import GaussianMixture


def main():
    parser = measure.parser(__doc__, repeats=5)
    parser.add_argument("--samples", type=int, default=1000, help="samples on either side, in timing")
    parser.add_argument("--size", type=int, nargs="+", default=[64, 512], help="values of D, numbers in a sample")
    parser.add_argument("--permutations", type=int, default=1000, help="in timing; in comparing there are 200")
    settings = parser.parse_args()
    for size in settings.size:
        x, y = np.random.default_rng(0).normal(size=(2, settings.samples, size)).astype("float32")
        classes = np.arange(settings.samples) % 10
        for name, labels in (("jointly", ()), ("10 classes", (classes, classes))):
            seconds = []
            for seed in range(settings.repeats):
                begun = time.perf_counter()
                two_sample_test(x, y, *labels, permutations=settings.permutations, seed=seed)
                seconds.append(time.perf_counter() - begun)
            print(
                f"{settings.permutations} permutations of {settings.samples} + {settings.samples} samples, D = {size}, "
                f"{name}: {np.median(seconds):.2f} s, from {min(seconds):.2f} to {max(seconds):.2f} s (bar: 2 s)"
            )
    try:
        from alibi_detect.cd import MMDDrift
    except ImportError as error:
        print(f"\nalibi-detect is not installed ({error}): see `--help`.")
        return
    compare(MMDDrift, permutations=200)


def compare(MMDDrift, permutations):
    import torch

    print(
        "\n| shift | n | m | D | bandwidth | MMD², this | MMD², alibi-detect | p, this | p, alibi-detect | decisions |"
    )
    print("| --- " * 10 + "|")
    rng = np.random.default_rng(0)
    same = total = 0
    for shift in (0.0, 0.1, 0.2, 0.4):
        for n, m, size in ((100, 100, 5), (200, 100, 20), (60, 140, 2)):
            x = rng.normal(size=(n, size)).astype("float32")
            y = (rng.normal(size=(m, size)) + shift).astype("float32")
            bandwidth = two_sample_test(x, y, permutations=1).bandwidth
            kernel = GaussianMixture((1,), bandwidth)
            ours = two_sample_test(x, y, permutations=permutations, seed=0, kernel=kernel, unbiased=True)
            torch.manual_seed(0)
            # Its Gaussian is exp(-d² / (2 s²)).
            s = np.array([np.sqrt(bandwidth / 2)], "float32")
            theirs = MMDDrift(x, backend="pytorch", n_permutations=permutations, sigma=s).predict(y)["data"]
            agree = (ours.p_value <= 0.05) == (theirs["p_val"] <= 0.05)
            same, total = same + agree, total + 1
            print(
                f"| {shift} | {n} | {m} | {size} | {bandwidth:.3f} | {ours.statistic:.5f} "
                f"| {float(theirs['distance']):.5f} | {ours.p_value:.3f} | {theirs['p_val']:.3f} "
                f"| {'same' if agree else 'differ'} |"
            )
    print(f"\nSame decision at 5 %: {same} of {total}.")


if __name__ == "__main__":
    main()
