"""The data sets, and the streams of mini-batches drawn from them.

A stream depends on the seed and the epoch alone: it can be entered at any epoch, and then goes on as if it had been
read from the first. That is what lets an interrupted training end where an uninterrupted one does.
"""

import dataclasses

import keras
import numpy as np

TITLES = {
    "digits": "digits",
    "qmnist": "QMNIST",
    "kmnist": "KMNIST",
    "fashion_mnist": "Fashion-MNIST",
    "cifar10": "CIFAR10",
    "stl10": "STL10",
}


@dataclasses.dataclass
class Data:
    """Images of shape `(n, height, width, channels)` and class indices `(n,)`, for training and for test.

    The network sees images times `scale`. With `augment`, training images are cropped at random from a margin of 4
    black pixels and flipped left to right with even chance.
    """

    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    scale: float = 1 / 255
    augment: bool = False

    @property
    def title(self):
        return TITLES[self.name]

    @property
    def num_classes(self):
        return int(max(self.y_train.max(), self.y_test.max())) + 1

    @property
    def input_shape(self):
        return self.x_train.shape[1:]

    def take(self, train_size, validation_size=0, seed=0):
        """A random choice of `train_size` training images that depends on `seed` alone, all of them for `None`.

        With `validation_size`, that many of the other training images take the place of the test images.
        """
        if train_size is None:
            return self
        if not 0 < train_size <= len(self.x_train) - validation_size:
            raise SystemExit(f"--train-size should be in 1..{len(self.x_train) - validation_size}. Got: {train_size}")
        order = np.random.default_rng(seed).permutation(len(self.x_train))
        train, rest = order[:train_size], order[train_size : train_size + validation_size]
        taken = dataclasses.replace(self, x_train=self.x_train[train], y_train=self.y_train[train])
        if validation_size:
            taken.x_test, taken.y_test = self.x_train[rest], self.y_train[rest]
        return taken

    def poison(self, share, seed=0):
        """Replaces the labels of a random `share` of the training images by labels drawn from all classes alike."""
        rng = np.random.default_rng(seed)
        poisoned = rng.permutation(len(self.y_train))[: round(share * len(self.y_train))]
        y_train = self.y_train.copy()
        y_train[poisoned] = rng.integers(self.num_classes, size=len(poisoned))
        return dataclasses.replace(self, y_train=y_train)

    def training(self):
        """The training images, as the network sees them but for augmentation, and their one-hot labels."""
        return self._as_seen(self.x_train, self.y_train)

    def test(self, count=None):
        """The first `count` test images, as the network sees them, and their one-hot labels."""
        return self._as_seen(self.x_test[:count], self.y_test[:count])

    def _as_seen(self, x, y):
        return self.scale * x.astype("float32"), np.eye(self.num_classes, dtype="float32")[y]

    def num_batches(self, batch_size):
        return -(-len(self.x_train) // batch_size)

    def batches(self, batch_size, seed, epochs, first_epoch=0):
        """The training data from `first_epoch` to before `epochs`, each epoch in a new order.

        Args:
            batch_size: Samples a batch. The last batch of an epoch holds what is left.
            seed: Tuple of two integers. Streams of different seeds are independent.
            epochs: Number of the epoch at which the stream ends.
            first_epoch: Number of the epoch at which it starts, from 0.

        Returns:
            `tf.data.Dataset` of images `(batch, height, width, channels)` and one-hot labels `(batch, classes)`.
        """
        import tensorflow as tf

        fold_in = tf.random.experimental.stateless_fold_in
        with tf.device("cpu"):
            x, y = tf.constant(self.x_train), tf.one_hot(self.y_train, self.num_classes)

        def epoch_batches(epoch):
            epoch_seed = fold_in(tf.constant(seed, tf.int64), epoch)
            order = tf.random.experimental.stateless_shuffle(tf.range(len(self.x_train)), epoch_seed)
            indices = tf.data.Dataset.from_tensor_slices(order).batch(batch_size).enumerate()
            return indices.map(lambda index, i: load_batch(i, fold_in(epoch_seed, index)), tf.data.AUTOTUNE)

        def load_batch(indices, batch_seed):
            images = tf.gather(x, indices)
            if self.augment:
                images = crop_and_flip(images, batch_seed)
            return self.scale * tf.cast(images, tf.float32), tf.gather(y, indices)

        return tf.data.Dataset.range(first_epoch, epochs).flat_map(epoch_batches).prefetch(tf.data.AUTOTUNE)


def crop_and_flip(images, seed, margin=4):
    """Each image cropped at random from a black margin, and flipped left to right with even chance.

    Args:
        images: Tensor of shape `(batch, height, width, channels)`.
        seed: Tensor of two integers. The same seed gives the same images.
        margin: Pixels, on each side.
    """
    import tensorflow as tf

    _, height, width, _ = images.shape
    count = tf.shape(images)[0]
    crop_seed, flip_seed = tf.unstack(tf.random.split(seed, 2))
    top, left = tf.unstack(tf.random.stateless_uniform([2, count], crop_seed, 0, 2 * margin + 1, tf.int32))
    images = tf.pad(images, [[0, 0], [margin, margin], [margin, margin], [0, 0]])
    images = tf.gather(images, top[:, None] + tf.range(height), axis=1, batch_dims=1)
    images = tf.gather(images, left[:, None] + tf.range(width), axis=2, batch_dims=1)
    flipped = tf.random.stateless_uniform([count, 1, 1, 1], flip_seed) < 0.5
    return tf.where(flipped, tf.reverse(images, [2]), images)


def load(name):
    """One of the data sets in `TITLES`, from TensorFlow Datasets, which downloads it the first time."""
    if keras.backend.backend() != "tensorflow":  # TensorFlow only feeds the data: it should not take a GPU's memory
        import tensorflow as tf

        tf.config.set_visible_devices([], "GPU")
    return _digits() if name == "digits" else _from_tfds(name)


def _digits():
    """Scikit-learn's 1,797 images of 8 × 8 (no download): a fixed random 500 to train on, and 1,297 to test on."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    x = x.reshape(-1, 8, 8, 1)
    order = np.random.default_rng(0).permutation(len(x))
    train, test = order[:500], order[500:]
    return Data("digits", x[train], y[train], x[test], y[test], scale=1 / 16)


def _from_tfds(name):
    """QMNIST is tested on MNIST's 10,000; of STL10 the labelled split is taken, resized to 32 × 32, as in the paper."""
    import tensorflow_datasets as tfds

    if name == "qmnist":
        from experiments import qmnist  # noqa: F401  makes it known to TensorFlow Datasets
    splits = ["train", "test10k" if name == "qmnist" else "test"]
    (x_train, y_train), (x_test, y_test) = tfds.as_numpy(
        tfds.load(name, split=splits, batch_size=-1, as_supervised=True)
    )
    if name == "stl10":
        x_train, x_test = _resized(x_train), _resized(x_test)
    return Data(name, x_train, y_train, x_test, y_test, augment=name in ("cifar10", "stl10"))


def _resized(images, size=32):
    import tensorflow as tf

    resized = [tf.image.resize(part, (size, size), antialias=True) for part in np.array_split(images, 10) if len(part)]
    return np.concatenate([np.uint8(np.clip(np.round(part), 0, 255)) for part in resized])
