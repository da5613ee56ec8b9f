"""Matching without a wrapper: a layer for any model."""

import contextlib
from typing import Any

import keras
from keras import ops

from keras_itdm import _replicas
from keras_itdm._checks import check_flags, check_match_weight
from keras_itdm._keras import losses_kept
from keras_itdm._typing import Array
from keras_itdm.kernels import Kernel
from keras_itdm.losses import JointMMD


@keras.saving.register_keras_serializable(package="keras_itdm")
class SplitBatchMatching(keras.layers.Layer):
    """Identity that, in training, adds λ · MMD between the first and the second half of its batch to the loss.

    Put it after the layer whose features are to be matched. It works in any model and needs no labels, hence matches
    jointly (Eq. 3); for matching class by class see `ITDMModel(partner="split")`. A batch of one sample adds 0.

    Args:
        match_weight: λ, at least 0.
        kernel: A `keras_itdm.kernels.Kernel`. Defaults to the paper's.
        squared: Whether to add λ · MMD² instead.
        synchronized: Under `tf.distribute` or `keras.distribution`, whether to match the halves of the global
            mini-batch, of all replicas. If not, each replica matches those of its own share, and the mean is taken.

    Input shape: `(batch, ...)`. Axes beyond the second are flattened for the comparison.

    Output shape: that of the input.

    Raises:
        ValueError: if λ is not a finite number of at least 0, `kernel` is not a kernel, or `squared` is neither
            True nor False.

    Example:

    >>> layer = SplitBatchMatching(match_weight=0.5)
    >>> features = np.concatenate([np.zeros((8, 4)), np.ones((8, 4))])
    >>> _ = layer(features, training=True)
    >>> float(layer.losses[0]) > 0.3
    True
    >>> _ = layer(features)
    >>> layer.losses
    []
    """

    def __init__(
        self,
        match_weight: float = 0.8,
        kernel: Kernel | None = None,
        squared: bool = False,
        synchronized: bool = True,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.match_weight = check_match_weight(match_weight)
        check_flags(synchronized=synchronized)
        self.synchronized = synchronized
        self.matching = JointMMD(kernel, squared)
        self.supports_masking = True

    def call(self, inputs: Array, training: bool | None = None) -> Array:
        if training and self.match_weight:
            with losses_kept(self) if _replicas.is_replica() else contextlib.nullcontext():
                match_loss = _replicas.evaluate(self._match_halves, (inputs,), self.synchronized)
            self.add_loss(self.match_weight * match_loss)
        return inputs

    def _match_halves(self, features):
        half = (ops.shape(features)[0] + 1) // 2
        return self.matching(features[:half], None, features[half:], None)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self) -> dict[str, Any]:
        kernel = keras.saving.serialize_keras_object(self.matching.kernel)
        return {
            **super().get_config(),
            "match_weight": self.match_weight,
            "kernel": kernel,
            "squared": self.matching.squared,
            "synchronized": self.synchronized,
        }
