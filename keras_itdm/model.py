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

import functools
from typing import Literal

import keras
from keras import ops, tree

from keras_itdm import _keras, _replicas
from keras_itdm._checks import check_flags
from keras_itdm._collapse import CollapseWarning, CollapseWatch
from keras_itdm._evaluation import Evaluation
from keras_itdm._feature_layers import FeatureLayers, in_copy, paths_of, positions_of
from keras_itdm._features import features_without_trace, read_features, run_model
from keras_itdm._first_look import FirstLook
from keras_itdm._gradient_bound import GradientBound, check_max_share
from keras_itdm._labels import check_label_fn, check_no_strings
from keras_itdm._match_weight import MatchWeight
from keras_itdm._matching import Match, MatchLoss, less_is_better, loss_of
from keras_itdm._resuming import ResumableWeights, TrainingState
from keras_itdm._step import Step, StepsOnJAX, current_step, in_progress
from keras_itdm._typing import LabelFn, LayersToMatch
from keras_itdm._wrapping import Wrapper, check_can_be_wrapped
from keras_itdm.data import check_ends, pair_up
from keras_itdm.losses import MatchingLoss

PARTNERS = ("stream", "split")


@keras.saving.register_keras_serializable(package="keras_itdm")
class ITDMModel(
    Evaluation, StepsOnJAX, FirstLook, ResumableWeights, _keras.TrainerHooks, FeatureLayers, Wrapper, keras.Model
):
    """Trains a model with In-Training Distribution Matching.

    Each step adds `match_weight · Match(H1, H2)` to the loss: the discrepancy between the features that the model gives
    two mini-batches S1 and S2 of the training data. The loss you compile, sample weights and class weights, moving
    averages of batch normalization, losses that layers add and metrics see S1 alone. With `match_weight=0` training is
    that of the plain model.

    `compile`, `fit`, `evaluate`, `predict`, `save` and `export` are used as on the plain model. `fit` draws S2 by
    itself from arrays, a batched `tf.data.Dataset`, a `keras.utils.PyDataset`, a PyTorch `DataLoader` or a generator;
    and it takes streams of `((x1, y1), (x2, y2))`, such as `keras_itdm.zip_batches` makes, of which `evaluate` takes
    S1. In training, `match_loss` (before its weight) and `match_weight` (the weight that it had) are logged beside
    `loss`, the whole objective.

    Args:
        model: Any `keras.Model`. It is trained in place, and stays at hand as `base_model`.
        feature_layer: Name of the layer whose output is matched, usually the last before the classifier;
            `"outer/inner"` reaches into a nested model. Or its index, as in `get_layer(index=...)`: -2 is the last but
            one; or the layer itself. Several in a list, or in a dict with weights, `{"block": 0.5, "features": 1.0}`:
            Match is their weighted mean, and so is what is logged. Outputs of rank above 2 are flattened.
        matching: `"class_conditional"` (ITDM-c, Eq. 5), `"joint"` (ITDM-j, Eq. 3; needs no labels), or a
            `MatchingLoss`.
        match_weight: λ of Eq. 4 and 6, at least 0. The paper tries 0.2 to 1.
        partner: `"stream"`, to match with a second mini-batch as in the paper, or `"split"`, to match the two halves of
            one mini-batch: each class is dealt out evenly, `fit` takes plain data, and there is no second pass.
        label_fn: Which labels to match on, where the model has several outputs: the name or index of the output, or a
            function from `y` to the labels. Defaults to `y` itself.
        synchronized: Under `tf.distribute` or `keras.distribution`, whether to match over the global mini-batch, of all
            replicas. If not, each replica matches within its own share, and the mean is taken.
        max_share: κ, a positive number that bounds the gradient of Match at the features by κ times what the loss's own
            has been there (see How it works), so that matching cannot take over: where λ is more, Match at a layer gets
            a weight `w < λ`, which is what is logged as `match_weight`. `None`: λ as it stands in Eq. 4 and 6.
        paired: Whether a stream of your own, that `fit` is given, is of pairs `((x1, y1), (x2, y2))`, `True`, or of
            inputs and targets, `False`. Defaults to what the structure tells.
        name: Name of this model.

    Raises:
        TypeError: if `model` is not a `keras.Model`.
        ValueError: if there is no such feature layer, or it is named twice, or an argument is not one of the above.

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
        model: keras.Model,
        feature_layer: LayersToMatch,
        matching: Literal["class_conditional", "joint"] | MatchingLoss = "class_conditional",
        match_weight: float = 0.8,
        partner: Literal["stream", "split"] = "stream",
        label_fn: str | int | LabelFn | None = None,
        synchronized: bool = True,
        max_share: float | None = 1.0,
        paired: bool | None = None,
        name: str | None = None,
    ):
        check_can_be_wrapped(model)
        loss_of(matching)
        if partner not in PARTNERS:
            raise ValueError(f"`partner` should be one of {list(PARTNERS)}. Received: {partner!r}")
        check_label_fn(label_fn)
        check_flags(synchronized=synchronized)
        if paired is not None:
            check_flags(paired=paired)
        super().__init__(name=name, dtype=model.dtype_policy, autocast=False)  # `model` casts, or does not
        self.base_model = model
        self.feature_layer = feature_layer
        self.matching = matching
        self.partner = partner
        self.label_fn = label_fn
        self.synchronized = synchronized
        self.paired = paired
        self.max_share = check_max_share(max_share)
        self._match = Match(self)
        self._match_weight = MatchWeight(self, match_weight)
        layers = range(len(paths_of(self.feature_layer)))
        self._bounds = [GradientBound(self, self.max_share, layer) for layer in layers if self.max_share is not None]
        self._collapse_watch = CollapseWatch(self, len(layers)) if self.max_share is None else None
        self._match_loss_tracker = MatchLoss(name="match_loss")
        self._match_weight_tracker = keras.metrics.Mean(name="match_weight")
        self._training_state = TrainingState(self)
        self._num_fits = 0
        if model.built:
            self.built = True
            if getattr(model, "outputs", None):
                self._match.set_num_classes(model.output_shape)

    @property
    def match_weight(self) -> float:
        """λ of Eq. 4 and 6, a float. Set it at any time, between steps as well: nothing is traced again.

        Only 0 has a step of its own, that of the plain model, which is compiled when λ is first 0.
        """
        return self._match_weight.get()

    @match_weight.setter
    def match_weight(self, value: float):
        self._match_weight.set(value)

    # Algorithm 1

    def call(self, inputs, training=None):
        step = current_step(self)
        if step is None:
            return run_model(self.base_model, inputs, training)
        taps = step.taps if self._bounds else None
        with read_features(self.base_model, paths_of(self.feature_layer), taps) as step.readings:
            return run_model(self.base_model, inputs, training)

    def train_step(self, *args):
        *state, data = args  # JAX hands the state along
        batch, partner = self._split(data)
        if self._match_weight.is_zero:
            return _replicas.logs(super().train_step(*state, batch))
        with in_progress(Step(self, partner)) as step:
            logs = super().train_step(*state, batch)
            for bound in () if state else self._bounds:
                bound.variable.assign(bound.updated(bound.known(), step))
            return _replicas.logs(logs)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        loss = self.compute_base_loss(x, y, y_pred, sample_weight, training)
        step = current_step(self)
        if step is None:
            return loss
        features = [reading.features() for reading in step.readings]
        self._match.set_num_classes(tree.map_structure(lambda prediction: tuple(prediction.shape), y_pred))
        if not training:  # the model is being built, and all is well
            return loss
        step.num_samples = ops.shape(tree.flatten(x)[0])[0]
        matched = (features, y)
        if step.partner is not None:
            partner_x, partner_y, _ = keras.utils.unpack_x_y_sample_weight(step.partner)
            paths = paths_of(self.feature_layer)
            partner_features = features_without_trace(self.base_model, paths, partner_x, training=True)
            matched = (features, y, partner_features, partner_y)
        match_weight = ops.convert_to_tensor(self._match_weight.variable.value)
        if not self._bounds:
            self._collapse_watch.update(features, loss)
            match_loss = self._match(*matched)
            weighted = match_weight * match_loss
        else:
            weigh = [functools.partial(bound.weight, match_weight, step=step) for bound in self._bounds]
            weighted, match_loss, match_weight = self._match.weighted(weigh, *matched)
            loss = step.taps("loss", loss)
        self._match_loss_tracker.update_state(match_loss, sample_weight=step.num_samples)
        self._match_weight_tracker.update_state(match_weight, sample_weight=step.num_samples)
        return loss + ops.cast(_replicas.scale_loss(weighted), loss.dtype)

    def _split(self, data):
        """S1 and S2, or the batch itself and `None`, with the labels that matching needs."""
        batch, partner = self._halves(data)
        for half in (batch,) if partner is None else (batch, partner):
            self._match.check_labels(half)
        return batch, partner

    @property
    def _metrics_of_matching(self):
        return self._match_loss_tracker, self._match_weight_tracker

    # What Keras' trainers are told. There is a step with matching and, for λ = 0, Keras' own without: a condition
    # inside one step would change how the compiler rounds the rest of it.

    _step_variants = ("matching", "plain")

    def _step_variant(self):
        return "plain" if self._match_weight.is_zero else "matching"

    def make_train_function(self, force=False):
        self._match_weight.refresh()
        super().make_train_function(force)

    def _take_data(self, epoch_iterator):
        self._training_state.data = epoch_iterator
        super()._take_data(epoch_iterator)

    def _first_batch(self, batch):
        batch, _ = self._split(batch)
        self._match.check_values(batch)
        return batch

    def _while_building(self):
        return in_progress(Step(self))

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
            x: Arrays, a `tf.data.Dataset`, a `keras.utils.PyDataset`, a `torch.utils.data.DataLoader` or a generator,
                of inputs and targets as for the plain model; or any of these but arrays, of pairs
                `((x1, y1), (x2, y2))`. Unless they come in pairs, a second batch is drawn beside each: from arrays,
                whatever `shuffle` says, in a random order of its own; of all else, out of the batches around.

        Returns:
            A `History`, with `match_loss` and `match_weight` beside what the plain model's holds.

        Raises:
            ValueError: if the data is empty, not batched, endless without `steps_per_epoch`, or lacks labels that the
                matching needs, or if the halves of a zipped stream differ in structure.
        """
        check_ends(x, steps_per_epoch)
        tree.map_structure(check_no_strings, y)
        self._match.look_at_arrays(x, y, batch_size or 32)
        data = {"x": x, "y": y, "sample_weight": sample_weight, "shuffle": shuffle, "class_weight": class_weight}
        is_matched = self.partner == "split" or not self._match_weight.stays_zero(callbacks)
        if self.partner == "stream":
            if validation_split and validation_data is None:
                (x, y, sample_weight), validation_data = _keras.array_slicing.train_validation_split(
                    (x, y, sample_weight), validation_split=validation_split
                )
            inputs = getattr(self.base_model, "inputs", None)
            pairs = pair_up(
                x,
                y,
                sample_weight,
                batch_size,
                steps_per_epoch,
                shuffle,
                class_weight,
                num_inputs=self._num_inputs,
                input_rank=len(inputs[0].shape) if inputs else None,
                num_fits=self._num_fits,
                paired=self.paired,
                is_matched=is_matched,
            )
            self._num_fits += 1
            data, validation_split = {"x": pairs}, 0.0
        own_callbacks = [] if self._collapse_watch is None else [CollapseWarning(self._collapse_watch)]
        with self._match_weight.held(not is_matched):
            history = super().fit(
                **data,
                batch_size=batch_size,
                epochs=epochs,
                verbose=verbose,
                callbacks=self._training_state.begin(less_is_better(callbacks), initial_epoch, own_callbacks),
                validation_split=validation_split,
                validation_data=validation_data,
                initial_epoch=initial_epoch,
                steps_per_epoch=steps_per_epoch,
                validation_steps=validation_steps,
                validation_batch_size=validation_batch_size,
                validation_freq=validation_freq,
            )
        if history.epoch and "loss" not in history.history:
            raise ValueError(_keras.NO_BATCH)
        return history

    # Serialization

    def get_config(self):
        serialize = keras.saving.serialize_keras_object
        return {
            "model": serialize(self.base_model),
            "feature_layer": self.feature_layer,
            "feature_layer_position": positions_of(self.base_model, self.feature_layer),
            "matching": self.matching if isinstance(self.matching, str) else serialize(self.matching),
            "match_weight": self.match_weight,
            "partner": self.partner,
            "label_fn": serialize(self.label_fn) if callable(self.label_fn) else self.label_fn,
            "synchronized": self.synchronized,
            "max_share": self.max_share,
            "paired": self.paired,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        for key in ("model", "matching", "label_fn"):
            if isinstance(config[key], dict):
                config[key] = keras.saving.deserialize_keras_object(config[key], custom_objects=custom_objects)
        position = config.pop("feature_layer_position", [])
        config["feature_layer"] = in_copy(config["model"], config["feature_layer"], position)
        return cls(**config)
