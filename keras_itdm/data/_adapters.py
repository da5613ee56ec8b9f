"""Data adapters of pairs, one for each kind of data that `fit` takes."""

import collections.abc
import functools
import itertools
import warnings

import keras

from keras_itdm._keras import (
    ArrayDataAdapter,
    DataAdapter,
    GeneratorDataAdapter,
    PyDatasetAdapter,
    PyDatasetOfPairsAdapter,
    TFDatasetAdapter,
    TorchDataLoaderAdapter,
    data_adapters,
    give_tuples,
    make_class_weight_map_fn,
    super_batches,
)
from keras_itdm.data._pairs import (
    Pair,
    as_tuples,
    check_batched,
    check_halves,
    check_same_structure,
    is_pair,
    looks_zipped,
)
from keras_itdm.data._pool import NUM_AHEAD, pairs_out_of_pool
from keras_itdm.data._reordered import ReorderedArrays
from keras_itdm.data._zip_batches import element, independent_seed, zip_batches, zip_with_itself


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
    paired=None,
    is_matched=True,
):
    """Data adapter that draws a second batch beside each one that `fit(x, y, ...)` would draw.

    Arguments are those of `keras.Model.fit`; `num_inputs` and `input_rank` are those of the model, where known;
    `num_fits` is how often it has been fitted: the partners of another `fit` are others; `paired` is the user's word on
    whether a stream holds pairs already; unless the batches of a pair are matched (`is_matched`), nothing is drawn that
    plain `fit` would not draw: the second of a pair is `()`.

    Raises:
        ValueError: if the data cannot be paired, and on what Keras' own adapters object to.
    """
    seed = (independent_seed(seed) + num_fits * 0x9E3779B1) % (2**31 - 1)
    if data_adapters.is_tf_dataset(x):
        return _pair_tf_dataset(x, y, sample_weight, class_weight, num_inputs, input_rank, seed, paired, is_matched)
    if data_adapters.is_grain_dataset(x):
        raise ValueError(
            "A grain dataset cannot be paired by `fit`. Zip it yourself, and pass a generator or a PyDataset of "
            "((x1, y1), (x2, y2))."
        )
    if x is None:
        raise ValueError("`x` should be the data to train on. Received: None")
    is_pair_of_own = functools.partial(_is_pair_of_own, num_inputs=num_inputs, paired=paired)
    if isinstance(x, collections.abc.Generator):
        first = list(itertools.islice(x, 2))
        x = itertools.chain(first, x)
        x = (batch for batch in x)  # a generator again
        if first and is_pair_of_own(first[0]):
            return data_adapters.get_data_adapter(x)
        if len(first) == 1 and is_matched:
            raise ValueError("The data should hold at least two batches, to match one with the other. Received one")
    adapter = data_adapters.get_data_adapter(
        x, y, sample_weight, batch_size, steps_per_epoch, shuffle=shuffle, class_weight=class_weight
    )
    if isinstance(adapter, TorchDataLoaderAdapter) and keras.backend.backend() == "tensorflow":
        give_tuples(adapter)
    if not is_matched:
        if isinstance(adapter, PyDatasetAdapter):
            adapter = PyDatasetOfPairsAdapter(x, class_weight, shuffle, Pair, is_pair_of_own)
        return _AdapterOfSingles(adapter, None if isinstance(adapter, ArrayDataAdapter) else is_pair_of_own)
    if isinstance(adapter, ArrayDataAdapter):
        if adapter.num_batches == 0:
            raise ValueError("The data should hold at least one sample. Received: arrays of length 0")
        _warn_of_one_batch(adapter.num_batches)
        return _PairedAdapter(adapter, ReorderedArrays(adapter, seed))
    if isinstance(adapter, (PyDatasetAdapter, TorchDataLoaderAdapter)):
        if adapter.num_batches == 0:
            raise ValueError(f"The data should hold at least one batch. Received: an empty {type(x).__name__}")
        if isinstance(adapter, PyDatasetAdapter):
            adapter = PyDatasetOfPairsAdapter(x, class_weight, shuffle, Pair, is_pair_of_own)
        return _PooledAdapter(adapter, seed, is_pair_of_own)
    if isinstance(adapter, GeneratorDataAdapter):
        if keras.backend.backend() == "tensorflow":
            adapter.generator = _begun_anew(adapter.generator())
        return _PooledAdapter(adapter, seed)
    return adapter  # one of the user's own


def _begun_anew(generator):
    """Function that gives readers one after another what a generator yields, its first batches to each, as Keras'
    adapter does: `fit` builds the model on what the first reader finds, and a pool in tf.data reads ahead."""
    first = []

    def batches():
        yield from tuple(first)
        for batch in generator:
            if len(first) < NUM_AHEAD + 4:
                first.append(batch)
            yield batch

    return batches


def _is_pair_of_own(batch, num_inputs, paired):
    if is_pair(batch, num_inputs, paired) or looks_zipped(batch, num_inputs):
        check_halves(batch)
        return True
    return False


def _warn_of_one_batch(num_batches):
    if num_batches == 1:
        warnings.warn(
            "An epoch of this data is a single batch, so S2 has the samples of S1 in another order, and there is "
            "nothing to match. Take smaller batches, or match the halves of the batch: partner='split'.",
            stacklevel=4,
        )


def _pair_tf_dataset(dataset, y, sample_weight, class_weight, num_inputs, input_rank, seed, paired, is_matched):
    import tensorflow as tf

    data_adapters.get_data_adapter(dataset, y, sample_weight)  # objects to arguments that do not go with a dataset
    spec = dataset.element_spec
    if not isinstance(dataset, tf.data.Dataset):  # a distributed one: its parts have been dealt out already
        if not is_pair(spec, num_inputs, paired):
            raise ValueError(
                "A distributed dataset should be zipped before it is distributed: "
                "strategy.experimental_distribute_dataset(keras_itdm.zip_batches(dataset)). "
                f"Received elements of structure {spec}"
            )
        return TFDatasetAdapter(dataset)
    zipped = _is_pair_of_own(spec, num_inputs, paired)
    if zipped:
        check_same_structure(as_tuples(spec[0]), as_tuples(spec[1]))
    check_batched(spec, "dataset", input_rank)
    if int(dataset.cardinality()) == 0:
        raise ValueError("The data should hold at least one batch. Received: an empty tf.data.Dataset")
    if not zipped and is_matched:
        _warn_of_one_batch(int(dataset.cardinality()))
        dataset = zip_batches(dataset, seed=seed)
    elif not zipped:
        dataset = dataset.map(lambda *batch: (element(batch, spec), ()))
    drawn = dataset
    if class_weight is not None:
        weigh = make_class_weight_map_fn(class_weight)
        dataset = dataset.map(lambda batch, partner: (weigh(*batch), partner))
    dataset = dataset.map(Pair)
    distribution = keras.distribution.distribution()
    adapter = TFDatasetAdapter(dataset, distribution=distribution)
    adapter.passed_over_by = getattr(drawn, "passed_over_by", None)
    return adapter


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

    def on_epoch_begin(self):
        self.batches.on_epoch_begin()

    def on_epoch_end(self):
        self.batches.on_epoch_end()


class _PairedAdapter(_AdapterOfPairs):
    """Zips two data adapters of the same number of batches.

    Args:
        batches: Adapter of S1.
        partners: Adapter of S2.
    """

    def __init__(self, batches, partners):
        self.batches = batches
        self.partners = partners

    def get_numpy_iterator(self):
        return map(Pair, self.batches.get_numpy_iterator(), self.partners.get_numpy_iterator())

    def get_jax_iterator(self, super_batch=None):
        return super_batches(map(Pair, self.batches.get_jax_iterator(), self.partners.get_jax_iterator()), super_batch)

    def get_torch_dataloader(self):
        # Begun at once, as plain `fit` does: a DataLoader draws from PyTorch's global generator then.
        return map(Pair, self.batches.get_torch_dataloader(), self.partners.get_torch_dataloader())

    def get_tf_dataset(self):
        import tensorflow as tf

        return tf.data.Dataset.zip((self.batches.get_tf_dataset(), self.partners.get_tf_dataset())).map(Pair)

    def on_epoch_begin(self):
        super().on_epoch_begin()
        self.partners.on_epoch_begin()

    def on_epoch_end(self):
        super().on_epoch_end()
        self.partners.on_epoch_end()


class _PooledAdapter(_AdapterOfPairs):
    """S2 out of the pool of batches around S1, for data that are read but once, just as plain `fit` would read them: a
    second reader would move a cursor on, or draw from a random generator of the data's own, and S1 would be others.

    Args:
        batches: Adapter of S1.
        seed: Integer, of the draws.
        is_pair: Function that tells whether a batch is a pair itself; all of them are passed on, then.
    """

    is_built_on = False
    """Whether reading stops at the first batch: a model is built on it, and then `fit` begins anew."""

    def __init__(self, batches, seed, is_pair=None):
        self.batches = batches
        self._seed = seed
        self._epoch = 0
        self._is_pair = is_pair or (lambda batch: False)

    def _pairs(self, batches):
        return self._drawn(iter(batches))  # begun at once, as plain `fit` does

    def _drawn(self, batches):
        first = list(itertools.islice(batches, 1))
        batches = itertools.chain(first, batches)
        if first and self._is_pair(first[0]):
            yield from batches
        elif self.is_built_on:
            yield from (Pair(batch, batch) for batch in batches)
        else:
            self._epoch += 1
            if self._epoch == 1:
                _warn_of_one_batch(self.num_batches)
            for pair in pairs_out_of_pool(batches, self.num_batches, seed=(self._seed, self._epoch)):
                yield Pair(*pair)

    def get_numpy_iterator(self):
        return self._pairs(self.batches.get_numpy_iterator())

    def get_jax_iterator(self, super_batch=None):
        return super_batches(self._pairs(self.batches.get_jax_iterator()), super_batch)

    def get_torch_dataloader(self):
        return self._pairs(self.batches.get_torch_dataloader())

    def get_tf_dataset(self):
        dataset = self.batches.get_tf_dataset()
        if self._is_pair(dataset.element_spec):
            return dataset
        _warn_of_one_batch(self.num_batches)
        return zip_with_itself(dataset, self._seed).map(Pair)


class _AdapterOfSingles(_AdapterOfPairs):
    """Each batch as `Pair(batch, ())`, except where `is_pair` says that it, or its spec, is a pair itself: all that is
    drawn is what plain `fit` draws."""

    def __init__(self, batches, is_pair=None):
        self.batches = batches
        self._is_pair = is_pair or (lambda batch: False)

    def get_numpy_iterator(self):
        return map(self._paired, self.batches.get_numpy_iterator())

    def get_jax_iterator(self, super_batch=None):
        return super_batches(map(self._paired, self.batches.get_jax_iterator()), super_batch)

    def get_torch_dataloader(self):
        return map(self._paired, self.batches.get_torch_dataloader())

    def get_tf_dataset(self):
        dataset = self.batches.get_tf_dataset()
        spec = dataset.element_spec
        return dataset.map(lambda *batch: self._paired(element(batch, spec)))

    def _paired(self, batch):
        return batch if self._is_pair(batch) else Pair(batch, ())
