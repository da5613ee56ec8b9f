"""In-Training Distribution Matching: Algorithm 1 of Li, Pan, Li and Zhu, "Improve SGD Training via Aligning
Mini-batches" (2020), as a Keras model around another.

    for each epoch:
        for each mini-batch S1:
            sample another mini-batch S2                                    `zip_batches`, or `fit` by itself
            L ← cross-entropy on S1                                         Eq. 2: the compiled loss
            H1, H2 ← features of S1 and S2                                  the output of `feature_layer`
            Match ← MMD between H1 and H2, jointly or class by class        Eq. 3 or 5: `keras_itdm.losses`
            θ ← θ - α ∇ [L + λ · Match]                                     Eq. 4 or 6: the compiled optimizer

Keras' own `train_step` does all but two of these: it is handed S1, while S2 is kept aside; and `compute_loss`, which it
calls where gradients are taken, adds λ · Match. So one class serves every backend. The forward pass of S2 runs in a
`StatelessScope`, where whatever it does to the model's state is dropped: the step leaves the traces of S1 alone.
"""

import contextlib
import contextvars
import dataclasses

import keras
import numpy as np
from keras import ops, tree

from keras_itdm import _keras, replicas
from keras_itdm.checks import check_flags, check_match_weight, check_no_strings, is_function
from keras_itdm.data import check_ends, pair_up, split_pair
from keras_itdm.features import check_path, find_layer, read_output, run_model, the_output
from keras_itdm.losses import ClassConditionalMMD, JointMMD, MatchingLoss
from keras_itdm.resuming import EpochCounter, Resumer

MATCHINGS = {"joint": JointMMD, "class_conditional": ClassConditionalMMD}
PARTNERS = ("stream", "split")


@dataclasses.dataclass
class _Step:
    """One training step in progress: what `train_step` knows and `compute_loss` needs."""

    partner: object  # S2, or None to match the halves of S1
    outputs: list | None = None  # what the feature layer returned for S1


_step = contextvars.ContextVar("keras_itdm_step", default=None)  # replicas are traced in threads of their own


@keras.saving.register_keras_serializable(package="keras_itdm")
class ITDMModel(_keras.TrainerHooks, keras.Model):
    """Trains a model with In-Training Distribution Matching.

    Each step adds `match_weight · Match(H1, H2)` to the loss: the discrepancy between the features that the model gives
    two mini-batches S1 and S2 of the training data. The loss you compile, sample weights and class weights, moving
    averages of batch normalization, losses that layers add and metrics see S1 alone. With `match_weight=0` training is
    that of the plain model.

    `compile`, `fit`, `evaluate`, `predict`, `save` and `export` are used as on the plain model. `fit` draws S2 by itself
    from arrays, a batched `tf.data.Dataset`, a `keras.utils.PyDataset` or a PyTorch `DataLoader`; it reads two batches a
    step from a generator; and it takes streams of `((x1, y1), (x2, y2))`, such as `keras_itdm.zip_batches` makes. In
    training, `match_loss` (before λ) and `match_weight` are logged beside `loss`, the whole objective.

    Args:
        model: Any `keras.Model`. It is trained in place, and stays at hand as `base_model`.
        feature_layer: Name of the layer whose output is matched, usually the last before the classifier;
            `"outer/inner"` reaches into a nested model. Outputs of rank above 2 are flattened.
        matching: `"class_conditional"` (ITDM-c, Eq. 5), `"joint"` (ITDM-j, Eq. 3; needs no labels), or a `MatchingLoss`.
        match_weight: λ of Eq. 4 and 6, at least 0. The paper tries 0.2 to 1.
        partner: `"stream"`, to match with a second mini-batch as in the paper, or `"split"`, to match the two halves of
            one mini-batch: each class is dealt out evenly, `fit` takes plain data, and there is no second pass.
        label_fn: Which labels to match on, where the model has several outputs: the name or index of the output, or a
            function from `y` to the labels. Default: `y` itself.
        synchronized: Under `tf.distribute` or `keras.distribution`, whether to match over the global mini-batch, of all
            replicas. If not, each replica matches within its own share, and the mean is taken.
        name: Name of this model.

    Raises:
        TypeError: if `model` is not a `keras.Model`.
        ValueError: if there is no such feature layer, or an argument is not one of the above.

    Example:

    >>> model = keras.Sequential([
    ...     keras.Input((8,)),
    ...     keras.layers.Dense(16, activation="relu", name="features"),
    ...     keras.layers.Dense(3, activation="softmax"),
    ... ])
    >>> itdm = ITDMModel(model, feature_layer="features", match_weight=0.8)
    >>> itdm.compile("sgd", "sparse_categorical_crossentropy")
    >>> x, y = np.random.default_rng(0).normal(size=(64, 8)), np.arange(64) % 3
    >>> history = itdm.fit(x, y, batch_size=32, verbose=0)
    >>> sorted(history.history)
    ['loss', 'match_loss', 'match_weight']
    """

    def __init__(
        self,
        model,
        feature_layer,
        matching="class_conditional",
        match_weight=0.8,
        partner="stream",
        label_fn=None,
        synchronized=True,
        name=None,
    ):
        if not isinstance(model, keras.Model):
            raise TypeError(f"`model` should be a keras.Model. Received: {model!r} of type {type(model).__name__}")
        if isinstance(model, ITDMModel):
            raise TypeError("`model` is an ITDMModel already. Wrap its `base_model` instead.")
        if matching not in MATCHINGS if isinstance(matching, str) else not isinstance(matching, MatchingLoss):
            raise ValueError(f"`matching` should be one of {list(MATCHINGS)} or a MatchingLoss. Received: {matching!r}")
        if partner not in PARTNERS:
            raise ValueError(f"`partner` should be one of {list(PARTNERS)}. Received: {partner!r}")
        names_output = isinstance(label_fn, (str, int)) and not isinstance(label_fn, bool)
        if not (label_fn is None or names_output or is_function(label_fn)):
            raise ValueError(
                "`label_fn` should be the name or index of an output, or a function from y to labels. "
                f"Received: {label_fn!r}"
            )
        match_weight = check_match_weight(match_weight)
        check_path(feature_layer)
        check_flags(synchronized=synchronized)
        super().__init__(name=name, dtype=model.dtype_policy)
        self.base_model = model
        self.feature_layer = feature_layer
        self.matching = matching
        self.partner = partner
        self.label_fn = label_fn
        self.synchronized = synchronized
        self._matching_loss = MATCHINGS[matching]() if isinstance(matching, str) else matching
        self._match_weight = self.add_weight(
            shape=(),
            initializer=keras.initializers.Constant(match_weight),
            trainable=False,
            dtype="float32",
            name="match_weight",
        )
        self._match_loss_tracker = keras.metrics.Mean(name="match_loss")
        self._match_weight_tracker = keras.metrics.Mean(name="match_weight")
        self._matches = match_weight != 0
        self._epochs_done = None
        self._has_trained = False
        if model.built:
            self.built = True
            find_layer(model, feature_layer)
            if getattr(model, "outputs", None):
                self._complete_matching_loss(model.output_shape)

    # λ

    @property
    def match_weight(self):
        """λ of Eq. 4 and 6, a float. Set it at any time, between steps as well: nothing is traced again.

        Only 0 has a step of its own, that of the plain model, which is compiled when λ is first 0.
        """
        _keras.hand_back(self)
        return float(str(np.float32(self._match_weight.numpy())))  # 0.8, not 0.800000011920929

    @match_weight.setter
    def match_weight(self, value):
        value = check_match_weight(value)
        self._matches = value != 0
        self.assign_between_steps(self._match_weight, np.float32(value))  # TensorFlow never forgets a Python number

    # The step

    def call(self, inputs, training=None):
        step = _step.get()
        if step is None:
            return run_model(self.base_model, inputs, training)
        with read_output(self._layer) as step.outputs:
            return run_model(self.base_model, inputs, training)

    def train_step(self, *args):
        *state, data = args  # JAX hands the state along
        batch, partner = self._split(data)
        with _in_progress(_Step(partner)) if self._matches else contextlib.nullcontext():
            return replicas.logs(super().train_step(*state, batch))

    def test_step(self, *args):
        return replicas.logs(super().test_step(*args))

    # A step with matching and, for λ = 0, Keras' own step without: a condition inside one step would change how the
    # compiler rounds the rest of it.
    step_variants = (True, False)

    def step_variant(self):
        return self._matches

    def make_train_function(self, force=False):
        self._matches = self.match_weight != 0
        super().make_train_function(force)

    def save_own_variables(self, store):
        """Saves λ and, which Keras does not, what a killed training needs to go on as it would have gone on."""
        super().save_own_variables(store)
        store["epochs_done"] = np.array(self._epochs_done or 0)
        for index, seed in enumerate(self._seeds):
            store[f"seed_{index}"] = seed

    def load_own_variables(self, store):
        names = set(store.keys())
        super().load_own_variables({name: store[name] for name in names if name.isdigit()})
        self._matches = check_match_weight(self.match_weight) != 0
        if "epochs_done" in names:  # not in a file that an earlier version of this package wrote
            self._epochs_done = int(np.array(store["epochs_done"]))
        for index, seed in enumerate(self._seeds):
            if f"seed_{index}" in names:
                seed.assign(store[f"seed_{index}"])

    @property
    def _seeds(self):
        """The states of the seed generators of the plain model's layers."""
        weights = {id(weight) for weight in self.base_model.weights}
        return [variable for variable in self.base_model.variables if id(variable) not in weights]

    def _split(self, data):
        """S1 and S2, or the batch itself and `None`, with the labels that matching needs."""
        batch, partner = split_pair(data, self._num_inputs)
        for half in (batch, partner) if self._matching_loss.needs_labels else ():
            if half is not None and self._labels(keras.utils.unpack_x_y_sample_weight(half)[1]) is None:
                raise ValueError(
                    f"{type(self._matching_loss).__name__} matches class by class and needs labels. Received data "
                    "without: give fit(x, y), or a stream of (x, y), or match jointly: matching='joint'."
                )
        return batch, partner

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        loss = super().compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=training)
        step = _step.get()
        if step is None:
            return loss
        features = the_output(step.outputs, self.feature_layer)
        self._complete_matching_loss(tree.map_structure(lambda prediction: tuple(prediction.shape), y_pred))
        if not training:  # the model is being built, and all is well
            return loss
        match_weight = ops.convert_to_tensor(self._match_weight.value)
        match_loss = self._match(features, self._labels(y), step.partner)
        num_samples = ops.shape(tree.flatten(x)[0])[0]
        self._match_loss_tracker.update_state(match_loss, sample_weight=num_samples)
        self._match_weight_tracker.update_state(match_weight, sample_weight=num_samples)
        return loss + ops.cast(replicas.share_of_mean(match_weight * match_loss), loss.dtype)

    def _match(self, features, labels, partner):
        """Match between the features of S1 and those of S2, in training mode and without a trace."""
        if partner is None:
            if not self._matching_loss.needs_labels and not _may_be_classes(labels):
                labels = None
            batches = (features, labels)
        else:
            x, y, _ = keras.utils.unpack_x_y_sample_weight(partner)
            state = [(variable, variable.value) for variable in self.base_model.variables]
            with keras.StatelessScope(state), read_output(self._layer) as outputs:
                run_model(self.base_model, x, training=True)
            batches = (features, labels, the_output(outputs, self.feature_layer), self._labels(y))

        def match(*batches):
            return ops.cast(self._matching_loss(*(_halves(*batches) if partner is None else batches)), "float32")

        return replicas.evaluate(match, batches, self.synchronized)

    def _labels(self, y):
        """The labels to match on, out of the targets."""
        if y is None or self.label_fn is None:
            if self._matching_loss.needs_labels and tree.is_nested(y):
                raise ValueError(
                    "The targets have several parts. Say which to match on: ITDMModel(..., label_fn=...) takes the name "
                    "or index of an output, or a function from y to labels. Received targets: "
                    f"{list(y) if isinstance(y, dict) else f'{len(y)} of them'}"
                )
            return y
        return self.label_fn(y) if callable(self.label_fn) else self._pick(y)

    def _pick(self, structure):
        """The part of the targets or outputs that `label_fn` names."""
        key = self.label_fn
        if isinstance(structure, (list, tuple)) and isinstance(key, str) and key in (self.output_names or []):
            key = self.output_names.index(key)
        try:
            return structure[key]
        except (KeyError, IndexError, TypeError):
            parts = list(structure) if isinstance(structure, dict) else f"{len(tree.flatten(structure))} parts"
            raise ValueError(
                f"`label_fn={self.label_fn!r}` names no part of the targets, which have: {parts}"
            ) from None

    def _complete_matching_loss(self, output_shape):
        """Tells the class-conditional loss the number of classes, the width of the model's output.

        Anew whenever a step is traced: the model may have got another output layer since.
        """
        loss = MATCHINGS[self.matching]() if isinstance(self.matching, str) else self.matching
        if not isinstance(loss, ClassConditionalMMD) or loss.num_classes is not None:
            return
        if isinstance(self.label_fn, (str, int)) and not _is_shape(output_shape):
            output_shape = self._pick(output_shape)
        if not _is_shape(output_shape) or len(output_shape) != 2 or output_shape[1] in (None, 1):
            raise ValueError(
                "The number of classes cannot be inferred from the model's output, which should be of shape (batch, "
                f"classes), with two classes or more. Received: {output_shape}. Pass "
                "matching=keras_itdm.losses.ClassConditionalMMD(num_classes=...), or match jointly: matching='joint'."
            )
        if self._matching_loss.num_classes != output_shape[1]:
            self._matching_loss = type(loss).from_config({**loss.get_config(), "num_classes": output_shape[1]})

    # Layers, inputs and outputs of the plain model

    @property
    def _layer(self):
        return find_layer(self.base_model, self.feature_layer)

    @property
    def _num_inputs(self):
        inputs = getattr(self.base_model, "inputs", None)
        return len(inputs) if inputs else None

    @property
    def output_names(self):
        return getattr(self.base_model, "output_names", None)

    # What `fit` trains on

    def fit(
        self,
        x=None,
        y=None,
        batch_size=None,
        epochs=1,
        verbose="auto",
        callbacks=None,
        validation_split=0.0,
        validation_data=None,
        shuffle=True,
        class_weight=None,
        sample_weight=None,
        initial_epoch=0,
        steps_per_epoch=None,
        validation_steps=None,
        validation_batch_size=None,
        validation_freq=1,
    ):
        """Trains the model as `keras.Model.fit` does, and takes the same arguments.

        Args:
            x: Arrays, a `tf.data.Dataset`, a `keras.utils.PyDataset`, a `torch.utils.data.DataLoader` or a generator, of
                inputs and targets as for the plain model; or any of these but arrays, of pairs
                `((x1, y1), (x2, y2))`. Unless they come in pairs, a second batch is drawn beside each: from arrays,
                whatever `shuffle` says, in a random order of its own.

        Returns:
            A `History`, with `match_loss` and `match_weight` beside what the plain model's holds.

        Raises:
            ValueError: if the data is empty, not batched, endless without `steps_per_epoch`, or lacks labels that the
                matching needs, or if the halves of a zipped stream differ in structure.
        """
        check_ends(x, steps_per_epoch)
        for labels in tree.flatten(y):
            check_no_strings(labels)
        if not isinstance(callbacks, keras.callbacks.CallbackList):
            callbacks = tree.flatten(callbacks) if callbacks else []
            restores = any(isinstance(callback, keras.callbacks.BackupAndRestore) for callback in callbacks)
            callbacks = [EpochCounter(), *callbacks, Resumer(initial_epoch, restores)]
        _keras.begin_with_epoch(self, None)  # Keras does not forget what an earlier fit restored
        self._epochs_done = None
        fit_arguments = {
            "batch_size": batch_size,
            "epochs": epochs,
            "verbose": verbose,
            "callbacks": callbacks,
            "initial_epoch": initial_epoch,
            "steps_per_epoch": steps_per_epoch,
            "validation_steps": validation_steps,
            "validation_batch_size": validation_batch_size,
            "validation_freq": validation_freq,
        }
        if self.partner == "split":
            return super().fit(
                x,
                y,
                validation_split=validation_split,
                validation_data=validation_data,
                shuffle=shuffle,
                class_weight=class_weight,
                sample_weight=sample_weight,
                **fit_arguments,
            )
        if validation_split and validation_data is None:
            (x, y, sample_weight), validation_data = _keras.array_slicing.train_validation_split(
                (x, y, sample_weight), validation_split=validation_split
            )
        inputs = getattr(self.base_model, "inputs", None)
        adapter = pair_up(
            x,
            y,
            sample_weight,
            batch_size,
            steps_per_epoch,
            shuffle,
            class_weight,
            num_inputs=self._num_inputs,
            input_rank=len(inputs[0].shape) if inputs else None,
        )
        history = super().fit(adapter, validation_data=validation_data, **fit_arguments)
        if history.epoch and "loss" not in history.history:
            raise ValueError(_keras.NO_BATCH)
        return history

    # Evaluation knows nothing of matching

    @property
    def metrics(self):
        own = (self._match_loss_tracker, self._match_weight_tracker)
        return [metric for metric in super().metrics if not (self.is_evaluating and any(metric is m for m in own))]

    def evaluate(self, *args, **kwargs):
        with self._evaluation():
            return super().evaluate(*args, **kwargs)

    def test_on_batch(self, *args, **kwargs):
        with self._evaluation():
            return super().test_on_batch(*args, **kwargs)

    @contextlib.contextmanager
    def _evaluation(self):
        self.is_evaluating = True
        try:
            yield
        finally:
            self.is_evaluating = False

    # The rest is the plain model's

    def summary(self, *args, **kwargs):
        return self.base_model.summary(*args, **kwargs)

    def export(self, *args, **kwargs):
        return self.base_model.export(*args, **kwargs)

    def first_batch(self, batch):
        return self._split(batch)[0]

    def while_building(self):
        return _in_progress(_Step(None))

    # Serialization

    def get_config(self):
        serialize = keras.saving.serialize_keras_object
        return {
            "model": serialize(self.base_model),
            "feature_layer": self.feature_layer,
            "matching": self.matching if isinstance(self.matching, str) else serialize(self.matching),
            "match_weight": self.match_weight,
            "partner": self.partner,
            "label_fn": serialize(self.label_fn) if callable(self.label_fn) else self.label_fn,
            "synchronized": self.synchronized,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        for key in ("model", "matching", "label_fn"):
            if isinstance(config[key], dict):
                config[key] = keras.saving.deserialize_keras_object(config[key], custom_objects=custom_objects)
        return cls(**config)


@contextlib.contextmanager
def _in_progress(step):
    token = _step.set(step)
    try:
        yield
    finally:
        _step.reset(token)


def _is_shape(value):
    return isinstance(value, (tuple, list)) and all(size is None or isinstance(size, int) for size in value)


def _may_be_classes(labels):
    """Whether they are one tensor of a shape that class indices or one-hot labels have."""
    return hasattr(labels, "shape") and len(labels.shape) in (1, 2)


def _halves(features, labels):
    """The two halves of one batch, with the samples of each class dealt out to them in turn."""
    num_samples = ops.shape(features)[0]
    order = ops.arange(num_samples, dtype="int32")
    if labels is not None:
        labels = ops.convert_to_tensor(labels)
        if len(labels.shape) == 2:
            labels = ops.argmax(labels, axis=1) if labels.shape[1] > 1 else labels[:, 0]
        order = ops.argsort(ops.cast(labels, "int32") * num_samples + order)
    order = ops.concatenate([order[0::2], order[1::2]])
    half = (num_samples + 1) // 2
    features = ops.take(features, order, axis=0)
    if labels is None:
        return features[:half], None, features[half:], None
    labels = ops.take(labels, order, axis=0)
    return features[:half], labels[:half], features[half:], labels[half:]
