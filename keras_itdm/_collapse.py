"""Noticing that matching has taken over: where λ is constant, as in the paper, features can shrink to one point.

The sign is not `match_loss`, which stays what it was where the bandwidth follows the features down (LSTM features,
shrunk to 2e-5 of what they were, have a `match_loss` of 0.28). It is that the features' spread has fallen to a tiny
share of what it was while the loss is about what it was: features that shrink in healthy training do so with the loss.
"""

import warnings

import keras
import numpy as np
from keras import ops

from keras_itdm import _replicas
from keras_itdm._feature_layers import paths_of

TINY_SHARE = 0.1  # of the first spread; it grows in healthy training
NO_BETTER = 0.75  # of the first loss
_RECENT = 0.9  # share that a mean over some ten steps keeps in each


class CollapseWatch:
    """Spread of the features of each layer and loss, at the first step and of late.

    Args:
        model: An `ITDMModel`, which gets a variable: the first spreads and loss, then the means of some ten steps.
        num_layers: Number of feature layers.
    """

    def __init__(self, model, num_layers):
        self.has_warned = False
        self._model = model
        self._variable = model.add_weight(
            shape=(2 * (num_layers + 1),),
            initializer="zeros",
            trainable=False,
            dtype="float32",
            name="collapse_watch",
            aggregation="only_first_replica",
        )

    def update(self, features, loss):
        """Notes a step.

        Args:
            features: List of H1 at each layer. The spread is the root of their mean squared distance from their mean.
            loss: The loss; of a replica, its part in the sum.
        """
        values = [_spread(h1) for h1 in features] + [_replicas.total(ops.cast(loss, "float32"))]
        step = ops.stop_gradient(ops.stack(values))
        known = ops.convert_to_tensor(self._variable.value)
        first, recent = known[: len(values)], known[len(values) :]
        is_first = ops.all(known == 0)
        first = ops.where(is_first, step, first)
        recent = ops.where(is_first, step, _RECENT * recent + (1 - _RECENT) * step)
        self._variable.assign(ops.concatenate([first, recent]))

    def warn(self):
        """Warns, once, if the features of a layer have collapsed."""
        (*first_spreads, first_loss), (*spreads, loss) = np.split(self._variable.numpy(), 2)
        paths = paths_of(self._model.feature_layer)
        layers = zip(paths, first_spreads, spreads, strict=True)
        shares = {path: spread / first for path, first, spread in layers if spread < TINY_SHARE * first}
        if self.has_warned or not shares or not loss > NO_BETTER * first_loss:
            return
        self.has_warned = True
        path = min(shares, key=shares.get)
        where = f" of '{path}'" if len(paths) > 1 else ""
        warnings.warn(
            f"The features{where} have collapsed: their spread is {shares[path]:.1e} of what it was at the first "
            f"step, and the loss, {loss:.3g}, is no better than {first_loss:.3g} at the start. Matching with a "
            "constant weight has taken over. Bound it: ITDMModel(..., max_share=1.0), the default, instead of "
            "max_share=None; or lower match_weight; or let it rise from 0 over the first tenth of training with "
            "MatchWeightScheduler.",
            stacklevel=2,
        )


def _spread(features):
    features = ops.cast(ops.reshape(features, (ops.shape(features)[0], -1)), "float32")
    mean = _replicas.total(ops.mean(features, axis=0)) / _replicas.num_replicas()
    squared = _replicas.total(ops.mean(ops.sum(ops.square(features - mean), axis=1))) / _replicas.num_replicas()
    return ops.sqrt(squared)


class CollapseWarning(keras.callbacks.Callback):
    """Has a `CollapseWatch` look at each epoch's end."""

    def __init__(self, watch):
        super().__init__()
        self.watch = watch

    def on_epoch_end(self, epoch, logs=None):
        if not self.watch.has_warned:
            _ = self.model  # on JAX `fit` holds the variables' values until it is asked
            self.watch.warn()
