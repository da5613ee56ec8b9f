"""λ that keeps matching at a stated share of the gradient."""

import contextlib
import math

import keras
import numpy as np
from keras import ops, tree

from keras_itdm.checks import check_integer, is_number, is_positive_number
from keras_itdm.data import split_pair
from keras_itdm.features import read_output, run_model, the_output
from keras_itdm.model import ITDMModel


class AdaptiveMatchWeight(keras.callbacks.Callback):
    """Sets λ so that matching keeps a stated share of the gradient at the feature layer.

    With L the loss without matching and H1 the features of S1, the share is

        λ ‖∂Match/∂H1‖ / (‖∂L/∂H1‖ + λ ‖∂Match/∂H1‖),

    in Euclidean norms over the whole batch, so the λ that gives a share s is

        λ = s / (1 - s) · ‖∂L/∂H1‖ / ‖∂Match/∂H1‖.

    At s = 1/2 this is the adaptive weight of VQGAN (Esser, Rombach and Ommer, "Taming Transformers for High-Resolution
    Image Synthesis", 2021, Eq. 7), taken at the features in place of the last layer. The norms are measured on batches
    that you give once, with the network in training mode: its own batch statistics and dropout. This leaves no trace in
    moving averages, random seeds, losses and metrics, so training differs by λ alone.

    λ then goes a part of the way, `smoothing · λ + (1 - smoothing) · measured`, beginning with the model's
    `match_weight`, and no further than `maximum`. It is saved with the model, and what is measured depends on the model
    alone, so a training that is resumed after a whole epoch goes on as it would have. Where a norm is not finite or
    ‖∂Match/∂H1‖ is 0, λ stays as it is; where ‖∂L/∂H1‖ is 0, what is measured is 0.

    Adds `match_share` to the logs of an epoch: the share measured last, with the λ that was then set.

    Args:
        data: Batches to measure on, as training sees them, and of its batch size, since Match depends on it: a tuple
            `((x1, y1), (x2, y2))`, or for `partner="split"` `(x, y)`; or several of them as a list or a
            `tf.data.Dataset`, whose norms are then averaged. Taken from the training data, they show what training
            shows; batches held out of it keep a larger ‖∂L/∂H1‖, and so a larger λ, when the network overfits.
        share: s, at least 0 and below 1.
        every: `"epoch"`, to measure as an epoch begins, or a number of steps of the optimizer. With
            `steps_per_execution` above 1, that should be a multiple of it.
        smoothing: At least 0, for none, and below 1.
        maximum: Largest λ. The paper tries up to 1.
        verbose: 1 to print λ as an epoch begins, 0 to be quiet.

    Raises:
        TypeError: if, as training begins, the model is not an `ITDMModel`.
        ValueError: if an argument is none of the above, or, as training begins, `data` does not hold what the model's
            `partner` needs.

    Example:

    >>> model = keras.Sequential([
    ...     keras.Input((8,)),
    ...     keras.layers.Dense(16, activation="relu", name="features"),
    ...     keras.layers.Dense(3, activation="softmax"),
    ... ])
    >>> itdm = ITDMModel(model, feature_layer="features")
    >>> itdm.compile("sgd", "sparse_categorical_crossentropy")
    >>> x, y = np.random.default_rng(0).normal(size=(64, 8)), np.arange(64) % 3
    >>> adaptive = AdaptiveMatchWeight(((x[:32], y[:32]), (x[32:], y[32:])), share=0.2)
    >>> history = itdm.fit(x, y, batch_size=32, verbose=0, callbacks=[adaptive])
    >>> sorted(history.history)
    ['loss', 'match_loss', 'match_share', 'match_weight']
    """

    def __init__(self, data, share=0.2, every="epoch", smoothing=0.5, maximum=1.0, verbose=0):
        super().__init__()
        self.data = [data] if isinstance(data, tuple) else list(data)
        if not self.data:
            raise ValueError("`data` should hold at least one batch. Received none")
        if not is_number(share) or not 0 <= share < 1:
            raise ValueError(f"`share` should be at least 0 and below 1. Received: {share!r}")
        if every != "epoch":
            check_integer("every", every, least=1)
        if not is_number(smoothing) or not 0 <= smoothing < 1:
            raise ValueError(f"`smoothing` should be at least 0 and below 1. Received: {smoothing!r}")
        if not is_positive_number(maximum):
            raise ValueError(f"`maximum` should be a finite, positive number. Received: {maximum!r}")
        self.data = tree.map_structure(np.asarray, self.data)
        self.share = share
        self.every = every
        self.smoothing = smoothing
        self.maximum = maximum
        self.verbose = verbose
        self._share_reached = math.nan
        self._steps_before_epoch = 0

    def on_train_begin(self, logs=None):
        model = self.model
        if not isinstance(model, ITDMModel):
            raise TypeError(f"AdaptiveMatchWeight sets λ of an ITDMModel. Received: {type(model).__name__}")
        self._batches = [split_pair(batch, model._num_inputs) for batch in self.data]
        if any((partner is None) == (model.partner == "stream") for _, partner in self._batches):
            expected = "pairs ((x1, y1), (x2, y2))" if model.partner == "stream" else "batches (x, y)"
            raise ValueError(
                f'With partner="{model.partner}", `data` should hold {expected}. Received: '
                f"{tree.map_structure(lambda array: array.shape, self.data[0])}"
            )
        self._measure = _gradient_norms(model)

    def on_epoch_begin(self, epoch, logs=None):
        self._steps_before_epoch = int(self.model.optimizer.iterations)
        if self.every == "epoch" or self._steps_before_epoch % self.every == 0:
            self._adapt()
        if self.verbose:
            print(f"\nEpoch {epoch + 1}: AdaptiveMatchWeight sets match_weight to {self.model.match_weight:.6g}.")

    def on_train_batch_begin(self, batch, logs=None):
        if self.every == "epoch" or batch == 0:
            return
        steps, between = divmod(batch, self._model.optimizer.gradient_accumulation_steps or 1)
        if between == 0 and (self._steps_before_epoch + steps) % self.every == 0:
            self._adapt()

    def on_epoch_end(self, epoch, logs=None):
        if logs is not None:
            logs["match_share"] = self._share_reached

    def _adapt(self):
        match_weight = self.model.match_weight  # on JAX this brings the variables up to date
        loss_norm, match_norm = np.mean([self._measure(*batch) for batch in self._batches], axis=0)
        if not (np.isfinite(loss_norm) and np.isfinite(match_norm) and match_norm > 0):
            return
        measured = min(self.share / (1 - self.share) * loss_norm / match_norm, self.maximum)
        match_weight = min(self.smoothing * match_weight + (1 - self.smoothing) * measured, self.maximum)
        self.model.match_weight = match_weight
        total = loss_norm + match_weight * match_norm
        self._share_reached = match_weight * match_norm / total if total > 0 else 0.0


def _gradient_norms(model):
    """A function of S1 and S2, or S1 and `None`, to `[‖∂L/∂H1‖, ‖∂Match/∂H1‖]`, of the model as it is when called."""

    def gradients(values, batch, partner):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
        state = list(zip(model.variables, values, strict=True))
        with keras.StatelessScope(state), read_output(model._layer) as outputs:
            run_model(model.base_model, x, training=True)

        def losses(shift):
            with keras.StatelessScope(state, collect_losses=True), read_output(model._layer, shift) as outputs:
                y_pred = run_model(model.base_model, x, training=True)
                loss = model.compute_loss(x, y, y_pred, sample_weight)
                features = the_output(outputs, model.feature_layer)
                return loss, model._match(features, model._labels(y), partner)

        shift = ops.zeros_like(the_output(outputs, model.feature_layer))  # of H1: the same gradients, on every backend
        return [ops.norm(ops.reshape(ops.cast(g, "float32"), (-1,))) for g in _gradients(losses, shift)]

    if keras.backend.backend() == "jax":
        import jax

        gradients = jax.jit(gradients)

    def norms(batch, partner):
        batch, partner = tree.map_structure(ops.convert_to_tensor, (batch, partner), none_is_leaf=False)
        with _random_state_kept():
            return [float(norm) for norm in gradients([v.value for v in model.variables], batch, partner)]

    return norms


def _gradients(losses, x):
    """Gradients in `x` of the two scalars that `losses(x)` gives."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        (first, second), pull_back = jax.vjp(losses, x)
        one, zero = ops.ones_like, ops.zeros_like
        return pull_back((one(first), zero(second)))[0], pull_back((zero(first), one(second)))[0]
    if backend == "torch":
        import torch

        with torch.enable_grad():
            x.requires_grad_()
            scalars = losses(x)
            return [torch.autograd.grad(s, x, retain_graph=True, materialize_grads=True)[0] for s in scalars]
    import tensorflow as tf

    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        scalars = losses(x)
    return [tape.gradient(s, x, unconnected_gradients="zero") for s in scalars]


@contextlib.contextmanager
def _random_state_kept():
    """PyTorch's dropout draws from a global generator; elsewhere random states are variables of the model."""
    if keras.backend.backend() != "torch":
        yield
        return
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(0)  # so that what is measured depends on the model alone
        yield
