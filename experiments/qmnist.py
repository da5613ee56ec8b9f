"""QMNIST for TensorFlow Datasets, which does not have it: import this module, then `tfds.load("qmnist", ...)`.

QMNIST (Yadav and Bottou, 2019) rebuilds MNIST from NIST's original scans, with the 50,000 test digits that MNIST lost.
The files are those its authors publish, in MNIST's idx format; each label has 8 columns, of which the digit is the
first.
"""

import gzip
import hashlib
import math
import struct

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

URL = "https://raw.githubusercontent.com/facebookresearch/qmnist/master/"
MD5 = {
    "qmnist-train-images-idx3-ubyte.gz": "ed72d4157d28c017586c42bc6afe6370",
    "qmnist-train-labels-idx2-int.gz": "0058f8dd561b90ffdd0f734c6a30e5e4",
    "qmnist-test-images-idx3-ubyte.gz": "1394631089c404de565df7b7aeaf9412",
    "qmnist-test-labels-idx2-int.gz": "5b5b05890a5e13444e108efe57b788aa",
}
MNIST_TEST_SIZE = 10_000  # of the 60,000 test digits, the first are those of MNIST's test set, in its order


class QMNIST(tfds.core.GeneratorBasedBuilder):
    """QMNIST's digits in their official order, which is MNIST's.

    The splits are "train" (60,000 digits), "test10k" (MNIST's test set) and "test50k" (the lost part of it).

    TensorFlow Datasets would check a download by SHA-256, but only MD5 sums of these files are published, by
    torchvision. So the builder checks those, and there is no `checksums.tsv`.

    Example:

    >>> x, y = tfds.load("qmnist", split="test50k", batch_size=-1, as_supervised=True)  # doctest: +SKIP
    """

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            description="MNIST, rebuilt from NIST Special Database 19, with all of its 60,000 test digits.",
            features=tfds.features.FeaturesDict(
                {"image": tfds.features.Image(shape=(28, 28, 1)), "label": tfds.features.ClassLabel(num_classes=10)}
            ),
            supervised_keys=("image", "label"),
            homepage="https://github.com/facebookresearch/qmnist",
            citation="""@inproceedings{yadav2019cold,
  title={Cold Case: The Lost {MNIST} Digits},
  author={Yadav, Chhavi and Bottou, L{\\'e}on},
  booktitle={Advances in Neural Information Processing Systems 32},
  year={2019}
}""",
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        paths = dl_manager.download({name: URL + name for name in MD5})
        for name, path in paths.items():
            check_md5(name, path)
        return {
            "train": self._generate_examples(paths, "train", slice(None)),
            "test10k": self._generate_examples(paths, "test", slice(MNIST_TEST_SIZE)),
            "test50k": self._generate_examples(paths, "test", slice(MNIST_TEST_SIZE, None)),
        }

    def _generate_examples(self, paths, part, rows):
        images = read_idx(paths[f"qmnist-{part}-images-idx3-ubyte.gz"], 0x0803, np.uint8, (28, 28))
        labels = read_idx(paths[f"qmnist-{part}-labels-idx2-int.gz"], 0x0C02, ">i4", (8,))
        if len(images) != len(labels):
            raise ValueError(
                f"There should be one label for each image. Got: {len(images)} images and {len(labels)} labels"
            )
        for index, (image, label) in enumerate(zip(images[rows], labels[rows], strict=True)):
            yield index, {"image": image[..., None], "label": label[0]}


def check_md5(name, path):
    """Raises a `ValueError` if the file at `path` is not the one published as `name`."""
    md5 = hashlib.md5(epath.Path(path).read_bytes(), usedforsecurity=False).hexdigest()
    if md5 != MD5[name]:
        raise ValueError(
            f"{name} should have the MD5 sum {MD5[name]}. Got: {md5}. Delete {path} and load the dataset again to "
            f"download it anew; if that does not help, {URL}{name} is no longer the file this builder was written for."
        )


def read_idx(path, magic, dtype, shape):
    """The array of a gzipped idx file: big-endian magic number, number of rows and their shape, then the values.

    Args:
        path: the file.
        magic: the number it should start with, which says the type of its values and how many axes they have.
        dtype: that type, for NumPy.
        shape: what each row should have, such as `(28, 28)`.

    Returns:
        Array of shape `(rows, *shape)`.

    Raises:
        ValueError: if the file is cut short or holds anything else.
    """
    try:
        content = gzip.decompress(epath.Path(path).read_bytes())
    except (EOFError, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} should be a complete gzip file. Got: {error}") from error
    header = struct.Struct(f">{2 + len(shape)}I")
    if len(content) < header.size:
        raise ValueError(f"{path} should start with {header.size} bytes of header. Got: {len(content)} bytes in all")
    got, rows, *sizes = header.unpack_from(content)
    if (got, *sizes) != (magic, *shape):
        raise ValueError(
            f"{path} should hold rows of shape {shape}, type {magic:#06x}. Got: {tuple(sizes)}, type {got:#06x}"
        )
    size = header.size + rows * math.prod(shape) * np.dtype(dtype).itemsize
    if len(content) != size:
        raise ValueError(f"{path} should hold {rows} rows, {size} bytes with the header. Got: {len(content)} bytes")
    return np.frombuffer(content, dtype, offset=header.size).reshape(rows, *shape)
