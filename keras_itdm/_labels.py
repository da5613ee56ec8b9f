"""From targets to classes: which part of the targets are the labels, and which class each sample is of.

One rule for all that reads labels. A class index is a whole number of at least 0 and below the number of classes K; a
one-hot row, or soft labels, stand for the class of their largest entry; of two classes, a number between 0 and 1 for
the nearer one. Whatever else there is, such as -1, a number from K on, a fraction, NaN or a row of zeros, is no class:
the sample takes no part where classes are compared. Targets that are evidently none of this are refused.
"""

import keras
import numpy as np
from keras import ops, tree

from keras_itdm._checks import is_function
from keras_itdm._ops import take, where

NO_CLASS = -1
_SAY_WHICH = (
    "Say which to match on: ITDMModel(..., label_fn=...) takes the name or index of an output, or a function from y to "
    "labels."
)


def check_label_fn(label_fn):
    """
    Raises:
        ValueError: if it says nothing about where labels are.
    """
    names_output = isinstance(label_fn, (str, int)) and not isinstance(label_fn, bool)
    if not (label_fn is None or names_output or is_function(label_fn)):
        raise ValueError(
            "`label_fn` should be the name or index of an output, or a function from y to labels. "
            f"Received: {label_fn!r}"
        )


def labels_of(targets, label_fn, output_names=None, needed=False):
    """The labels, out of the targets of a batch.

    Args:
        targets: `y` as a batch holds it: labels alone, or a list or dict of several parts.
        label_fn: As in `ITDMModel`: the name or index of a part, a function from `y` to the labels, or `None`.
        output_names: Names of the model's outputs, in the order of the parts of a list.
        needed: Whether labels in parts are of no use.

    Raises:
        ValueError: if `label_fn` names no part, or there are several and it is `None` although labels are needed.
    """
    if targets is None or label_fn is None:
        if tree.is_nested(targets) and len(tree.flatten(targets)) == 1:  # of one output, in a list or dict
            return tree.flatten(targets)[0]
        if needed and tree.is_nested(targets):
            raise ValueError(
                f"The targets have several parts. {_SAY_WHICH} Received targets: "
                f"{list(targets) if isinstance(targets, dict) else f'{len(targets)} of them'}"
            )
        return targets
    return label_fn(targets) if callable(label_fn) else _part(targets, label_fn, output_names)


def _part(structure, key, output_names):
    if isinstance(structure, (list, tuple)) and isinstance(key, str) and key in (output_names or []):
        key = output_names.index(key)
    try:
        return structure[key]
    except (KeyError, IndexError, TypeError):
        parts = list(structure) if isinstance(structure, dict) else f"{len(tree.flatten(structure))} parts"
        raise ValueError(f"`label_fn={key!r}` names no part of the targets, which have: {parts}") from None


def _only_part(structure):
    (part,) = structure.values() if isinstance(structure, dict) else structure
    return part


def num_classes_of(output_shape, label_fn, output_names=None):
    """The number of classes, the width of the model's output; two, where that is one number a sample.

    Args:
        output_shape: Shape of the output, or a list or dict of those of several.
        label_fn: As in `labels_of`; a name or index says which output it is.
        output_names: As in `labels_of`.

    Raises:
        ValueError: if that output is not of shape `(batch, classes)`.
    """
    if tree.is_nested(output_shape) and not _is_shape(output_shape):
        if isinstance(label_fn, (str, int)):
            output_shape = _part(output_shape, label_fn, output_names)
        elif len(output_shape) == 1:
            output_shape = _only_part(output_shape)
        elif label_fn is None:
            raise ValueError(f"The model has several outputs. {_SAY_WHICH} Received outputs of shape: {output_shape}")
    if not _is_shape(output_shape) or len(output_shape) != 2 or output_shape[1] is None:
        raise ValueError(
            "The number of classes cannot be inferred from the model's output, which should be of shape (batch, "
            f"classes). Received: {output_shape}. Pass "
            "matching=keras_itdm.losses.ClassConditionalMMD(num_classes=...), or match jointly: matching='joint'."
        )
    return max(output_shape[1], 2)


_OF_NUMBERS = {
    *("mean_squared_error", "mean_absolute_error", "mean_absolute_percentage_error", "mean_squared_logarithmic_error"),
    *("huber", "log_cosh", "MeanSquaredError", "MeanAbsoluteError", "MeanAbsolutePercentageError"),
    *("MeanSquaredLogarithmicError", "Huber", "LogCosh"),
    *("poisson", "Poisson", "cosine_similarity", "CosineSimilarity"),
}
_OF_SIGNS = {"hinge", "squared_hinge", "Hinge", "SquaredHinge"}
_ELSE = (
    "Match jointly, which needs no classes: ITDMModel(..., matching='joint'); or say what the classes are: "
    "label_fn=..., a function from y to class indices, with matching=ClassConditionalMMD(num_classes=...)."
)


def _name_of(loss, label_fn, output_names):
    """The name of the compiled loss that the labels are for; `None` if it is not known."""
    if callable(label_fn):
        return None
    if isinstance(loss, (list, tuple, dict)) and len(loss) == 1:
        loss = _only_part(loss)
    if isinstance(loss, (list, tuple, dict)):
        if label_fn is None:
            return None
        try:
            loss = _part(loss, label_fn, output_names)
        except ValueError:
            return None
    if isinstance(loss, str):
        loss = keras.losses.get(loss)
    return getattr(loss, "__name__", type(loss).__name__)


def without_signs(labels, loss, label_fn, output_names=None):
    """Labels that a hinge loss takes, -1 or 1, as 0 or 1. Arguments are those of `check_loss_is_of_classes`."""
    if labels is None or _name_of(loss, label_fn, output_names) not in _OF_SIGNS:
        return labels
    labels = as_labels(labels)
    return ops.where(ops.cast(labels, "float32") == -1, ops.zeros_like(labels), labels)  # they may be bools


def check_loss_is_of_classes(loss, label_fn, output_names=None):
    """
    Args:
        loss: The compiled loss, or a list or dict of several.
        label_fn: As in `labels_of`. A function says itself what the classes are.
        output_names: As in `labels_of`.

    Raises:
        ValueError: if it is one of Keras' losses of numbers, such as the mean squared error: targets are no classes.
    """
    name = _name_of(loss, label_fn, output_names)
    if name in _OF_NUMBERS:
        raise ValueError(
            f"Matching class by class needs classes, and the loss that was compiled, {name}, is one of numbers. {_ELSE}"
        )


def check_are_classes(labels):
    """
    Args:
        labels: Labels of a batch, looked at if their values are at hand.

    Raises:
        ValueError: if they are numbers that are no class indices, or rows that are neither one-hot nor probabilities.
    """
    if not may_be_labels(labels):
        return
    try:
        values = ops.convert_to_numpy(labels)
    except Exception:  # in a graph there are none
        return
    if values.dtype.kind not in "biuf" or not values.size:
        return
    values = values.astype("float64")
    if values.ndim == 2 and values.shape[1] > 1:
        sums = values.sum(axis=1)
        if (values < 0).any() or (np.abs(sums - 1) > 0.01)[sums != 0].any():
            raise ValueError(
                "Matching class by class needs one class a sample, and these targets have rows that are neither "
                "one-hot nor probabilities: several labels at a time, or numbers. "
                f"Received: {values[:2].tolist()} ... {_ELSE}"
            )
    elif ((values != np.round(values)) & ~((values > 0) & (values < 1)) & np.isfinite(values)).any():
        raise ValueError(
            "Matching class by class needs classes, and these targets are numbers. "
            f"Received: {values.ravel()[:4].tolist()} ... {_ELSE}"
        )


def _is_shape(value):
    return isinstance(value, (tuple, list)) and all(size is None or isinstance(size, int) for size in value)


def check_no_strings(labels):
    """
    Raises:
        ValueError: if the dtype of an array or tensor is one of strings or Python objects.
    """
    dtype = getattr(labels, "dtype", None)
    if "string" in str(dtype) or getattr(dtype, "kind", None) in ("O", "S", "U", "T"):
        raise ValueError(
            "Labels should be class indices or one-hot. Received strings or objects: encode them, for example with "
            f"keras.layers.StringLookup. Received: dtype {dtype}"
        )


def as_labels(labels, num_samples=None):
    """Labels as a tensor.

    Args:
        labels: Array, tensor or list.
        num_samples: How many there should be, or `None` if that is not known.

    Raises:
        ValueError: if they are not numbers, or there are not as many.
    """
    if isinstance(labels, (list, tuple)):
        labels = np.asarray(labels)
    check_no_strings(labels)
    if isinstance(labels, np.ndarray) and labels.dtype.kind in "iu" and labels.dtype.itemsize > 2:
        labels = np.clip(labels, NO_CLASS, np.iinfo("int32").max).astype("int32")  # JAX would keep the last 32 bits
    labels = ops.convert_to_tensor(labels)
    dtype = keras.backend.standardize_dtype(labels.dtype)
    if "complex" in dtype:
        raise ValueError(f"Labels should be class indices or one-hot. Received: dtype {dtype}")
    num_labels = labels.shape[0] if len(labels.shape) else None
    if None not in (num_samples, num_labels) and num_samples != num_labels:
        raise ValueError(
            f"There should be one label a sample. Received: {num_labels} labels for the features of {num_samples} "
            "samples"
        )
    return labels


def class_indices(labels, num_classes=None):
    """The class of each sample.

    Args:
        labels: Class indices of shape `(samples,)` or `(samples, 1)`, or one-hot or soft labels of shape
            `(samples, classes)`.
        num_classes: K. With two, numbers between 0 and 1 stand for the nearer class. `None` for any: whatever the width
            of one-hot labels is, however large an index.

    Returns:
        Int32 tensor of shape `(samples,)`: indices below K, and -1 for samples of no class.

    Raises:
        ValueError: if labels are of another shape, or not numbers.
    """
    labels = as_labels(labels)
    shape = tuple(labels.shape)
    if keras.backend.standardize_dtype(labels.dtype) in ("bool", "int8", "uint8", "int16", "uint16"):
        labels = ops.cast(labels, "int32")  # which holds `num_classes` too
    if len(shape) == 2 and shape[1] is None and num_classes:  # known when the graph runs
        one_hot = class_indices(ops.reshape(labels, (ops.shape(labels)[0], -1)))
        return ops.where(ops.shape(labels)[1] > 1, one_hot, class_indices(labels[:, 0], num_classes))
    if len(shape) == 2 and shape[1] == 1:
        labels = labels[:, 0]
    elif len(shape) == 2 and shape[1] == (num_classes or shape[1]):
        indices = ops.cast(ops.argmax(labels, axis=1), "int32")
        return where(ops.max(labels, axis=1) > 0, indices, NO_CLASS)
    elif len(shape) != 1:
        raise ValueError(
            "Labels should be class indices of shape (samples,) or (samples, 1), or one-hot of shape "
            f"(samples, {num_classes or 'classes'}). Received: shape {shape}"
        )
    if num_classes == 2 and "float" in keras.backend.standardize_dtype(labels.dtype):
        labels = ops.where((labels >= 0) & (labels <= 1), ops.cast(labels > 0.5, labels.dtype), labels)
    indices = ops.cast(labels, "int32")
    below = np.iinfo("int32").max if num_classes is None else num_classes
    in_range = (labels >= 0) & (labels < below)
    if "float" in keras.backend.standardize_dtype(labels.dtype):
        in_range = in_range & (ops.cast(indices, labels.dtype) == labels)
    return where(in_range, indices, NO_CLASS)


def may_be_labels(targets):
    """Whether targets are one tensor of a shape that class indices or one-hot labels have."""
    return hasattr(targets, "shape") and len(targets.shape) in (1, 2)


def count_classes(*labels):
    """The width of one-hot labels, or the largest class index plus one; at least 1."""
    labels = [as_labels(y) for y in labels]
    widths = [y.shape[1] for y in labels if len(y.shape) == 2 and y.shape[1] > 1]
    largest = [int(ops.convert_to_numpy(class_indices(y)).max(initial=0)) for y in labels]
    return widths[0] if widths else 1 + max(largest, default=0)


def num_outside(labels, num_classes, ignored=None):
    """How many labels are of no class by the looks of it by mistake: NaN, from K on, or negative but not -1.

    Args:
        labels: Labels in a form that `class_indices` takes, values at hand.
        num_classes: K.
        ignored: A value that stands for no class on purpose, as -1 does: `ignore_class` of the compiled loss.
    """
    values = ops.convert_to_numpy(labels)
    if values.ndim == 2 and values.shape[1] > 1:
        return int(np.isnan(values).any(axis=1).sum())
    values = values.ravel()
    inside = (values >= 0) & (values < num_classes) | (values == NO_CLASS)
    return int((~inside & (values != ignored)).sum() if ignored is not None else (~inside).sum())


def num_classes_matched(labels, num_classes, batch_size, halves=False):
    """How many classes a step is expected to match: those in both mini-batches, drawn at random from samples of these
    labels; of halves of one, those of which it has two samples.

    Args:
        labels: Labels, values at hand, in a form that `class_indices` takes.
        num_classes: K.
        batch_size: m, samples a mini-batch.
        halves: Whether the halves of one mini-batch are matched, and not two.
    """
    classes = ops.convert_to_numpy(class_indices(labels, num_classes))
    shares = np.bincount(classes[classes >= 0], minlength=num_classes) / len(classes)
    none = (1 - shares) ** batch_size
    if halves:
        return float(np.sum(1 - none - batch_size * shares * (1 - shares) ** (batch_size - 1)))
    return float(np.sum((1 - none) ** 2))


def stratified_halves(features, labels, num_classes=None):
    """The two halves of a mini-batch, each class split evenly between them, by turns in the order of its samples.

    Args:
        features: Tensor of shape `(samples, ...)`.
        labels: Labels in a form that `class_indices` takes, or `None`: all of one class.
        num_classes: As in `class_indices`.

    Returns:
        Features and labels, or `None`, of the first half and, if the samples are odd in number one less, of the second.
    """
    num_samples = ops.shape(features)[0]
    order = ops.arange(num_samples, dtype="int32")
    if labels is not None:
        labels = as_labels(labels)
        order = ops.argsort(class_indices(labels, num_classes) * num_samples + order)
    order = ops.concatenate([order[0::2], order[1::2]])
    half = (num_samples + 1) // 2
    features = take(features, order)
    if labels is None:
        return features[:half], None, features[half:], None
    labels = take(labels, order)
    return features[:half], labels[:half], features[half:], labels[half:]
