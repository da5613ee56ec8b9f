"""The stream: reading zipped and augmented pairs of mini-batches, without training, against twice the plain stream.

KERAS_BACKEND=tensorflow python benchmarks/stream.py
"""

import measure
import numpy as np

from experiments.data import Data
from keras_itdm import zip_batches


def images(size):
    """Random images of the size of CIFAR10's, cropped and flipped at random as for training on it."""
    rng = np.random.default_rng(0)
    x = rng.integers(256, size=(size, 32, 32, 3), dtype="uint8")
    y = rng.integers(10, size=size)
    return Data("cifar10", x, y, x[:1], y[:1], augment=True)


def epoch(stream):
    """A function that reads an epoch from its beginning, so that nothing is fetched ahead in another one's turn."""

    def read():
        for _ in stream:
            pass

    return read


def main():
    parser = measure.parser(__doc__)
    parser.add_argument("--train-size", type=int, default=50_000, help="images (default: 50000)")
    parser.add_argument("--batch-size", type=int, default=150, help="m, images a mini-batch (default: 150)")
    settings = parser.parse_args()
    data = images(settings.train_size)
    plain, partner = (data.batches(settings.batch_size, (0, seed), epochs=1) for seed in (1, 2))
    streams = {
        "plain": plain,
        "zipped, both augmented": zip_batches(plain, partner=partner),
        "zipped, partner of the same epoch": zip_batches(plain),
    }
    times = measure.interleaved({name: epoch(stream) for name, stream in streams.items()}, settings.repeats)
    steps = data.num_batches(settings.batch_size)
    times = {name: [seconds / steps for seconds in own] for name, own in times.items()}
    floor = times.pop("plain")
    bars = {"zipped, both augmented": 1.05}
    rows = [
        {
            "stream": name,
            "plain, ms a batch": measure.milliseconds(floor),
            "this, ms a pair": measure.milliseconds(own),
            "/ plain": measure.ratio(own, floor),
            "/ twice plain": measure.ratio(own, floor, 2),
            "bar": bars.get(name),
        }
        for name, own in times.items()
    ]
    measure.report("Zipped and augmented stream / twice the plain stream", rows, settings, "/ twice plain")


if __name__ == "__main__":
    main()
