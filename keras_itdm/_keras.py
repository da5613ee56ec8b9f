"""The one door to what is private to Keras: nothing else in this package imports `keras.src` or reaches for an
attribute of a Keras object that begins with an underscore (ruff sees to it). Keras releases every two months; what a
release moves is mended here. It imports nothing of this package.

Each entry says why public Keras does not do, and what the public way would cost. What does without is not here: whether
a model takes `training` (the signature of `call`), the state of seed generators (`variables` that are no `weights`),
handing variables back on JAX (what `Callback.model` does), sharing a loss between replicas (`tf.distribute`).
"""

import contextlib
import itertools

import keras
from keras import tree

# Data adapters, which Keras chooses by the type of `x`. Nothing public gives the batches that `fit` would draw. The
# public way is a `PyDataset` or a `tf.data.Dataset` of our own: Keras' shuffling, `class_weight`, sparse arrays and
# workers, written again for each kind of data, and S1 would no longer be what plain `fit` trains on.
from keras.src.trainers import data_adapters as data_adapters
from keras.src.trainers.data_adapters import array_slicing as array_slicing
from keras.src.trainers.data_adapters.array_data_adapter import ArrayDataAdapter as ArrayDataAdapter
from keras.src.trainers.data_adapters.data_adapter import DataAdapter as DataAdapter
from keras.src.trainers.data_adapters.generator_data_adapter import GeneratorDataAdapter as GeneratorDataAdapter
from keras.src.trainers.data_adapters.py_dataset_adapter import PyDatasetAdapter as PyDatasetAdapter
from keras.src.trainers.data_adapters.tf_dataset_adapter import TFDatasetAdapter as TFDatasetAdapter
from keras.src.trainers.data_adapters.tf_dataset_adapter import make_class_weight_map_fn as make_class_weight_map_fn
from keras.src.trainers.data_adapters.torch_data_loader_adapter import TorchDataLoaderAdapter as TorchDataLoaderAdapter

NO_BATCH = "The data should hold at least one batch. Received none"


def super_batches(batches, size):
    """`batches` or, where Keras on JAX asks its adapters for it, so many of them stacked, for `steps_per_execution`.

    Since 3.16 an adapter has to answer as Keras' own do; its trainer knows the last, smaller stack by its type.
    """
    if size is None:
        return batches
    from keras.src.trainers.data_adapters.data_adapter_utils import super_batch_iterator

    return super_batch_iterator(batches, size, stack_fn=keras.ops.stack)


def give_tuples(adapter):
    """Has Keras' adapter of a `DataLoader` give tuples for the lists that PyTorch collates: tf.data takes none. In
    public the user would have to pass a `collate_fn`."""
    loader = adapter._dataloader

    class InTuples:
        def __iter__(self):
            return map(tree.lists_to_tuples, loader)

    adapter._dataloader = InTuples()


class PyDatasetOfPairsAdapter(PyDatasetAdapter):
    """Keras' adapter for a `PyDataset` that gives pairs: each half is what a batch is otherwise, and class weights are
    for the first alone.

    Args:
        make_pair: Function of both halves.
        is_pair: Function that tells a pair, if not all are.
    """

    def __init__(self, x, class_weight=None, shuffle=False, make_pair=None, is_pair=None):
        super().__init__(x, class_weight=class_weight, shuffle=shuffle)
        self._make_pair, self._is_pair = make_pair, is_pair

    def _standardize_batch(self, batch):
        if self._is_pair and not self._is_pair(batch):
            return super()._standardize_batch(batch)
        first, second = batch
        first, class_weight = super()._standardize_batch(first), self.class_weight
        self.class_weight = None
        try:
            return self._make_pair(first, super()._standardize_batch(second))
        finally:
            self.class_weight = class_weight


def sublayers(layer):
    """The layers directly inside a layer. In public a `Model` alone has `layers`: none that a layer of the user's own,
    a wrapper or a block of a large model holds could be named as feature layer."""
    return layer._flatten_layers(include_self=False, recursive=False)


@contextlib.contextmanager
def losses_kept(layer):
    """Keeps the losses that a model in its forward pass has added so far, while others call the same layers.

    `layer` is one that is being called. The public `Layer.losses` is a copy. Without it a layer could not add a loss
    that replicas have to meet for, and so could not match over the global batch under `tf.distribute`.
    """
    layers = layer._get_call_context().entry_layer._flatten_layers()
    losses = [list(layer._losses) for layer in layers]
    yield
    for layer, kept in zip(layers, losses, strict=True):
        layer._losses[:] = kept


@contextlib.contextmanager
def lent_losses(model, owner):
    """Has a model compute its loss with the losses of the model around it: the compiled one, and those that layers have
    added. In public these are what its own forward pass has added, which on JAX is over, and forgotten, by then; and
    `compile` makes metrics, which cannot be made inside a step."""
    lent = {"_losses_override": list(owner.losses), "_compile_loss": owner._compile_loss, "loss": owner.loss}
    before = {name: vars(model)[name] for name in lent if name in vars(model)}
    for name, value in lent.items():
        object.__setattr__(model, name, value)  # untracked
    try:
        yield
    finally:
        for name in lent:
            if name in before:
                object.__setattr__(model, name, before[name])
            else:
                object.__delattr__(model, name)


def own_metrics(model):
    """The metrics that a model tracks as attributes. The public `metrics` has those that it was compiled with among
    them, and that of a model around it leaves them all out."""
    return model._metrics


def begin_with_epoch(model, epoch):
    """Has `fit`, once callbacks have begun, begin with this epoch, or with its `initial_epoch` for `None`.

    It is how `BackupAndRestore` tells `fit`, which then does not forget. In public there is the argument alone, which
    is read before a backup is.
    """
    model._initial_epoch = epoch


def skip_epochs(epoch_iterator, epochs):
    """Brings data to the state in which so many epochs leave it, without reading more than a batch of each.

    What counts is that iterators are made, for `tf.data`, or begun: that is when they draw their order. Where one is
    for several epochs (`steps_per_epoch`), none is skipped. The public way, iterating, reads every batch on PyTorch.

    Args:
        epoch_iterator: The Keras `EpochIterator` that `fit` trains from.
        epochs: Number of epochs to skip. A data adapter may name a `tf.data.Dataset` that draws what it draws, and
            reads less, as `passed_over_by`.
    """
    if epoch_iterator.steps_per_epoch:
        return
    passed_over_by = getattr(epoch_iterator.data_adapter, "passed_over_by", None)
    if passed_over_by is not None:
        in_graph = keras.backend.backend() == "tensorflow"  # else Keras has a generator, which begins when it is read
        later = itertools.chain.from_iterable
        epoch_iterator._get_iterator = lambda: passed_over_by if in_graph else later([passed_over_by])
    for _ in range(epochs):
        for step, _, batches in epoch_iterator._enumerate_iterator():
            if step == 0:
                next(batches, None)
            if epoch_iterator.num_batches is None:  # the length is not known before the end is met
                epoch_iterator.data_adapter.on_epoch_end()
                break
    vars(epoch_iterator).pop("_get_iterator", None)


def dataset_of(epoch_iterator):
    """The `tf.data.Dataset` of dense tensors that `fit` on TensorFlow trains from; `None` where it is of several
    replicas, or of other things. In public there is what was given to `fit`, not what Keras has made of it."""
    import tensorflow as tf

    dataset = epoch_iterator._distributed_dataset
    specs = tf.nest.flatten(dataset.element_spec) if isinstance(dataset, tf.data.Dataset) else [None]
    return dataset if all(isinstance(spec, tf.TensorSpec) for spec in specs) else None


def train_from(epoch_iterator, dataset):
    """Has `fit` on TensorFlow train from a `tf.data.Dataset` instead of its `dataset_of`."""
    epoch_iterator._distributed_dataset = dataset


class TrainerHooks:
    """Mixin before `keras.Model`, with hooks where its trainers have none in public.

    A subclass overrides those above `_maybe_symbolic_build`. The public way is a `fit` of our own for each backend:
    Keras' three are a thousand lines, with callbacks, devices and evaluation in between.
    """

    _step_variants: tuple[str | None, ...] = (None,)
    """Names of the train steps that are compiled apart."""

    _is_evaluating = False  # then none of these hooks applies

    _non_trainable_ids = ()
    _before_tracing = None  # what is to be done before the first step on TensorFlow
    _pending = None  # index and value of a variable, to be put into the state that `fit` on JAX holds

    def _step_variant(self):
        """Which of `_step_variants` the next call of the train function is to take."""

    def _take_data(self, epoch_iterator):
        """A `fit` begins with this Keras `EpochIterator`."""

    def _first_batch(self, batch):
        """What metrics, losses and optimizer are built on, of the first batch of `fit`."""
        return batch

    def _evaluated_batch(self, batch):
        """What is evaluated of a batch."""
        return batch

    def _while_building(self):
        """The context in which they are built, by calling the model and `compute_loss` symbolically."""
        return contextlib.nullcontext()

    # Building. Keras does it before the first step, on a batch as the data gives it.

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        # The way to `_symbolic_build` that some backends take.
        strategy = getattr(self, "_distribute_strategy", None)
        if not self._is_evaluating:
            if strategy is None and keras.backend.backend() == "tensorflow" and self.train_function is None:
                batch = data_batch if iterator is None else getattr(dataset_of(iterator), "element_spec", None)
                self._before_tracing = lambda: self._build_before_tracing(batch)
            if iterator is not None:
                self._take_data(iterator)
        if strategy is not None and iterator is not None:
            # TensorFlow's trainer would take the mean over workers' first batches, and fails: keras-team/keras#20585.
            for _, _, batches in iterator:
                data_batch = tree.map_structure(
                    lambda values: strategy.experimental_local_results(values)[0], next(batches)
                )
                break
            iterator = None
        try:
            super()._maybe_symbolic_build(iterator=iterator, data_batch=data_batch)
        except ValueError as error:
            if isinstance(error.__context__, StopIteration):
                raise ValueError(NO_BATCH) from None
            raise

    def _build_before_tracing(self, batch):
        """What Keras on TensorFlow builds while it traces the first step, and then traces that once more: variables of
        the optimizer and of metrics. After callbacks have begun, which may freeze or thaw layers; and of a graph of
        layers alone, which gives in training what it gives otherwise. The rest, and data that is not dense, is Keras'.

        Args:
            batch: A batch, or what one looks like; `None` where that is not known.
        """
        if batch is not None and self.built and getattr(self, "inputs", None):
            with contextlib.suppress(Exception), self._while_building():
                super()._symbolic_build(data_batch=self._evaluated_batch(batch))

    def _symbolic_build(self, iterator=None, data_batch=None):
        if self._is_evaluating:
            if iterator is not None:
                iterator = self._first_step(iterator, self._evaluated_batch)
            if data_batch is not None:
                data_batch = self._evaluated_batch(data_batch)
            return super()._symbolic_build(iterator=iterator, data_batch=data_batch)
        if iterator is not None:
            self._take_data(iterator)
            iterator = self._first_step(iterator, self._first_batch)
        if data_batch is not None:
            data_batch = self._first_batch(data_batch)
        with self._while_building():
            super()._symbolic_build(iterator=iterator, data_batch=data_batch)

    def _first_step(self, iterator, taken):
        """The first step of an epoch iterator, with what is `taken` of its first batch: all that building looks at. A
        data adapter that reads ahead is told so, by `is_built_on`."""
        adapter = iterator.data_adapter
        adapter.is_built_on = True
        try:
            for begin, end, batches in iterator:
                for batch in batches:
                    yield begin, end, [taken(batch)]
                    return
                break  # an iterator of unknown length steps on when it has run dry
        finally:
            adapter.is_built_on = False
        raise ValueError(NO_BATCH)

    def evaluate(self, *args, **kwargs):
        with self._evaluation():
            return super().evaluate(*args, **kwargs)

    def test_on_batch(self, *args, **kwargs):
        with self._evaluation():
            return super().test_on_batch(*args, **kwargs)

    @contextlib.contextmanager
    def _evaluation(self):
        self._is_evaluating = True
        try:
            yield
        finally:
            self._is_evaluating = False

    def make_train_function(self, force=False):
        """Compiles a train step for each of `_step_variants`; each is traced when it is first needed."""
        self._pending = None
        self._non_trainable_ids = tuple(id(variable) for variable in self.non_trainable_variables)
        if self.train_function is not None and not force:
            return
        functions = {variant: self._one_train_function() for variant in self._step_variants}

        def train_function(*args):
            if self._pending is not None:
                (index, value), self._pending = self._pending, None
                (_, non_trainable_variables, *_), _ = args
                non_trainable_variables[index] = value
            if self._before_tracing is not None:
                before, self._before_tracing = self._before_tracing, None
                before()
            return functions[self._step_variant()](*args)

        self.train_function = train_function

    def _one_train_function(self):
        # Of a function of its own: compilers keep what they traced by the identity of what they were given.
        object.__setattr__(self, "train_step", lambda *args: type(self).train_step(self, *args))
        try:
            super().make_train_function(force=True)
        finally:
            object.__delattr__(self, "train_step")
        return self.train_function


def hand_back(model):
    """Has `fit` on JAX hand back the variables' values, which it holds itself between steps."""
    callback = keras.callbacks.Callback()
    callback.set_model(model)
    _ = callback.model  # Keras' own way for callbacks


def assign_between_steps(model, variable, value):
    """Assigns to a non-trainable variable of a model with `TrainerHooks`. The next step of `fit` takes the value.

    On JAX `fit` holds the variables' values itself. In public it can be had to hand all of them back, and then takes
    them again: a small step with λ by step takes 4 times as long as one without, this way 1.6 times.
    """
    model._pending = None
    state = getattr(model, "_jax_state", None)
    if state and "optimizer_variables" in state and not model._jax_state_synced:
        index = model._non_trainable_ids.index(id(variable))
        held = state["non_trainable_variables"]
        value = keras.ops.full_like(held[index], value)
        held[index] = value  # a copy of what `fit` holds: for callbacks that have the variables handed back
        model._pending = (index, value)  # for the next step
    else:
        hand_back(model)
        variable.assign(value)
