"""How the pairs of samples of one class are laid out for compilers, to whom no shape may depend on the labels.

The samples of both batches stand in a grid of some rows, and each is paired with those of its own row:

- `Matrix` has one row of all samples, and pairs of different classes are masked out. Any labels fit.
- `Blocks` has a row of `B` slots for each class that both batches hold: K · B² pairs instead of n², the O(K m_H²) of
  section 3.2. A batch with more than `B` samples of one class does not fit. So there are two sizes of blocks, one that
  most batches of balanced classes fit into and one that all but a few in 10⁵ do, and for the rest there is the matrix.

Pairs are worked out in chunks, which keeps them in a processor's cache and bounds the memory: so many blocks at a time
and, where one matrix alone would take too much, so many rows of it. Sizes are integers or, in a TensorFlow graph that
serves batches of any size, scalar tensors; there the form is chosen in the graph, and no chunks are made
unless it is `"tiles"`.
"""

import typing

import keras
from keras import ops, tree

from keras_itdm._ops import at_least, matmul, pick, take, where

FORMS = ("auto", "pairs", "tiles", "blocks")
# Pairs worked out at a time: blocks together, rows of a matrix that is not kept, and the most in one that is, 64 MiB.
_BLOCKS = 2**17
_TILE = 2**20
_WHOLE = 2**24


class Form(typing.NamedTuple):
    """The form in which a matching loss is computed. It follows from the sizes of the batches, the number of classes
    and the backend.

    Attributes:
        name: `"pairs"`, the n × n matrix of all samples; `"tiles"`, some rows of it at a time; or `"blocks"`, one
            block a class, and the n × n matrix for a batch that does not fit into them.
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


class Plan:
    """How the pairs of two batches are gone through.

    Args:
        n: Number of samples of one, an integer or, where it is known only at run time, a scalar tensor.
        m: Number of samples of the other.
        num_classes: Number of classes.
        form: One of `FORMS`; `"auto"` chooses by the sizes.

    Attributes:
        num_blocks: How many classes both batches can hold.
        block_sizes: Samples that fit into a block: the sizes to try, in ascending order. None where no blocks are.
        blocks_pay: Whether blocks are tried: `True`, or a tensor where sizes are.
        width: Number of samples in the n × n matrix.
    """

    def __init__(self, n, m, num_classes, form="auto"):
        self._form = form
        self.width = n + m
        self.num_blocks = _most(_least(num_classes, n, m), 1)
        self.block_sizes = _block_sizes(n, m, num_classes)
        self.blocks_pay = self._blocks_pay(num_classes, form)
        if self.blocks_pay is False:
            self.block_sizes = ()

    def _blocks_pay(self, num_classes, form):
        """If they have less than half the pairs of the n × n matrix, unless `form` says. On PyTorch, where each
        operation is a call, they always do if they can be kept: they need fewer."""
        if form != "auto":
            return form == "blocks"
        largest = self.block_sizes[-1]
        if keras.backend.backend() == "torch":
            return self.keeps(largest)
        if num_classes == 1:
            return False
        return 2 * self.num_blocks * largest <= self.width * (self.width // largest)

    def keeps(self, width):
        """Whether a matrix of so many rows is kept, not worked out some rows at a time, unless the form says. One of
        unknown size is: to decide it in the graph, both ways there, took twice the time to trace and compile."""
        if self._form in ("pairs", "tiles"):
            return self._form == "pairs"
        return not isinstance(width, int) or width <= _WHOLE // width

    def blocks_at_once(self, size):
        if not isinstance(size, int):
            return self.num_blocks
        most = _most(_BLOCKS // (size * size), 1)
        num_chunks = (self.num_blocks + most - 1) // most
        return (self.num_blocks + num_chunks - 1) // num_chunks

    @property
    def form(self):
        """The `Form` that it comes to, for sizes that are integers."""
        if self.block_sizes:
            largest = self.block_sizes[-1]
            rows = largest if self.keeps(largest) else rows_at_once(largest)
            return Form("blocks", self.num_blocks, self.block_sizes, self.blocks_at_once(largest), rows)
        if self.keeps(self.width):
            return Form("pairs", 1, (self.width,), 1, self.width)
        return Form("tiles", 1, (self.width,), 1, rows_at_once(self.width))


def _block_sizes(n, m, num_classes):
    mean = (n + m) // num_classes + 1
    # Bounds from above on μ + 2√μ and μ + 4√μ, since a class has about a Poisson number μ ± √μ of samples.
    most = (17 * mean // 16 + 16, _least(5 * mean // 4 + 16, 3 * mean + 4))
    tight, loose = (_least((size + 7) // 8 * 8, _most(n + m, 1)) for size in most)
    both_pay = isinstance(tight, int) and tight < loose and loose >= 128  # for the time that it takes to compile them
    return (tight, loose) if both_pay else (loose,)


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
    """`function(indices)` for the indices below `length`, `size` of them at a time, its results joined along `axis`.
    Where that is all of them, `function(None)`."""
    if size is length or (isinstance(size, int) and isinstance(length, int) and length <= size):
        return function(None)
    num_chunks = (length + size - 1) // size
    indices = ops.minimum(ops.arange(num_chunks * size, dtype="int32"), length - 1)

    def join(chunks):
        shape = ops.shape(chunks)
        chunks = ops.moveaxis(chunks, 0, axis)
        chunks = ops.reshape(chunks, (*shape[1 : 1 + axis], num_chunks * size, *shape[2 + axis :]))
        return chunks[(slice(None),) * axis + (slice(length),)]

    return tree.map_structure(join, _map(function, ops.reshape(indices, (num_chunks, size))))


def _map(function, chunks):
    """`ops.map` which on PyTorch writes results where they stay: kept one by one they would scatter over the heap,
    between large temporaries, and break it up until nothing fits."""
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
        self.samples = ops.arange(ops.shape(classes)[0], dtype="int32")[None, :]
        self.classes = classes[None, :]
        self.takes_part = self.classes >= 0
        self._class_or_first = at_least(self.classes, 0)
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
        return take(values, self._class_or_first)

    def sum(self, values):
        """Over the samples of each class, of numbers that are 0 where no sample takes part: from the grid, `(rows,
        width)`, to `(num_classes,)`."""
        return ops.sum(where(self._member, values[0][:, None], 0.0), axis=0)

    def total(self, numbers):
        """Over the samples of its class, at each slot, of finite numbers that are 0 where no sample takes part."""
        return matmul(matmul(numbers, self._in_class), self._by_class)

    def max(self, values):
        """Maximum over the samples of each class, at least 0."""
        return ops.max(where(self._member, values[0][:, None], 0.0), axis=0)

    def min(self, values):
        """Minimum over the samples of each class."""
        return ops.min(where(self._member, values[0][:, None], float("inf")), axis=0)

    def somewhere_amidst(self, samples):
        """A point between the samples of each class: from `(rows, width, features)` to `(num_classes, features)`."""
        samples = where(self.takes_part[0, :, None], samples[0], 0.0)
        return matmul(self._by_class, samples) / at_least(ops.sum(self._by_class, axis=1), 1.0)[:, None]

    def sample_of_least(self, values, samples):
        """The sample of each class at which values, `(rows, width)`, are least: `(num_classes, features)`."""
        return take(samples[0], ops.argmin(where(self._member, values[0][:, None], float("inf")), axis=0))

    def mask(self, distances, classes):
        """Squared distances, `(rows, some, width)`, infinite but between two of one class; `some` are of `classes`."""
        return where(
            (classes[:, :, None] == self.classes[:, None, :]) & self.takes_part[:, None, :], distances, float("inf")
        )


class Blocks:
    """A row of `width` slots for each of some classes, with the interface of `Matrix`.

    Args:
        samples: Int32 tensor of shape `(classes, width)`: which sample stands in each slot.
        counts: Int32 tensor of shape `(classes,)`: how many of the slots are taken, the first ones. The others hold
            samples of the class once more.
    """

    has_strangers = False

    def __init__(self, samples, counts):
        self.samples = samples
        self.takes_part = ops.arange(ops.shape(samples)[1], dtype="int32")[None, :] < counts[:, None]
        self.classes = self.takes_part  # all in a row are of one class

    def lay_out(self, values):
        return take(values, self.samples)

    def of_class(self, values):
        return values[:, None]

    def sum(self, values):
        return ops.sum(values, axis=1)

    def total(self, numbers):
        return ops.sum(numbers, axis=1, keepdims=True)

    def max(self, values):
        return ops.max(values, axis=1)

    def min(self, values):
        return ops.min(values, axis=1)

    def somewhere_amidst(self, samples):
        return ops.mean(samples, axis=1)

    def sample_of_least(self, values, samples):
        return pick(samples, ops.argmin(values, axis=1))

    def mask(self, distances, classes):
        return where(self.takes_part[:, None, :] & classes[:, :, None], distances, float("inf"))


def deal_out(classes, counts, width):
    """Puts each sample into a slot of the block of its class, provided that no class has more than `width` samples.

    Args:
        classes: Int32 tensor of shape `(samples,)`; -1 marks a sample that takes no part.
        counts: Int32 tensor of shape `(num_classes,)`: the number of samples of each class.
        width: Number of slots in a block.

    Returns:
        Which sample stands in each slot, `(num_classes, width)`, the last of its class in one that is not taken; and
        the slot of each sample, `(samples,)`, counted through all blocks.
    """
    order = ops.argsort(classes)  # samples, sorted by class, those that take no part first
    end = ops.shape(classes)[0] - ops.sum(counts) + ops.cumsum(counts)
    first = end - counts  # place in that order of the first sample of each class
    places = first[:, None] + ops.arange(width, dtype="int32")[None, :]
    places = at_least(ops.minimum(places, end[:, None] - 1), 0)
    block = at_least(classes, 0)
    slots = block * width + ops.cast(ops.argsort(order), "int32") - take(first, block)
    return take(order, places), where(classes >= 0, slots, 0)
