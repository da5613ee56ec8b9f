"""Pairs of mini-batches: S1, as `Model.fit` draws it, and beside it S2, an independent draw from the same data.

S1 is always what plain `fit` would have trained on, batch for batch and in the same order: it comes from Keras' own data
adapters, and drawing S2 touches no random generator that S1 depends on.
"""

import collections
import collections.abc
import functools
import itertools
import math
import numbers
import warnings

import keras
import numpy as np
from keras import tree

from keras_itdm._keras import (
    ArrayDataAdapter,
    DataAdapter,
    PyDatasetAdapter,
    TFDatasetAdapter,
    TorchDataLoaderAdapter,
    array_slicing,
    data_adapters,
    make_class_weight_map_fn,
    super_batches,
)

Pair = collections.namedtuple("Pair", ["batch", "partner"])
Pair.__doc__ = "S1 and S2, on their way through `fit`. By its type a pair is told from inputs and targets."

# A stream whose epoch is no larger than this is permuted as a whole to draw S2; of others, this many batches at a time.
_WHOLE_EPOCH = {"batches": 512, "bytes": 2**28}
_BLOCK = {"batches": 64, "bytes": 2**26}


def zip_batches(dataset, partner=None, seed=None):
    """Zips a batched `tf.data.Dataset` with a second mini-batch at each step: the stream that ITDM trains on.

    The first half is `dataset`, untouched: same batches, same order, read once. The second is drawn, sample by sample,
    from the same epoch in an independent order, so that the two batches at one step share the samples that chance gives.
    Where the epoch is longer than 512 batches or 256 MiB, or its length is not known, it comes from the 64 batches that
    follow (64 MiB at most). A sample that `dataset` augments is augmented once for both. To have it drawn anew, or to
    match other data, pass `partner`.

    Args:
        dataset: Batched `tf.data.Dataset` of `x`, `(x, y)` or `(x, y, sample_weight)`.
        partner: Batched `tf.data.Dataset` of the same structure to take the second batches from, repeated if it is
            shorter: usually a second, differently seeded pipeline over the same data. Default: as described above.
        seed: Integer, to draw the same partners again. Epochs differ all the same.

    Returns:
        `tf.data.Dataset` of `((x1, y1), (x2, y2))`, with the cardinality of `dataset`.

    Raises:
        TypeError: if `dataset` or `partner` is no `tf.data.Dataset`.
        ValueError: if either is not batched or is empty, the two differ in structure, types or ranks, or `dataset` holds
            sparse tensors and comes without `partner`; if `seed` is no integer.

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
        return _zip_with_itself(dataset, seed)
    check_same_structure(dataset.element_spec, partner.element_spec)
    return _as_pairs_of_tuples(tf.data.Dataset.zip((dataset, partner.repeat())))


def _as_pairs_of_tuples(pairs):
    """`(x1, x2)`, which reads like inputs and targets, as `((x1,), (x2,))`."""
    if isinstance(pairs.element_spec[0], tuple):
        return pairs
    return pairs.map(lambda x, partner_x: ((x,), (partner_x,)))


def _zip_with_itself(dataset, seed):
    import tensorflow as tf

    if any(isinstance(spec, tf.SparseTensorSpec) for spec in tree.flatten(dataset.element_spec)):
        raise ValueError(
            "Sparse tensors cannot be drawn sample by sample. Make them dense, with tf.sparse.to_dense, or pass "
            f"`partner`. Received: {dataset.element_spec}"
        )
    num_batches = int(dataset.cardinality())  # negative if unknown or infinite
    batch_bytes = _bytes_per_batch(dataset.element_spec)
    if 0 < num_batches <= _WHOLE_EPOCH["batches"] and num_batches * batch_bytes <= _WHOLE_EPOCH["bytes"]:
        block = num_batches
    else:
        block = max(1, min(_BLOCK["batches"], _BLOCK["bytes"] // batch_bytes))

    def pair(window, seed):
        # `window` is this block and the next, and holds its batches: reading it twice does not read `dataset` twice.
        if tree.is_nested(window):
            window = tf.data.Dataset.zip(window)
        length = window.reduce(tf.constant(0, tf.int64), lambda count, _: count + 1)
        batch_size = window.take(1).reduce(tf.constant(0, tf.int64), lambda _, batch: _num_samples(batch))
        pool = window.skip(tf.where(length < 2 * block, tf.constant(0, tf.int64), block))
        pool = pool.rebatch(2 * block * batch_size).map(lambda *samples: permuted(samples, seed)).rebatch(batch_size)
        return tf.data.Dataset.zip((window.take(block), pool.repeat()))

    def permuted(samples, seed):
        samples = samples if len(samples) > 1 or isinstance(dataset.element_spec, tuple) else samples[0]
        order = tf.random.experimental.stateless_shuffle(tf.range(_num_samples(samples)), [seed, 0])
        return tree.map_structure(lambda values: tf.gather(values, order), samples)

    seeds = tf.data.Dataset.random(_seed(seed), rerandomize_each_iteration=True)
    windows = dataset.window(2 * block, shift=block)
    pairs = _as_pairs_of_tuples(tf.data.Dataset.zip((windows, seeds)).flat_map(pair))
    if num_batches != tf.data.UNKNOWN_CARDINALITY:
        pairs = pairs.apply(tf.data.experimental.assert_cardinality(num_batches))
    return pairs.prefetch(1)


def _num_samples(batch):
    import tensorflow as tf

    return tf.shape(tf.nest.flatten(batch)[0], out_type=tf.int64)[0]


def _bytes_per_batch(element_spec):
    total = 0
    for spec in tree.flatten(element_spec):
        sizes = [size or 32 for size in spec.shape[:1]] + [size or 1 for size in spec.shape[1:]]
        total += math.prod(sizes) * spec.dtype.size
    return max(total, 1)


def _seed(seed):
    """`seed`, or one that follows from `keras.utils.set_random_seed` without using its generators up."""
    if seed is not None:
        return seed
    generator = np.random.RandomState()
    generator.set_state(np.random.get_state())
    return int(generator.randint(2**31 - 1))


def check_batched(spec, name, input_rank=None):
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
    def describe(spec):
        return tree.map_structure(
            lambda leaf: f"{keras.backend.standardize_dtype(leaf.dtype)}{tuple(leaf.shape)}", spec
        )

    try:
        tree.assert_same_structure(first, second)
        same = all(_alike(a, b) for a, b in zip(tree.flatten(first), tree.flatten(second), strict=True))
    except (TypeError, ValueError):
        same = False
    if not same:
        raise ValueError(
            "The two halves of a zipped stream should have the same structure, types and shapes, the number of samples "
            f"apart. Received: {describe(first)} and {describe(second)}"
        )


def _alike(a, b):
    """Whether two tensors, or their specs, are of one type and, the first axis apart, of one shape."""
    return (
        keras.backend.standardize_dtype(a.dtype) == keras.backend.standardize_dtype(b.dtype)
        and len(a.shape) == len(b.shape)
        and all(i is None or j is None or i == j for i, j in zip(a.shape[1:], b.shape[1:], strict=True))
    )


def is_pair(data, num_inputs=None):
    """Whether one element of a stream, or its spec, is `((x1, y1), (x2, y2))` rather than `(x, y)`.

    Args:
        data: Nested tensors, arrays or specs.
        num_inputs: Number of tensors that the model takes as `x`, if that is known: it tells two inputs with two
            targets, `((xa, xb), (ya, yb))`, from a pair.
    """
    if isinstance(data, Pair):
        return True
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
        tree.assert_same_structure(_as_tuples(first), _as_tuples(second))
    except (TypeError, ValueError):
        return False
    return all(_alike(a, b) for a, b in zip(tree.flatten(first), tree.flatten(second), strict=True))


def _as_tuples(structure):
    return tree.lists_to_tuples(structure)


def split_pair(data, num_inputs=None, guess=True):
    """S1 and S2 of a pair, or the batch itself and `None`.

    Args:
        guess: Whether what may be a pair as well as inputs and targets, such as `([a, b], [a, b])`, is one.
    """
    if not is_pair(data, num_inputs):
        return data, None
    sure = isinstance(data, Pair) or (num_inputs is not None and len(tree.flatten(data[0])) != num_inputs)
    return (data[0], data[1]) if guess or sure else (data, None)


def pair_up(
    x,
    y=None,
    sample_weight=None,
    batch_size=None,
    steps_per_epoch=None,
    shuffle=True,
    class_weight=None,
    num_inputs=None,
    input_rank=None,
    seed=None,
    num_fits=0,
):
    """Data adapter that draws a second batch beside each one that `fit(x, y, ...)` would draw.

    Arguments are those of `keras.Model.fit`; `num_inputs` and `input_rank` are those of the model, where known, and
    `num_fits` is how often it has been fitted: the partners of another `fit` are others.

    Raises:
        ValueError: if the data cannot be paired, and on what Keras' own adapters object to.
    """
    seed = (_seed(seed) + num_fits * 0x9E3779B1) % (2**31 - 1)
    if data_adapters.is_tf_dataset(x):
        return _pair_tf_dataset(x, y, sample_weight, class_weight, num_inputs, input_rank, seed)
    if data_adapters.is_grain_dataset(x):
        raise ValueError(
            "A grain dataset cannot be paired by `fit`. Zip it yourself, and pass a generator or a PyDataset of "
            "((x1, y1), (x2, y2))."
        )
    if x is None:
        raise ValueError("`x` should be the data to train on. Received: None")
    if isinstance(x, collections.abc.Generator):
        x = _pair_generator(x, num_inputs)
    adapter = data_adapters.get_data_adapter(
        x, y, sample_weight, batch_size, steps_per_epoch, shuffle=shuffle, class_weight=class_weight
    )
    if isinstance(adapter, ArrayDataAdapter):
        if adapter.num_batches == 0:
            raise ValueError("The data should hold at least one sample. Received: arrays of length 0")
        _warn_of_one_batch(adapter.num_batches)
        return _PairedAdapter(adapter, _ReorderedArrays(adapter, seed))
    if isinstance(adapter, PyDatasetAdapter):
        if x.num_batches == 0:
            raise ValueError("The data should hold at least one batch. Received: a PyDataset of length 0")
        if is_pair(x[0], num_inputs):
            return adapter
        _warn_of_one_batch(x.num_batches)
        return _PairedAdapter(adapter, PyDatasetAdapter(_ReorderedPyDataset(x, seed)))
    if isinstance(adapter, TorchDataLoaderAdapter):
        if adapter.num_batches == 0:
            raise ValueError("The data should hold at least one batch. Received: an empty DataLoader")
        if _loads_pairs(x, num_inputs):
            return adapter
        _warn_of_one_batch(adapter.num_batches)
        reordered = _reordered_data_loader(x, seed)
        if reordered is None:
            return _PooledAdapter(adapter, seed)
        return _PairedAdapter(adapter, TorchDataLoaderAdapter(reordered))
    return adapter  # generators, which are pairs by now, and adapters of the user's own


def _warn_of_one_batch(num_batches):
    if num_batches == 1:
        warnings.warn(
            "An epoch of this data is a single batch, so S2 has the samples of S1 in another order, and there is "
            "nothing to match. Take smaller batches, or match the halves of the batch: partner='split'.",
            stacklevel=4,
        )


def _pair_tf_dataset(dataset, y, sample_weight, class_weight, num_inputs, input_rank, seed):
    import tensorflow as tf

    data_adapters.get_data_adapter(dataset, y, sample_weight)  # objects to arguments that do not go with a dataset
    spec = dataset.element_spec
    if not isinstance(dataset, tf.data.Dataset):  # a distributed one: its parts have been dealt out already
        if not is_pair(spec, num_inputs):
            raise ValueError(
                "A distributed dataset should be zipped before it is distributed: "
                "strategy.experimental_distribute_dataset(keras_itdm.zip_batches(dataset)). "
                f"Received elements of structure {spec}"
            )
        return TFDatasetAdapter(dataset)
    zipped = is_pair(spec, num_inputs)
    if zipped or _looks_zipped(spec, num_inputs):
        check_same_structure(_as_tuples(spec[0]), _as_tuples(spec[1]))
    check_batched(spec, "dataset", input_rank)
    if int(dataset.cardinality()) == 0:
        raise ValueError("The data should hold at least one batch. Received: an empty tf.data.Dataset")
    if not zipped:
        _warn_of_one_batch(int(dataset.cardinality()))
        dataset = zip_batches(dataset, seed=seed)
    if class_weight is not None:
        weigh = make_class_weight_map_fn(class_weight)
        dataset = dataset.map(lambda batch, partner: (weigh(*batch), partner))
    dataset = dataset.map(Pair)
    distribution = keras.distribution.distribution()
    return TFDatasetAdapter(dataset, distribution=distribution)


def _looks_zipped(spec, num_inputs):
    """Whether a stream must be meant as a pair, its halves unlike: neither half is what the model takes as input."""
    return (
        num_inputs is not None
        and isinstance(spec, tuple)
        and len(spec) == 2
        and isinstance(spec[0], (tuple, list))
        and 2 <= len(spec[0]) <= 3
        and len(tree.flatten(spec[0])) != num_inputs
    )


def _pair_generator(generator, num_inputs):
    """Pairs of successive batches: a generator can be read but once."""
    any_pairs = False
    for batch in generator:
        if is_pair(batch, num_inputs):
            any_pairs = True
            yield batch
            continue
        for partner in generator:
            any_pairs = True
            yield Pair(batch, partner)
            break
        else:
            if not any_pairs:
                raise ValueError(
                    "A generator should hold at least two batches, as each step takes two of them. Received one"
                )


class _AdapterOfPairs(DataAdapter):
    """As many pairs, of as many samples, as there are batches in the data adapter `batches`."""

    @property
    def num_batches(self):
        return self.batches.num_batches

    @property
    def batch_size(self):
        return self.batches.batch_size

    @property
    def has_partial_batch(self):
        return self.batches.has_partial_batch

    @property
    def partial_batch_size(self):
        return self.batches.partial_batch_size


class _PairedAdapter(_AdapterOfPairs):
    """Zips two data adapters of the same number of batches."""

    def __init__(self, batches, partners):
        self.batches = batches
        self.partners = partners

    def get_numpy_iterator(self):
        return map(Pair, self.batches.get_numpy_iterator(), self.partners.get_numpy_iterator())

    def get_jax_iterator(self, super_batch=None):
        pairs = map(Pair, self.batches.get_jax_iterator(), self.partners.get_jax_iterator())
        return super_batches(pairs, super_batch)

    def get_torch_dataloader(self):
        return map(Pair, self.batches.get_torch_dataloader(), self.partners.get_torch_dataloader())

    def get_tf_dataset(self):
        import tensorflow as tf

        return tf.data.Dataset.zip((self.batches.get_tf_dataset(), self.partners.get_tf_dataset())).map(Pair)

    def on_epoch_begin(self):
        self.batches.on_epoch_begin()
        self.partners.on_epoch_begin()

    def on_epoch_end(self):
        self.batches.on_epoch_end()
        self.partners.on_epoch_end()


class _PooledAdapter(_AdapterOfPairs):
    """S2 out of the batches that follow, for data of which no second, independent order can be had: a stream that is read
    once, or a sampler of the user's own. `batches` is read as plain `fit` would read it, one or two blocks ahead."""

    def __init__(self, batches, seed):
        self.batches = batches
        self._seed = seed
        self._generator = np.random.default_rng(seed)

    def _pairs(self, batches):
        batches = iter(batches)
        block = list(itertools.islice(batches, _BLOCK["batches"]))
        while block:
            following = list(itertools.islice(batches, _BLOCK["batches"]))
            drawn = self._redrawn(following if len(following) == _BLOCK["batches"] else block + following)
            yield from map(Pair, block, drawn)
            block = following

    def _redrawn(self, batches):
        """The samples of some batches, dealt anew into batches of the same sizes."""
        sizes = [len(tree.flatten(batch)[0]) for batch in batches]
        order, ends = self._generator.permutation(sum(sizes)), np.cumsum(sizes)
        samples = tree.map_structure(lambda *parts: _concatenated(parts), *batches)
        for end, size in zip(ends, sizes, strict=True):
            yield tree.map_structure(lambda values, indices=order[end - size : end]: values[indices], samples)

    def get_numpy_iterator(self):
        return self._pairs(self.batches.get_numpy_iterator())

    def get_jax_iterator(self, super_batch=None):
        return super_batches(self._pairs(self.batches.get_jax_iterator()), super_batch)

    def get_torch_dataloader(self):
        return self._pairs(self.batches.get_torch_dataloader())

    def get_tf_dataset(self):
        return _zip_with_itself(self.batches.get_tf_dataset(), self._seed).map(Pair)


def _concatenated(parts):
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts)
    import torch

    return torch.cat(parts)


class _ReorderedArrays(ArrayDataAdapter):
    """The arrays of another adapter in an order of its own, anew in each epoch."""

    def __init__(self, adapter, seed):
        if keras.backend.backend() == "tensorflow":  # which copies arrays: once for S1 and S2
            vars(adapter)["_inputs"] = _as_tensors(vars(adapter)["_inputs"])
        self.__dict__.update(vars(adapter))
        self._seed = seed
        self._generator = np.random.default_rng(seed)

    def _get_iterator(self, slice_and_convert_fn, inputs):
        order = self._generator.permutation(self._num_samples)
        for start in range(0, self._num_samples, self._batch_size):
            grab = functools.partial(slice_and_convert_fn, indices=order[start : start + self._batch_size])
            yield tree.map_structure(grab, inputs, none_is_leaf=False)

    def get_torch_dataloader(self):
        inputs = array_slicing.convert_to_sliceable(self._inputs, target_backend="torch")

        def grab(array, indices):
            return keras.ops.convert_to_tensor(array.convert_to_torch_compatible(array[indices]))

        return self._get_iterator(grab, inputs)

    def get_tf_dataset(self):
        import tensorflow as tf

        inputs = tree.lists_to_tuples(self._inputs)

        def grab(array, indices):
            if isinstance(array, array_slicing.TensorflowSparseWrapper):
                return array_slicing.slice_tensorflow_sparse_wrapper(array, indices)
            if array is None or isinstance(array, (list, tuple, dict)):
                return None  # look into it
            return tf.gather(array, indices)

        order = tf.data.Dataset.range(self._num_samples).shuffle(self._num_samples, seed=self._seed)
        # The arrays go through the pipeline: what a function closes over becomes a constant of the graph, of 2 GiB at most.
        batches = tf.data.Dataset.zip(
            (order.batch(self._batch_size), tf.data.Dataset.from_tensors(inputs).repeat())
        ).map(
            lambda indices, inputs: tree.traverse(lambda array: grab(array, indices), inputs),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
        options = tf.data.Options()
        options.experimental_optimization.apply_default_optimizations = (
            False  # it would write the arrays out, as a graph
        )
        return batches.with_options(options).prefetch(tf.data.AUTOTUNE)


def _as_tensors(arrays):
    """Arrays as TensorFlow's data adapter takes them, as tensors in the host's memory."""
    import tensorflow as tf

    arrays = array_slicing.convert_to_sliceable(arrays, target_backend="tensorflow")
    with tf.device("CPU:0"):
        return tree.map_structure(
            lambda array: tf.convert_to_tensor(array) if isinstance(array, np.ndarray) else array, arrays
        )


class _ReorderedPyDataset(keras.utils.PyDataset):
    """The batches of another `PyDataset` in an order of its own, anew in each epoch."""

    def __init__(self, dataset, seed):
        super().__init__(
            workers=dataset.workers,
            use_multiprocessing=dataset.use_multiprocessing,
            max_queue_size=dataset.max_queue_size,
        )
        self.dataset = dataset
        self._generator = np.random.default_rng(seed)
        self.on_epoch_end()

    @property
    def num_batches(self):
        return self.dataset.num_batches

    def __getitem__(self, index):
        return self.dataset[int(self._order[index % len(self._order)])]

    def on_epoch_end(self):
        if self.num_batches is None:  # endless: any index will do
            self._order = self._generator.integers(2**31, size=4096)
        else:
            self._order = self._generator.permutation(self.num_batches)


def _loads_pairs(loader, num_inputs):
    """Whether a DataLoader's samples are pairs already, and not inputs and targets of two parts each. An
    `IterableDataset` is not looked into."""
    try:
        sample = loader.dataset[0]
    except (TypeError, NotImplementedError, IndexError, KeyError):
        return False
    return (
        isinstance(sample, (tuple, list))
        and len(sample) == 2
        and all(isinstance(half, (tuple, list)) and len(half) in (2, 3) for half in sample)
        and (num_inputs is None or len(tree.flatten(sample[0])) != num_inputs)
    )


def _reordered_data_loader(loader, seed):
    """A second DataLoader over the same data, in a random order of its own; `None` where there is no such order: of a
    stream, or with a sampler of the user's own, which may give the same order again, or draw from a shared generator."""
    import torch

    data = torch.utils.data
    sampler = loader.sampler
    known = type(sampler) in (data.SequentialSampler, data.RandomSampler)
    if isinstance(loader.dataset, data.IterableDataset) or loader.batch_size is None or not known:
        return None
    generator = torch.Generator()
    generator.manual_seed(seed)
    drawn = {"num_samples": sampler.num_samples} if isinstance(sampler, data.RandomSampler) else {}
    return data.DataLoader(
        loader.dataset,
        batch_size=loader.batch_size,
        sampler=data.RandomSampler(
            loader.dataset, replacement=getattr(sampler, "replacement", False), generator=generator, **drawn
        ),
        drop_last=loader.drop_last,
        collate_fn=loader.collate_fn,
        num_workers=loader.num_workers,
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        persistent_workers=loader.persistent_workers,
        generator=generator,
    )
