"""What a pair is, `((x1, y1), (x2, y2))`, and whether data are such pairs, or end, or are batched at all."""

import collections

import keras
from keras import tree

from keras_itdm._keras import data_adapters

Pair = collections.namedtuple("Pair", ["batch", "partner"])
Pair.__doc__ = (
    "S1 and S2, or `()` for none, on their way through `fit`. By its type a pair is told from inputs and targets."
)


def check_batched(spec, name, input_rank=None):
    """
    Raises:
        ValueError: if the elements of a stream, described by `spec`, are single samples.
    """
    leaves = tree.flatten(spec)
    ranks = [len(leaf.shape) if leaf.shape.rank is not None else None for leaf in leaves]
    x_rank = ranks[0] if ranks else None
    if 0 in ranks or (input_rank is not None and x_rank == input_rank - 1):
        raise ValueError(
            f"`{name}` should be batched, with the samples along the first axis of every component: "
            f"{name}.batch(batch_size). Received components of shape {[tuple(leaf.shape) for leaf in leaves]}"
        )


def check_ends(x, steps_per_epoch):
    """
    Raises:
        ValueError: if an epoch would never end.
    """
    if steps_per_epoch is not None:
        return
    endless = isinstance(x, keras.utils.PyDataset) and x.num_batches is None
    if data_adapters.is_tf_dataset(x) and hasattr(x, "cardinality"):
        endless = int(x.cardinality()) == -1  # tf.data.INFINITE_CARDINALITY
    if endless:
        raise ValueError(f"An endless stream needs `steps_per_epoch`. Received: {x!r} and steps_per_epoch=None")


def check_same_structure(first, second):
    """
    Raises:
        ValueError: if the halves of a pair, or their specs, are not alike. Targets and weights may be missing in S2.
    """

    def describe(spec):
        return tree.map_structure(
            lambda leaf: f"{keras.backend.standardize_dtype(leaf.dtype)}{tuple(leaf.shape)}", spec
        )

    compared = first
    if isinstance(first, (tuple, list)) and isinstance(second, (tuple, list)) and len(second) == 1:
        compared = first[:1]  # S2 without labels
    try:
        tree.assert_same_structure(compared, second)
        same = all(_alike(a, b) for a, b in zip(tree.flatten(compared), tree.flatten(second), strict=True))
    except (TypeError, ValueError):
        same = False
    if not same:
        raise ValueError(
            "The two halves of a zipped stream should have the same structure, types and shapes, the number of samples "
            f"apart; S2 may lack labels: ((x1, y1), (x2,)). Received: {describe(first)} and {describe(second)}"
        )


def _alike(a, b):
    """Whether two tensors, or their specs, are of one type and, the first axis apart, of one shape."""
    return (
        keras.backend.standardize_dtype(a.dtype) == keras.backend.standardize_dtype(b.dtype)
        and len(a.shape) == len(b.shape)
        and all(i is None or j is None or i == j for i, j in zip(a.shape[1:], b.shape[1:], strict=True))
    )


def is_pair(data, num_inputs=None, paired=None):
    """Whether one element of a stream, or its spec, is `((x1, y1), (x2, y2))` rather than `(x, y)`.

    Args:
        data: Nested tensors, arrays or specs.
        num_inputs: Number of tensors that the model takes as `x`, if that is known: it tells two inputs with two
            targets, `((xa, xb), (ya, yb))`, from a pair.
        paired: The user's word, for streams of the user's own. Defaults to what the structure tells.
    """
    if isinstance(data, Pair):
        return True
    if paired is not None:
        return paired
    if isinstance(data, (tuple, list)) and len(data) == 3 and data[2] is None:  # as `train_on_batch` packs it
        data = data[:2]
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        return False
    first, second = data
    if not all(isinstance(half, (tuple, list)) and 1 <= len(half) <= 3 for half in data):
        return False
    if num_inputs is not None and len(tree.flatten(first)) == num_inputs:
        as_lists = isinstance(first, list) and isinstance(second, list)  # inputs and targets; a pair is of tuples
        if as_lists or num_inputs != len(tree.flatten(first[0])):
            return False
    if num_inputs is not None and len(tree.flatten(first[0])) == num_inputs != len(tree.flatten(first)):
        return True
    try:
        tree.assert_same_structure(as_tuples(first), as_tuples(second))
    except (TypeError, ValueError):
        return False
    return all(_alike(a, b) for a, b in zip(tree.flatten(first), tree.flatten(second), strict=True))


def as_tuples(structure):
    return tree.lists_to_tuples(structure)


def split_pair(data, num_inputs=None, guess=True, paired=None):
    """S1 and S2 of a pair, or the batch itself and `None`.

    Args:
        guess: Whether what may be a pair as well as inputs and targets, such as `([a, b], [a, b])`, is one.

    Raises:
        ValueError: if half of it looks like a pair.
    """
    if not is_pair(data, num_inputs, paired):
        if looks_zipped(data, num_inputs):
            check_halves(data)
        return data, None
    if not isinstance(data, Pair):
        check_halves(data)
    sure = paired or isinstance(data, Pair) or (num_inputs is not None and len(tree.flatten(data[0])) != num_inputs)
    if not (guess or sure):
        return data, None
    batch, partner = data[:2]
    return batch, None if isinstance(partner, (tuple, list)) and not partner else partner


def check_halves(data):
    """
    Raises:
        ValueError: if `data`, or its spec, is meant as a pair, and its halves are not both tuples.
    """
    halves = data[:2] if isinstance(data, (tuple, list)) else ()
    if len(halves) != 2 or not all(isinstance(half, (tuple, list)) for half in halves):
        shapes = tree.map_structure(lambda leaf: tuple(leaf.shape), data, none_is_leaf=False)
        raise ValueError(
            "A pair should be `((x1, y1), (x2, y2))`, both halves tuples; without labels of S2 `((x1, y1), (x2,))`. "
            f"Received shapes: {shapes}"
        )


def looks_zipped(data, num_inputs):
    """Whether an element of a stream, or its spec, must be meant as a pair, its halves unlike: neither half is what the
    model takes as input."""
    return (
        num_inputs is not None
        and isinstance(data, tuple)
        and len(data) == 2
        and isinstance(data[0], (tuple, list))
        and 2 <= len(data[0]) <= 3
        and len(tree.flatten(data[0])) != num_inputs
    )
