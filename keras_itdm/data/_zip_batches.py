"""`zip_batches`: pairs out of a `tf.data.Dataset`, in the graph of the pipeline.

The pool of `_pool` is here the state of a `scan` over the batches: it holds references to their tensors.
"""

import math
import numbers
import typing

import numpy as np
from keras import tree

from keras_itdm.data._pairs import check_batched, check_same_structure
from keras_itdm.data._pool import NUM_MIXED, SHORT_EPOCH, pool_size

if typing.TYPE_CHECKING:
    import tensorflow as tf


def zip_batches(
    dataset: "tf.data.Dataset", partner: "tf.data.Dataset | None" = None, seed: int | None = None
) -> "tf.data.Dataset":
    """Zips a batched `tf.data.Dataset` with a second mini-batch at each step: the stream that ITDM trains on.

    The first half is `dataset`, untouched: same batches, same order, read once. The second are samples of the same
    epoch in an independent order. An epoch of up to 16 batches is read before its first step, and the second half
    visits each sample once. Of a longer one, or where the length is not known, 8 batches are read ahead; the second
    half comes, sample by sample at random, out of these and the batches before: 64 in all or 1 GiB, but at least 3.
    Both ways the two batches at one step share the samples that chance gives. Samples whose shapes are not known
    beforehand, such as padded, ragged and sparse ones, are drawn as whole batches. A sample that `dataset` augments is
    augmented once for both. To have it drawn anew, or to match other data, pass `partner`.

    Args:
        dataset: Batched `tf.data.Dataset` of `x`, `(x, y)` or `(x, y, sample_weight)`.
        partner: Batched `tf.data.Dataset` of the same structure to take the second batches from, repeated if it is
            shorter: usually a second, differently seeded pipeline over the same data. Of `x` alone, where it has no
            labels and the matching needs none. Defaults to `dataset` itself, as described above.
        seed: Integer, to draw the same partners again. Epochs differ all the same.

    Returns:
        `tf.data.Dataset` of `((x1, y1), (x2, y2))`, with the cardinality of `dataset`.

    Raises:
        TypeError: if `dataset` or `partner` is no `tf.data.Dataset`.
        ValueError: if either is not batched or is empty, the two differ in structure, types or ranks; if `seed` is no
            integer.

    Example:

    >>> import tensorflow as tf
    >>> dataset = tf.data.Dataset.from_tensor_slices((np.zeros((100, 3)), np.zeros(100))).batch(20)
    >>> for (x1, y1), (x2, y2) in zip_batches(dataset, seed=0).take(1):
    ...     print(x1.shape, x2.shape)
    (20, 3) (20, 3)
    """
    import tensorflow as tf

    if seed is not None and (not isinstance(seed, numbers.Integral) or isinstance(seed, bool)):
        raise ValueError(f"`seed` should be an integer or None. Received: {seed!r}")
    for name, stream in (("dataset", dataset), ("partner", partner)):
        if stream is None and name == "partner":
            continue
        if not isinstance(stream, tf.data.Dataset):
            raise TypeError(
                f"`{name}` should be a tf.data.Dataset. Received: {stream!r} of type {type(stream).__name__}"
            )
        check_batched(stream.element_spec, name)
        if int(stream.cardinality()) == 0:
            raise ValueError(f"`{name}` should hold at least one batch. Received: an empty tf.data.Dataset")
    if partner is None or partner is dataset:
        return zip_with_itself(dataset, independent_seed(seed))
    partner = _with_structure_of(dataset, partner)
    return _as_pairs_of_tuples(tf.data.Dataset.zip((dataset, partner.repeat())))


def _with_structure_of(dataset, partner):
    """The partner, with `x` alone as `(x,)` beside a dataset of `(x, y)`."""
    structure = dataset.element_spec
    if isinstance(structure, tuple) and not isinstance(partner.element_spec, tuple):
        partner = partner.map(lambda x: (x,))
    check_same_structure(structure, partner.element_spec)
    return partner


def _as_pairs_of_tuples(pairs):
    """`(x1, x2)`, which reads like inputs and targets, as `((x1,), (x2,))`."""
    if isinstance(pairs.element_spec[0], tuple):
        return pairs
    return pairs.map(lambda x, partner_x: ((x,), (partner_x,)))


def zip_with_itself(dataset, seed):
    """Each batch of a dataset, and a second one of the same epoch; see `zip_batches`."""
    import tensorflow as tf

    num_batches = int(dataset.cardinality())  # negative if unknown or infinite
    size, num_ahead = pool_size(num_batches if num_batches > 0 else None, _bytes_per_batch(dataset.element_spec))
    seeds = tf.data.Dataset.random(seed, rerandomize_each_iteration=True)
    fit_together = _samples_fit_together(dataset.element_spec)
    if fit_together and 0 < num_batches <= min(size, SHORT_EPOCH):
        pairs = _out_of_whole_epoch(dataset, seeds, num_batches)
    else:
        pairs = _out_of_pool(dataset, seeds, size, num_ahead, fit_together)
    pairs = _as_pairs_of_tuples(pairs)
    if num_batches != tf.data.UNKNOWN_CARDINALITY:
        pairs = pairs.apply(tf.data.experimental.assert_cardinality(num_batches))
    pairs = pairs.prefetch(2)
    pairs.passed_over_by = tf.data.Dataset.zip((dataset, seeds)).take(1)  # draws what an epoch of pairs draws
    return pairs


def _out_of_whole_epoch(dataset, seeds, num_batches):
    import tensorflow as tf

    def pair(window, seed):
        # `window` holds its batches: reading it twice does not read `dataset` twice.
        if tree.is_nested(window):
            window = tf.data.Dataset.zip(window)
        batch_size = window.take(1).reduce(tf.constant(0, tf.int64), lambda _, batch: _num_samples(batch))
        pool = window.rebatch(num_batches * batch_size).map(lambda *samples: permuted(samples, seed))
        return tf.data.Dataset.zip((window, pool.rebatch(batch_size)))

    def permuted(samples, seed):
        samples = samples if len(samples) > 1 or isinstance(dataset.element_spec, tuple) else samples[0]
        order = tf.random.experimental.stateless_shuffle(tf.range(_num_samples(samples)), [seed, 0])
        return tree.map_structure(lambda values: tf.gather(values, order), samples)

    return tf.data.Dataset.zip((dataset.window(num_batches), seeds)).flat_map(pair)


def _out_of_pool(dataset, seeds, size, num_ahead, fit_together):
    """Pairs as `scan` gives them: with each batch that is read, the one `num_ahead` batches before, and its partner."""
    import tensorflow as tf

    shuffle = tf.random.experimental.stateless_shuffle
    structure = dataset.element_spec
    flat = dataset.map(lambda *batch: tuple(tf.nest.flatten(element(batch, structure), expand_composites=True)))
    specs = flat.element_spec

    def put(store, index, values):
        index = tf.cast(index, tf.int32)
        return tuple(
            tf.raw_ops.TensorListSetItem(input_handle=handle, index=index, item=value)
            for handle, value in zip(store, values, strict=True)
        )

    def get(store, index):
        index = tf.cast(index, tf.int32)
        return tuple(
            tf.raw_ops.TensorListGetItem(input_handle=handle, index=index, element_shape=-1, element_dtype=spec.dtype)
            for handle, spec in zip(store, specs, strict=True)
        )

    def mixed(store, counts, chosen, num_samples, seed):
        """Samples at random out of the batches in some slots."""
        counts = tf.gather(counts, chosen)
        ends = tf.cumsum(counts)
        order = shuffle(tf.range(ends[-1]), [seed, 1])[:num_samples]
        slots = tf.minimum(tf.range(NUM_MIXED), tf.size(chosen) - 1)  # the last again, where there are fewer
        parts = []
        for number in range(NUM_MIXED):
            slot = slots[number]
            begin, end = ends[slot] - counts[slot], tf.where(number == slot, ends[slot], 0)
            rows = tf.boolean_mask(order, (order >= begin) & (order < end)) - begin
            parts.append([tf.gather(values, rows) for values in get(store, chosen[slot])])
        return tuple(tf.concat(values, axis=0) for values in zip(*parts, strict=True))

    def step(state, element):
        store, counts, num_steps, num_read = state
        is_new, seed, batch = element
        is_empty = (num_read == 0) & ~is_new  # the whole stream is, and its pairs are skipped
        slot = tf.where(is_new | is_empty, num_read % size, size)  # the last one is for what follows the end
        store = put(store, slot, batch)
        num_read += tf.cast(is_new, tf.int64)
        index = tf.maximum(num_steps - num_ahead, 0) % size
        first = get(store, index)
        num_filled = tf.clip_by_value(num_read, 1, size)
        chosen = shuffle(tf.range(num_filled), [seed, 0])
        if fit_together:
            num_samples = tf.shape(batch[0], out_type=tf.int64)[0]
            counts = tf.tensor_scatter_nd_update(counts, [[slot]], [num_samples])
            second = mixed(store, counts, chosen[:NUM_MIXED], tf.shape(first[0])[0], seed)
        else:
            is_other = (chosen != index) | (num_filled == 1)
            second = get(store, tf.boolean_mask(chosen, is_other)[0])
        return (store, counts, num_steps + 1, num_read), (first, second)

    def packed(values):
        shaped = [tf.ensure_shape(value, spec.shape) for value, spec in zip(values, specs, strict=True)]
        return tf.nest.pack_sequence_as(structure, shaped, expand_composites=True)

    nothing = tuple(
        tf.zeros([length or 0 for length in (spec.shape if spec.shape.rank else [])], spec.dtype) for spec in specs
    )
    after_the_end = tf.data.Dataset.from_tensors((False, nothing)).repeat(num_ahead)
    batches = flat.map(lambda *batch: (True, batch)).concatenate(after_the_end)
    elements = tf.data.Dataset.zip((batches, seeds)).map(lambda batch, seed: (batch[0], seed, batch[1]))
    store = tuple(
        tf.raw_ops.TensorListReserve(element_shape=-1, num_elements=size + 1, element_dtype=spec.dtype)
        for spec in specs
    )
    zero = tf.constant(0, tf.int64)
    pairs = elements.scan((store, tf.zeros(size + 1, tf.int64), zero, zero), step)
    return pairs.skip(num_ahead).map(lambda first, second: (packed(first), packed(second)))


def element(arguments, structure):
    """What `map` hands to a function as several arguments, as the one element that it is."""
    return arguments if type(structure) is tuple else arguments[0]


def _samples_fit_together(structure):
    """Whether samples of several batches can be put into one: all are dense, and of shapes that are known."""
    import tensorflow as tf

    return all(
        isinstance(spec, tf.TensorSpec) and spec.shape.rank is not None and None not in spec.shape[1:]
        for spec in tf.nest.flatten(structure)
    )


def _num_samples(batch):
    import tensorflow as tf

    return tf.shape(tf.nest.flatten(batch)[0], out_type=tf.int64)[0]


def _bytes_per_batch(element_spec):
    total = 0
    for spec in tree.flatten(element_spec):
        shape = spec.shape if spec.shape.rank is not None else [None]
        sizes = [size or 32 for size in shape[:1]] + [size or 1 for size in shape[1:]]
        total += math.prod(sizes) * spec.dtype.size
    return max(total, 1)


def independent_seed(seed):
    """`seed`, or one that follows from `keras.utils.set_random_seed` without using its generators up."""
    if seed is not None:
        return seed
    generator = np.random.RandomState()
    generator.set_state(np.random.get_state())
    return int(generator.randint(2**31 - 1))
