"""Match of Eq. 3 and 5 as a model takes it: of two mini-batches or the halves of one, on one device or several, with
labels picked out of its targets and as many classes as its output is wide."""

import copy
import warnings

import keras
from keras import ops, tree

from keras_itdm import _replicas
from keras_itdm._feature_layers import mean_over_layers
from keras_itdm._gradients import squared_norm, value_and_gradients, with_gradient
from keras_itdm._labels import (
    check_are_classes,
    check_loss_is_of_classes,
    labels_of,
    may_be_labels,
    num_classes_matched,
    num_classes_of,
    num_outside,
    stratified_halves,
    without_signs,
)
from keras_itdm.losses import ClassConditionalMMD, JointMMD, MatchingLoss

MATCHINGS = {"joint": JointMMD, "class_conditional": ClassConditionalMMD}


def loss_of(matching):
    """The matching loss of a name, or the one that is given.

    Raises:
        ValueError: if it is neither.
    """
    if isinstance(matching, str) and matching in MATCHINGS:
        return MATCHINGS[matching]()
    if isinstance(matching, MatchingLoss):
        return matching
    raise ValueError(f"`matching` should be one of {list(MATCHINGS)} or a MatchingLoss. Received: {matching!r}")


class Match:
    """Match of a model.

    Args:
        model: An `ITDMModel`. Its `feature_layer`, `matching`, `label_fn`, `output_names` and `synchronized` are looked
            up as needed.
    """

    def __init__(self, model):
        self._model = model
        self._loss = loss_of(model.matching)
        self._made = set()  # remarks on labels, each of which is made once
        self._has_seen_all = False

    def __call__(self, features, y, partner_features=None, partner_y=None):
        """Match between the features of S1 and of S2, or between the halves of S1 where no S2 is given.

        Args:
            features: List of the features of S1 at each feature layer; `partner_features` are those of S2.

        Returns:
            Scalar: its value, which has a gradient. Of several layers, the weighted mean.
        """
        function, layers = self._function(features, y, partner_features, partner_y)
        return mean_over_layers(self._model.feature_layer, [function(*tensors) for tensors in layers])

    def weighted(self, weigh, features, y, partner_features=None, partner_y=None):
        """w · Match, for a w that depends on how long the gradient of Match is.

        Args:
            weigh: List of a function for each feature layer from ‖∂Match/∂H1‖ + ‖∂Match/∂H2‖, norms over the
                mini-batches of all replicas, to w.

        Returns:
            Three scalars: w · Match, with its gradient; Match and w, without. Of several layers, the weighted mean of
            each.
        """
        function, layers = self._function(features, y, partner_features, partner_y)
        parts = []
        for weigh_layer, tensors in zip(weigh, layers, strict=True):
            value, gradients = value_and_gradients(function, *tensors)
            squared_norms = [_replicas.total(squared_norm(gradient)) for gradient in gradients]
            norm = sum(ops.sqrt(squared) for squared in squared_norms) / _replicas.num_replicas()
            weight = weigh_layer(norm)
            weighted = with_gradient(weight * value, tensors, [weight * gradient for gradient in gradients])
            parts.append((weighted, value, weight))
        return tuple(mean_over_layers(self._model.feature_layer, part) for part in zip(*parts, strict=True))

    def _function(self, features, y, partner_features, partner_y):
        """Match as a function of features alone, and those features of each layer."""
        labels = self._labels(y)
        if partner_features is not None:
            partner_labels = self._labels(partner_y)

            def between_batches(h1, h2):
                return self._over_replicas(self._loss, h1, labels, h2, partner_labels)

            return between_batches, list(zip(features, partner_features, strict=True))
        if not self._loss.needs_labels and not may_be_labels(labels):
            labels = None
        num_classes = getattr(self._loss, "num_classes", None)
        between_halves = lambda *batch: self._loss(*stratified_halves(*batch, num_classes))  # noqa: E731
        return lambda h1: self._over_replicas(between_halves, h1, labels), [(h1,) for h1 in features]

    def _over_replicas(self, function, *batches):
        in_float32 = lambda *batches: ops.cast(function(*batches), "float32")  # noqa: E731
        return _replicas.evaluate(in_float32, batches, self._model.synchronized)

    def _labels(self, y):
        label_fn, output_names = self._model.label_fn, self._model.output_names
        labels = labels_of(y, label_fn, output_names, needed=self._loss.needs_labels)
        return without_signs(labels, getattr(self._model, "loss", None), label_fn, output_names)

    def check_labels(self, batch):
        """
        Raises:
            ValueError: if a batch, `(x, y)` or the like, lacks labels that are needed.
        """
        if self._loss.needs_labels and self._labels(keras.utils.unpack_x_y_sample_weight(batch)[1]) is None:
            raise ValueError(
                f"{type(self._loss).__name__} matches class by class and needs labels. Received data "
                "without: give fit(x, y), or a stream of (x, y), or match jointly: matching='joint'."
            )

    def look_at_arrays(self, x, y, batch_size):
        """A `fit` begins. Looks at `y` as `check_values` does, if it is of arrays; Keras objects to other things."""
        self._has_seen_all = y is not None and all(hasattr(part, "shape") for part in tree.flatten(y))
        if self._has_seen_all:
            self.check_values((x, y), batch_size)

    @property
    def looks_at_batches(self):
        """Whether `check_values` would find anything in a batch that it has not seen."""
        return not self._has_seen_all and isinstance(loss_of(self._model.matching), ClassConditionalMMD)

    def check_values(self, batch, batch_size=None):
        """Looks at labels whose values are at hand, and warns once if some are outside [0, K), once if a step will
        match few of the classes.

        Args:
            batch: `(x, y)` or the like: a batch or, with `batch_size`, all there is.

        Raises:
            ValueError: if the labels are evidently no classes, and the number of classes is not the user's word.
        """
        loss, labels = loss_of(self._model.matching), self._labels(keras.utils.unpack_x_y_sample_weight(batch)[1])
        inferred = isinstance(loss, ClassConditionalMMD) and loss.num_classes is None
        if inferred and not callable(self._model.label_fn):
            check_are_classes(labels)
        if not isinstance(self._loss, ClassConditionalMMD) or not self._loss.num_classes:
            return
        for remark in (self._on_labels_outside, self._on_few_classes):
            if remark.__name__ in self._made:
                continue
            try:
                message = remark(labels, batch_size)
            except Exception:  # in a graph, or of a kind that raises an error of its own where it is matched
                continue
            if message:
                self._made.add(remark.__name__)
                warnings.warn(message, stacklevel=3)

    def _on_labels_outside(self, labels, batch_size):
        num_classes, ignored = self._loss.num_classes, getattr(self._model.loss, "ignore_class", None)
        outside = num_outside(labels, num_classes, ignored)
        return outside and (
            f"{outside} of {labels.shape[0]} labels are no classes: NaN, or outside [0, {num_classes}). These samples "
            "take no part in matching, as if they were -1, which says so on purpose. Class indices begin with 0, and "
            "the model's output should be as wide as there are classes."
        )

    def _on_few_classes(self, labels, batch_size):
        num_classes, halves = self._loss.num_classes, self._model.partner == "split"
        batch_size = batch_size or labels.shape[0]
        expected = num_classes_matched(labels, num_classes, batch_size, halves)
        where = "halves of a mini-batch" if halves else "mini-batches"
        return expected < num_classes / 2 and (
            f"Of {num_classes} classes, a step will match about {expected:.2g}: those that both {where} of "
            f"{batch_size} samples hold. Match is the mean over all {num_classes}, and small accordingly. Larger "
            "batches match more of them, and a larger `match_weight` makes up for the rest; or match jointly: "
            "matching='joint'."
        )

    def set_num_classes(self, output_shape):
        """Tells the class-conditional loss the number of classes, if its user did not: the width of the model's output.

        To be called whenever a step is traced: the model may have got another output layer since.

        Args:
            output_shape: Shape of the model's output, or those of several.
        """
        loss = loss_of(self._model.matching)
        if not isinstance(loss, ClassConditionalMMD) or loss.num_classes is not None:
            return
        check_loss_is_of_classes(getattr(self._model, "loss", None), self._model.label_fn, self._model.output_names)
        num_classes = num_classes_of(output_shape, self._model.label_fn, self._model.output_names)
        if self._loss.num_classes != num_classes:
            self._loss = copy.copy(loss)
            self._loss.num_classes = num_classes


def less_is_better(callbacks):
    """Tells those callbacks of a list that watch Match, such as `EarlyStopping`, that less of it is better."""
    for callback in tree.flatten(getattr(callbacks, "callbacks", callbacks)):
        if getattr(callback, "monitor", None) == "match_loss" and getattr(callback, "mode", None) == "auto":
            callback.mode = "min"
    return callbacks


class MatchLoss(keras.metrics.Mean):
    """The mean of Match over the samples of an epoch; NaN where it was not computed, as with λ = 0."""

    def result(self):
        return ops.where(self.count > 0, super().result(), float("nan"))
