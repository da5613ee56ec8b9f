"""The mismatch between the features of training and validation data, by epoch."""

from typing import Any

import keras
import numpy as np

from keras_itdm._checks import check_flags, check_integer
from keras_itdm._mmd import flatten_features
from keras_itdm._two_sample_test import p_value, permute
from keras_itdm._typing import LabelFn
from keras_itdm.callbacks._feature_callback import FeatureCallback
from keras_itdm.kernels import Kernel, check_kernel


class FeatureDiscrepancy(FeatureCallback):
    """Logs MMD between the features of training and validation data, with its p-value, as an epoch ends.

    It works with an `ITDMModel` and, given `feature_layer`, with any compiled Keras model. What it logs can be used as
    any metric: it is in `History`, the progress bar and the files of `TensorBoard` (in the run "train") and
    `CSVLogger`, and `EarlyStopping`, `ReduceLROnPlateau` and `ModelCheckpoint` can monitor it (mode "min"). Put it
    *before* those in the list of callbacks, since Keras hands the logs of an epoch from one to the next.

    | key in the logs | what it is |
    |---|---|
    | `feature_mmd` | MMD between the features; with `by_class`, Match_c (Eq. 5), the mean over the classes |
    | `feature_mmd_p` | its p-value by a permutation test, see `keras_itdm.two_sample_test` |
    | `feature_mmd_class_0`, ... | with `by_class`, MMD of the class, for each that both choices of samples hold |
    | `feature_mmd_class_0_p`, ... | its p-value |

    Equally many samples of both are taken, the same ones in each epoch, since MMD depends on their number: even for
    equal distributions it is about √(2 / n) times a factor below 1. The p-value tells whether it is above what chance
    gives. Features are read in evaluation mode, without augmentation or dropout. It changes no bit of the training.

    Data is read once, as training begins. One thing is to be known about a `tf.data.Dataset` that shuffles anew in each
    epoch: if it is the one that `fit` trains on, reading it moves it on by one order. Pass a dataset of its own, or
    arrays.

    Args:
        train_data: Arrays `x` or `(x, y)`, or a finite, batched `tf.data.Dataset`, `keras.utils.PyDataset`, PyTorch
            `DataLoader` or generator of these.
        validation_data: The same.
        feature_layer: Name of the layer, as in `ITDMModel`, whose own it is by default; the last, if it has several.
        by_class: Whether to compare class by class; the data then needs labels.
        max_samples: How many samples of either are taken at most, chosen at random.
        permutations: Number of permutations. With 0 no p-values are logged.
        every: Number of epochs from one measurement to the next, beginning with the first of `fit`. Between them the
            keys are missing, as those of validation are with `validation_freq`.
        unbiased: Whether to log the unbiased estimate of MMD² instead of MMD: 0 on average for equal distributions, and
            negative at times.
        kernel: A `Kernel`. Defaults to the paper's five kernels around the median squared distance.
        label_fn: Function from `y` to the labels, where `y` has several parts. Defaults to that of `ITDMModel`, or `y`.
        batch_size: Number of samples a batch in reading features.
        seed: Integer; decides which samples are taken, and how they are permuted.
        name: Begins the keys, instead of `"feature_mmd"`: to look at several layers.

    Raises:
        ValueError: if an argument is not one of these; as training begins, if there is no such layer, or the data is
            empty, infinite, without labels that are needed, or without a class in common.

    Example:

    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="features"), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> x = np.random.default_rng(0).normal(size=(60, 8))
    >>> discrepancy = FeatureDiscrepancy(x[:30], x[30:] + 5.0, feature_layer="features", permutations=99)
    >>> history = model.fit(x[:30], x[:30, 0], epochs=2, verbose=0, callbacks=[discrepancy]).history
    >>> sorted(history)
    ['feature_mmd', 'feature_mmd_p', 'loss']
    >>> history["feature_mmd_p"]
    [0.01, 0.01]
    """

    def __init__(
        self,
        train_data: Any,
        validation_data: Any,
        feature_layer: str | None = None,
        by_class: bool = False,
        max_samples: int = 500,
        permutations: int = 200,
        every: int = 1,
        unbiased: bool = False,
        kernel: Kernel | None = None,
        label_fn: LabelFn | None = None,
        batch_size: int = 32,
        seed: int = 0,
        name: str = "feature_mmd",
    ):
        super().__init__(train_data, validation_data, feature_layer, every, max_samples, label_fn, batch_size, seed)
        check_integer("permutations", permutations, least=0)
        check_flags(by_class=by_class, unbiased=unbiased)
        self.by_class = by_class
        self.permutations = permutations
        self.unbiased = unbiased
        self.kernel = check_kernel(kernel)
        self.name = name

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        self._classes, self._num_classes, self._compared = None, 1, ()
        if self.by_class:
            self._classes, self._num_classes = self.classes()
            self._compared = self._classes_in_common()

    def _classes_in_common(self):
        for argument, classes in zip(("train_data", "validation_data"), self._classes, strict=True):
            if classes is None:
                raise ValueError(f"`by_class=True` needs labels: {argument}=(x, y). Received `{argument}` without")
        in_common = np.intersect1d(*self._classes)
        in_common = in_common[in_common >= 0]
        if not len(in_common):
            raise ValueError(
                "The samples of training and validation data should have a class in common. They have none"
            )
        return in_common

    def look(self, epoch, logs):
        if logs is not None:
            logs.update(self._measure())

    def _measure(self):
        x, y = (keras.ops.convert_to_numpy(f) for f in flatten_features(*self.features()))
        classes = self._classes or [np.zeros(len(x), "int32"), np.zeros(len(y), "int32")]
        statistics, _ = permute(
            x,
            y,
            *classes,
            self._num_classes,
            self.permutations,
            np.random.default_rng(self.seed),
            self.kernel,
            self.unbiased,
        )
        values = {self.name: statistics.mean(axis=0)}
        values |= {f"{self.name}_class_{k}": statistics[k] for k in self._compared}
        measured = {}
        for key, statistic in values.items():
            measured[key] = float(statistic[0])
            if self.permutations:
                measured[f"{key}_p"] = float(p_value(statistic))
        return measured
