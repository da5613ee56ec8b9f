"""The same CNN trained without and with ITDM-c on scikit-learn's digits: real images, no download, under 3 minutes.

python examples/digits.py
"""

import pathlib

import numpy as np
from experiment import Data, parser, run
from sklearn.datasets import load_digits


def load():
    """1,797 images of 8 × 8, of which a fixed random 1,297 are the test set."""
    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype("float32").reshape(-1, 8, 8, 1)
    order = np.random.default_rng(0).permutation(len(x))
    train, test = order[:500], order[500:]
    return Data(x[train], y[train], x[test], y[test])


if __name__ == "__main__":
    settings = parser(
        __doc__.splitlines()[0],
        epochs=60,
        learning_rate=0.1,
        match_weight=[0.8],
        seeds=5,
        output=pathlib.Path("results/digits"),
    )
    settings.set_defaults(batch_size=100, momentum=0.9, filters=(16, 32), dense_units=64)
    run("digits", load(), settings.parse_args())
