"""How the pairs of samples of one class are laid out for compilers, to whom no shape may depend on the labels.

The samples of both batches stand in a grid of some rows, and each is paired with those of its own row:

- `Matrix` has one row of all samples, and pairs of different classes are masked out. Any labels fit.
- `Blocks` has a row of `B` slots for each class that both batches hold: K · B² pairs instead of n², the O(K m_H²) of
  section 3.2. A batch with more than `B` samples of one class does not fit. So there are two sizes of blocks, one that
  most batches of balanced classes fit into and one that all but a few in 10⁵ do, and for the rest there is the matrix.

Pairs are worked out in chunks, which keeps them in a processor's cache and bounds the memory: so many blocks at a time
and, where one matrix alone would take too much, so many rows of it. Sizes are integers or, in a TensorFlow graph that
serves batches of any size, scalar tensors; there the form is chosen in the graph, and no chunks are made.
"""

import typing

import keras
from keras import ops, tree

FORMS = ("auto", "pairs", "tiles", "blocks")
# Pairs worked out at a time: blocks together, rows of a matrix that is not kept, and the most in one that is, 64 MiB.
_BLOCKS = 2**17
_TILE = 2**20
_WHOLE = 2**24


class Form(typing.NamedTuple):
    """The form in which a matching loss is computed. It follows from the sizes of the batches and the number of classes.

    Attributes:
        name: `"pairs"`, the n × n matrix of all samples; `"tiles"`, some rows of it at a time; or `"blocks"`, one block a
            class, and the n × n matrix for a batch that does not fit into them.
        num_blocks: Number of blocks; the n × n matrix is one.
        block_sizes: Samples that fit into a block, of which there may be two sizes: the smaller is taken if it will do.
        blocks_at_once: Number of blocks, of the largest size, that are worked out at a time.
        rows_at_once: Rows of a block's matrix that are worked out at a time.
    """

    name: str
    num_blocks: int
    block_sizes: tuple
    blocks_at_once: int
    rows_at_once: int


def choose_form(n, m, num_classes, form="auto"):
    """The `Form` for batches of `n` and `m` samples (integers), if `form` is `"auto"`; else the one of that name."""
    if uses_blocks(n, m, num_classes, form):
        num_blocks, sizes = blocks_for(n, m, num_classes)
        largest = sizes[-1]
        rows = largest if keeps_matrix(largest) else rows_at_once(largest)
        return Form("blocks", num_blocks, sizes, blocks_at_once(num_blocks, largest), rows)
    if keeps_matrix(n + m, form):
        return Form("pairs", 1, (n + m,), 1, n + m)
    return Form("tiles", 1, (n + m,), 1, rows_at_once(n + m))


def blocks_for(n, m, num_classes):
    """Number of blocks, and the sizes to try, in ascending order."""
    num_blocks = _most(_least(num_classes, n, m), 1)
    mean = (n + m) // num_classes + 1
    # Bounds from above on μ + 2√μ and μ + 4√μ, since a class has about a Poisson number μ ± √μ of samples.
    most = (17 * mean // 16 + 16, _least(5 * mean // 4 + 16, 3 * mean + 4))
    tight, loose = (_least((size + 7) // 8 * 8, _most(n + m, 1)) for size in most)
    both_pay = isinstance(tight, int) and tight < loose and loose >= 128  # for the time that it takes to compile them
    return num_blocks, ((tight, loose) if both_pay else (loose,))


def uses_blocks(n, m, num_classes, form="auto"):
    """Whether blocks are to be tried: if they have less than half the pairs of the n × n matrix, unless `form` says."""
    if form != "auto" or num_classes == 1:
        return form == "blocks"
    num_blocks, (*_, largest) = blocks_for(n, m, num_classes)
    return 2 * num_blocks * largest <= (n + m) * ((n + m) // largest)


def keeps_matrix(width, form="auto"):
    """Whether the matrix of the pairs of a row is kept, unless `form` says. One of unknown size is."""
    if form in ("pairs", "tiles"):
        return form == "pairs"
    return not isinstance(width, int) or width <= _WHOLE // width


def blocks_at_once(num_blocks, block_size):
    if not isinstance(block_size, int):
        return num_blocks
    most = _most(_BLOCKS // (block_size * block_size), 1)
    num_chunks = (num_blocks + most - 1) // most
    return (num_blocks + num_chunks - 1) // num_chunks


def rows_at_once(width):
    return _most(_least(_TILE // width, width), 1)


def _least(*sizes):
    least = sizes[0]
    for size in sizes[1:]:
        both = isinstance(least, int) and isinstance(size, int)
        least = min(least, size) if both else ops.minimum(least, size)
    return least


def _most(size, bound):
    return max(size, bound) if isinstance(size, int) else ops.maximum(size, bound)


def in_chunks(function, length, size, axis):
    """`function(indices)` for the indices below `length`, `size` of them at a time, its results joined along `axis`."""
    if size is length or (isinstance(size, int) and isinstance(length, int) and length <= size):
        return function(ops.arange(length, dtype="int32"))
    num_chunks = (length + size - 1) // size
    indices = ops.minimum(ops.arange(num_chunks * size, dtype="int32"), length - 1)

    def join(chunks):
        shape = ops.shape(chunks)
        chunks = ops.moveaxis(chunks, 0, axis)
        chunks = ops.reshape(chunks, (*shape[1 : 1 + axis], num_chunks * size, *shape[2 + axis :]))
        return chunks[(slice(None),) * axis + (slice(length),)]

    return tree.map_structure(join, _map(function, ops.reshape(indices, (num_chunks, size))))


def _map(function, chunks):
    """`ops.map` which on PyTorch writes results where they stay: kept one by one they would scatter over the heap, between
    large temporaries, and break it up until nothing fits."""
    if keras.backend.backend() != "torch":
        return ops.map(function, chunks)
    results = None
    for index, chunk in enumerate(chunks):
        values = function(chunk)
        if results is None:
            results = tree.map_structure(lambda value: value.new_empty((len(chunks), *value.shape)), values)
        for result, value in zip(tree.flatten(results), tree.flatten(values), strict=True):
            result[index] = value
    return results


def member_of(classes, num_classes):
    """Whether a sample is of a class: from `(samples,)` to `(samples, num_classes)`."""
    return classes[:, None] == ops.arange(num_classes, dtype="int32")[None, :]


class Matrix:
    """One row of all samples.

    Args:
        classes: Int32 tensor of shape `(samples,)`; -1 marks a sample that takes no part.
        num_classes: Number of classes.
    """

    has_strangers = True  # samples of several classes stand in a row

    def __init__(self, classes, num_classes):
        self.classes = classes[None, :]
        self._class_or_first = ops.maximum(self.classes, 0)
        self._member = member_of(classes, num_classes)
        self._in_class = ops.cast(self._member, "float32")
        self._by_class = ops.transpose(self._in_class)

    def lay_out(self, values):
        """From samples, `(samples, ...)`, to the grid, `(rows, width, ...)`."""
        return values[None]

    def of_class(self, values):
        """From classes, `(num_classes, ...)`, to the grid, or to one slot for all of a row: `(rows, width or 1, ...)`.

        Where no sample takes part it holds that of some class.
        """
        return ops.take(values, self._class_or_first, axis=0)

    def sum(self, values):
        """Over the samples of each class: from the grid, `(rows, width)`, to `(num_classes,)`."""
        return ops.sum(ops.where(self._member, values[0][:, None], 0.0), axis=0)

    def total(self, numbers):
        """Over the samples of its class, at each slot, of finite numbers that are 0 where no sample takes part."""
        return (numbers @ self._in_class) @ self._by_class

    def max(self, values):
        """Maximum over the samples of each class, at least 0."""
        return ops.max(ops.where(self._member, values[0][:, None], 0.0), axis=0)

    def min(self, values):
        """Minimum over the samples of each class."""
        return ops.min(ops.where(self._member, values[0][:, None], float("inf")), axis=0)

    def sum_of_samples(self, samples):
        """From the grid, `(rows, width, features)`, to `(num_classes, features)`."""
        return self._by_class @ samples[0]


class Blocks:
    """A row of `width` slots for each of some classes, with the interface of `Matrix`.

    Args:
        samples: Int32 tensor of shape `(classes, width)`: which sample stands in each slot.
        counts: Int32 tensor of shape `(classes,)`: how many of the slots are taken, the first ones.
    """

    has_strangers = False

    def __init__(self, samples, counts):
        self._samples = samples
        width = ops.shape(samples)[1]
        self._taken = ops.arange(width, dtype="int32")[None, :] < counts[:, None]
        rows = ops.arange(ops.shape(samples)[0], dtype="int32")
        self.classes = ops.where(self._taken, rows[:, None], -1)

    def lay_out(self, values):
        return ops.take(values, self._samples, axis=0)

    def of_class(self, values):
        return values[:, None]

    def sum(self, values):
        return ops.sum(ops.where(self._taken, values, 0.0), axis=1)

    def total(self, numbers):
        return ops.sum(numbers, axis=1, keepdims=True)

    def max(self, values):
        return ops.max(ops.where(self._taken, values, 0.0), axis=1)

    def min(self, values):
        return ops.min(ops.where(self._taken, values, float("inf")), axis=1)

    def sum_of_samples(self, samples):
        return ops.sum(samples, axis=1)  # an empty slot holds zeros


def deal_out(classes, counts, width):
    """Puts each sample into a slot of the block of its class, provided that no class has more than `width` samples.

    Args:
        classes: Int32 tensor of shape `(samples,)`; -1 marks a sample that takes no part.
        counts: Int32 tensor of shape `(num_classes,)`: the number of samples of each class.
        width: Number of slots in a block.

    Returns:
        Which sample stands in each slot, `(num_classes, width)`, whatever in one that is not taken; and the slot of each
        sample, `(samples,)`, counted through all blocks.
    """
    num_classes, num_samples = ops.shape(counts)[0], ops.shape(classes)[0]
    order = ops.argsort(ops.where(classes >= 0, classes, num_classes))  # samples, sorted by class
    first = ops.cumsum(counts) - counts  # place in that order of the first sample of each class
    places = first[:, None] + ops.arange(width, dtype="int32")[None, :]
    block = ops.maximum(classes, 0)
    slots = block * width + ops.cast(ops.argsort(order), "int32") - ops.take(first, block)
    return ops.take(order, ops.minimum(places, num_samples - 1)), ops.where(classes >= 0, slots, 0)
