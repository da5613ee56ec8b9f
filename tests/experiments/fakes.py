"""Stand-ins for what the examples download: the same `tfds.load`, a few random examples, no network."""

import contextlib
import gzip
import hashlib
import pathlib
import struct
from unittest import mock

import numpy as np
import tensorflow_datasets as tfds

from experiments import qmnist


@contextlib.contextmanager
def fake_datasets(folder, num_examples=40):
    """Within it, `tfds.load` gives random images with labels from all classes, and downloads nothing.

    "qmnist" comes from its own builder, which reads fake files of QMNIST's format: `num_examples` in "train", as many
    in "test10k", and as many in "test50k". In any other dataset all splits hold the same `num_examples`, and a split
    may have any name.

    Args:
        folder: an empty one, for QMNIST's files. Nothing is written outside it.
        num_examples: the number of examples in each split.

    Example:

    ```python
    def test_stl10(tmp_path):
        with fake_datasets(tmp_path):
            runpy.run_path("examples/stl10.py", run_name="__main__")
    ```
    """
    folder = pathlib.Path(folder)
    load = tfds.load
    write_qmnist(folder / "files", num_examples, 2 * num_examples)
    with published(folder / "files", mnist_test_size=num_examples):
        qmnist.QMNIST(data_dir=folder).download_and_prepare()

    def fake_load(name, data_dir=None, **options):
        if name == "qmnist":
            return load(name, data_dir=folder, download=False, **options)
        with (
            tfds.testing.mock_data(num_examples, policy=tfds.testing.MockPolicy.USE_CODE),
            # `batch_size=-1` asks for a batch of so many, and of endless memory where the splits are unknown.
            mock.patch.object(tfds.core.SplitDict, "total_num_examples", num_examples),
        ):
            return load(name, **options)

    with mock.patch.object(tfds, "load", fake_load):
        yield


def write_qmnist(folder, train_size, test_size):
    """Writes QMNIST's four files, with random digits, and returns those: `{"train": (images, labels), "test": ...}`."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    written = {}
    for part, size in (("train", train_size), ("test", test_size)):
        images = rng.integers(0, 256, (size, 28, 28), dtype=np.uint8)
        labels = rng.integers(0, 100_000, (size, 8))
        labels[:, 0] = rng.permutation(np.arange(size) % 10)
        write_idx(folder / f"qmnist-{part}-images-idx3-ubyte.gz", 0x0803, images)
        write_idx(folder / f"qmnist-{part}-labels-idx2-int.gz", 0x0C02, labels.astype(">i4"))
        written[part] = images, labels[:, 0]
    return written


def write_idx(path, magic, values):
    header = struct.pack(f">{1 + values.ndim}I", magic, *values.shape)
    path.write_bytes(gzip.compress(header + values.tobytes()))


@contextlib.contextmanager
def published(folder, mnist_test_size):
    """Within it, QMNIST's files are those in `folder`: it downloads them, and their sums are the right ones."""
    md5 = {name: hashlib.md5((folder / name).read_bytes()).hexdigest() for name in qmnist.MD5}

    def download(manager, urls):
        return {name: folder / name for name in urls}

    with (
        mock.patch.multiple(qmnist, MD5=md5, MNIST_TEST_SIZE=mnist_test_size),
        mock.patch.object(tfds.download.DownloadManager, "download", download),
    ):
        yield
