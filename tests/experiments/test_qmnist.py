"""QMNIST's builder, on a few random digits in QMNIST's own file format."""

import gzip
import pathlib
import re
import tempfile

import numpy as np
import pytest
import tensorflow_datasets as tfds

from experiments import qmnist
from tests.experiments.fakes import published, write_idx, write_qmnist

TRAIN_SIZE, MNIST_TEST_SIZE, TEST_SIZE = 20, 4, 13
IMAGES, LABELS = "qmnist-test-images-idx3-ubyte.gz", "qmnist-test-labels-idx2-int.gz"


class QMNISTTest(tfds.testing.DatasetBuilderTestCase):
    """What TensorFlow Datasets asks of every builder."""

    DATASET_CLASS = qmnist.QMNIST
    SPLITS = {"train": TRAIN_SIZE, "test10k": MNIST_TEST_SIZE, "test50k": TEST_SIZE - MNIST_TEST_SIZE}  # noqa: RUF012
    DL_DOWNLOAD_RESULT = {name: name for name in qmnist.MD5}  # noqa: RUF012
    SKIP_CHECKSUMS = True  # those of SHA-256: the builder checks MD5 sums

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.EXAMPLE_DIR = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        write_qmnist(cls.EXAMPLE_DIR, TRAIN_SIZE, TEST_SIZE)
        cls.enterClassContext(published(cls.EXAMPLE_DIR, MNIST_TEST_SIZE))


@pytest.fixture
def files(tmp_path):
    return tmp_path / "files"


@pytest.fixture
def builder(tmp_path):
    return qmnist.QMNIST(data_dir=tmp_path / "data")


def test_digits_are_those_of_the_files_in_their_order(files, builder):
    written = write_qmnist(files, TRAIN_SIZE, TEST_SIZE)
    with published(files, MNIST_TEST_SIZE):
        builder.download_and_prepare()
    splits = {
        "train": ("train", slice(None)),
        "test10k": ("test", slice(0, MNIST_TEST_SIZE)),
        "test50k": ("test", slice(MNIST_TEST_SIZE, TEST_SIZE)),
    }
    for split, (part, rows) in splits.items():
        images, labels = builder.as_dataset(split=split, batch_size=-1, as_supervised=True)
        np.testing.assert_array_equal(images, written[part][0][rows, ..., None])
        np.testing.assert_array_equal(labels, written[part][1][rows])


def test_another_file_than_the_published_one(files, builder):
    write_qmnist(files, TRAIN_SIZE, TEST_SIZE)
    with published(files, MNIST_TEST_SIZE):
        expected = qmnist.MD5[LABELS]
        write_idx(files / LABELS, 0x0C02, np.zeros((TEST_SIZE, 8), ">i4"))
        message = rf"{LABELS} should have the MD5 sum {expected}\. Got: [0-9a-f]{{32}}\. Delete {files / LABELS} and"
        with pytest.raises(ValueError, match=message):
            builder.download_and_prepare()


def test_fewer_labels_than_images(files, builder):
    write_qmnist(files, TRAIN_SIZE, TEST_SIZE)
    write_idx(files / LABELS, 0x0C02, np.zeros((TEST_SIZE - 1, 8), ">i4"))
    with (
        published(files, MNIST_TEST_SIZE),
        pytest.raises(ValueError, match=r"should be one label for each image. Got: 13 images and 12 labels"),
    ):
        builder.download_and_prepare()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda file: file[:-100], "should be a complete gzip file. Got: Compressed file ended"),
        (lambda file: b"404: Not Found", "should be a complete gzip file. Got: Not a gzipped file"),
        (lambda file: gzip.compress(gzip.decompress(file)[:-100]), "should hold 13 rows, 10208 bytes with the header"),
        (lambda file: gzip.compress(gzip.decompress(file) + b"\0"), "10208 bytes with the header. Got: 10209 bytes"),
        (lambda file: gzip.compress(b"\0\0\x08\x03"), "should start with 16 bytes of header. Got: 4 bytes"),
        (
            lambda file: gzip.compress(b"\0\0\x0c\x03" + gzip.decompress(file)[4:]),
            "should hold rows of shape (28, 28), type 0x0803. Got: (28, 28), type 0x0c03",
        ),
    ],
    ids=["cut gzip", "no gzip", "cut content", "longer content", "no content", "other type"],
)
def test_damaged_file(files, damage, message):
    write_qmnist(files, TRAIN_SIZE, TEST_SIZE)
    path = files / IMAGES
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=re.escape(f"{path} ") + ".*" + re.escape(message)):
        qmnist.read_idx(path, 0x0803, np.uint8, (28, 28))
