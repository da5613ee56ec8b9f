"""Matching losses: how far the features of two mini-batches lie apart."""

import numbers
from typing import Any

import keras
from keras import ops

from keras_itdm._checks import check_flags
from keras_itdm._labels import as_labels, class_indices
from keras_itdm._layouts import FORMS, Form, Plan
from keras_itdm._mmd import flatten_features, root, squared_mmd
from keras_itdm._typing import Array, FormName
from keras_itdm.kernels import Kernel, check_kernel


class MatchingLoss:
    """Base class: a discrepancy between the features of two mini-batches, S1 and S2.

    A subclass overrides `call`, which is handed float32 features of shape `(samples, features)`, and `get_config` if it
    takes arguments. Register it with `keras.saving.register_keras_serializable` to have it saved with a model.

    Example:

    >>> @keras.saving.register_keras_serializable(package="example")
    ... class MeanMatching(MatchingLoss):
    ...     def call(self, features, labels, partner_features, partner_labels):
    ...         difference = ops.mean(features, axis=0) - ops.mean(partner_features, axis=0)
    ...         return ops.sum(difference**2)
    >>> loss = MeanMatching()
    >>> float(loss(np.zeros((4, 2)), None, np.ones((3, 2)), None))
    2.0
    """

    needs_labels: bool = False
    """Whether both batches must come with labels."""

    def __call__(
        self, features: Array, labels: Array | None, partner_features: Array, partner_labels: Array | None
    ) -> Array:
        """Computes the loss.

        Args:
            features: H1, the features of S1, of shape `(m1, ...)` and any dtype. Axes beyond the second are flattened.
            labels: The labels of S1: class indices of shape `(m1,)` or `(m1, 1)`, one-hot or soft labels of shape
                `(m1, classes)`, or `None` for a loss that needs none.
            partner_features: H2, the features of S2, of shape `(m2, ...)`.
            partner_labels: The labels of S2, in the form of `labels`.

        Returns:
            Float32 scalar tensor.

        Raises:
            ValueError: if labels are missing that are needed, or there are not as many as samples; if the features are
                not real numbers, or not of the same size in both batches.
        """
        if self.needs_labels and (labels is None or partner_labels is None):
            missing = [name for name, y in (("S1", labels), ("S2", partner_labels)) if y is None]
            raise ValueError(
                f"{type(self).__name__} matches class by class and needs the labels of both batches. "
                f"Received none for {' and '.join(missing)}. Give labels, or match jointly: matching='joint'."
            )
        features, partner_features = flatten_features(features, partner_features)
        if self.needs_labels:
            labels = as_labels(labels, features.shape[0])
            partner_labels = as_labels(partner_labels, partner_features.shape[0])
        return self.call(features, labels, partner_features, partner_labels)

    def call(
        self, features: Array, labels: Array | None, partner_features: Array, partner_labels: Array | None
    ) -> Array:
        raise NotImplementedError(f"{type(self).__name__} should override `call`.")

    def get_config(self) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


class _MMDLoss(MatchingLoss):
    """What the two forms of MMD share: their arguments."""

    def __init__(
        self, kernel: Kernel | None = None, squared: bool = False, unbiased: bool = False, form: FormName = "auto"
    ):
        if isinstance(kernel, dict):
            kernel = keras.saving.deserialize_keras_object(kernel)
        kernel = check_kernel(kernel)
        check_flags(squared=squared, unbiased=unbiased)
        if unbiased and not squared:
            raise ValueError(
                "`unbiased=True` needs `squared=True`: the U-statistic can be negative, and then has no root. "
                f"Received: squared={squared}"
            )
        if form not in FORMS:
            raise ValueError(f"`form` should be one of {list(FORMS)}. Received: {form!r}")
        self.kernel = kernel
        self.squared = bool(squared)
        self.unbiased = bool(unbiased)
        self.form = form

    def _values(self, features, classes, partner_features, partner_classes, num_classes):
        """MMD, or its square, of each class."""
        values = squared_mmd(
            features, partner_features, classes, partner_classes, num_classes, self.kernel, self.unbiased, self.form
        )
        return values if self.squared else root(values)

    def get_config(self):
        kernel = keras.saving.serialize_keras_object(self.kernel)
        return {"kernel": kernel, "squared": self.squared, "unbiased": self.unbiased, "form": self.form}


@keras.saving.register_keras_serializable(package="keras_itdm")
class JointMMD(_MMDLoss):
    """Match_j, Eq. 3: MMD between the features of S1 and S2, whatever their classes (ITDM-j).

    Args:
        kernel: A `Kernel`. Defaults to the paper's five kernels around the median squared distance.
        squared: Whether to leave out the square root.
        unbiased: Whether to take the U-statistic of Gretton et al. (2012), which leaves out the diagonal and can be
            negative; it needs `squared=True`.
        form: How the pairs of samples are gone through, with the same result: `"auto"`, which chooses by the sizes of
            the batches; `"pairs"`, as one matrix; or `"tiles"`, some of its rows at a time, in less memory and more
            time. (`"blocks"`, which is for several classes, is one block here.) `form_for` tells what is chosen.

    Raises:
        ValueError: if `kernel` is not a kernel, `form` is unknown, or `unbiased` comes without `squared`.

    Example:

    >>> loss = JointMMD()
    >>> h1, h2 = np.random.default_rng(0).normal(size=(2, 100, 8))
    >>> float(loss(h1, None, h2, None)) < float(loss(h1, None, h2 + 1.0, None))
    True
    """

    def call(self, features, labels, partner_features, partner_labels):
        one_class = ops.zeros_like(features[:, 0], dtype="int32")
        partner_class = ops.zeros_like(partner_features[:, 0], dtype="int32")
        return self._values(features, one_class, partner_features, partner_class, 1)[0]

    def form_for(self, batch_size: int, partner_size: int) -> Form:
        """The `keras_itdm._layouts.Form` that batches of these sizes are matched in."""
        return Plan(batch_size, partner_size, 1, self.form).form


@keras.saving.register_keras_serializable(package="keras_itdm")
class ClassConditionalMMD(_MMDLoss):
    """Match_c, Eq. 5: the mean over the classes of MMD between their features in S1 and in S2 (ITDM-c).

    A class that either batch lacks contributes 0, and so does, if `unbiased`, one with fewer than two samples in
    either. A label that is no class index, such as -1, marks an unlabelled sample, which takes no part; so does a
    one-hot row of zeros. Soft labels count for their largest entry.

    Args:
        num_classes: Number of classes `K`, by which the sum is divided. `None` leaves it to the width of one-hot
            labels, or to `ITDMModel`, which takes it from the model's output.
        kernel: A `Kernel`. Defaults to the paper's five kernels around the median squared distance, which is
            estimated for each class.
        squared: Whether to leave out the square root.
        unbiased: Whether to take the U-statistic of Gretton et al. (2012); it needs `squared=True`.
        form: How the pairs of samples are gone through, with the same result: `"auto"`, which chooses by the sizes of
            the batches and the number of classes; `"blocks"`, class by class; `"pairs"`, as one matrix of all samples;
            or `"tiles"`, some rows of that at a time, in less memory and more time. `form_for` tells what is chosen.

    Raises:
        ValueError: if `num_classes` is not a positive integer, `kernel` is not a kernel, `form` is unknown, or
            `unbiased` comes without `squared`; when called, if labels are missing, of the wrong shape, not as many as
            samples, strings, or leave the number of classes unknown.

    Example:

    >>> loss = ClassConditionalMMD(num_classes=2)
    >>> h1, h2 = np.random.default_rng(0).normal(size=(2, 100, 8))
    >>> y1, y2 = np.arange(100) % 2, np.arange(100) // 50
    >>> float(loss(h1, y1, h2, y2)) < float(loss(h1, y1, h2 + y2[:, None], y2))
    True
    """

    needs_labels = True

    def __init__(
        self,
        num_classes: int | None = None,
        kernel: Kernel | None = None,
        squared: bool = False,
        unbiased: bool = False,
        form: FormName = "auto",
    ):
        super().__init__(kernel, squared, unbiased, form)
        whole = isinstance(num_classes, numbers.Integral) and not isinstance(num_classes, bool)
        if num_classes is not None and not (whole and num_classes >= 1):
            raise ValueError(f"`num_classes` should be a positive integer or None. Received: {num_classes!r}")
        self.num_classes = num_classes if num_classes is None else int(num_classes)

    def call(self, features, labels, partner_features, partner_labels):
        num_classes = self.num_classes or self._width(labels)
        classes = class_indices(labels, num_classes)
        partner_classes = class_indices(partner_labels, num_classes)
        return ops.mean(self._values(features, classes, partner_features, partner_classes, num_classes))

    def form_for(self, batch_size: int, partner_size: int) -> Form:
        """The `keras_itdm._layouts.Form` that batches of these sizes are matched in, once `num_classes` is known."""
        if self.num_classes is None:
            raise ValueError("The form depends on the number of classes. Pass ClassConditionalMMD(num_classes=...).")
        return Plan(batch_size, partner_size, self.num_classes, self.form).form

    @staticmethod
    def _width(labels):
        if len(labels.shape) == 2 and labels.shape[1] > 1:
            return labels.shape[1]
        raise ValueError(
            f"The number of classes cannot be inferred from labels of shape {tuple(labels.shape)}. "
            "Pass ClassConditionalMMD(num_classes=...)."
        )

    def get_config(self):
        return {"num_classes": self.num_classes, **super().get_config()}
