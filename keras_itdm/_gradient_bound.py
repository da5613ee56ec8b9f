"""The bound that keeps matching from taking over: w, the weight that Match gets in a step, with w ≤ λ.

Match does not change with the scale of the features, since the bandwidth follows them; so its gradient grows as they
shrink, as one over their scale. Early in training, when the classes still have one mean, it pulls all features there in
finitely many steps, and the network learns nothing. Hence, in every step,

    w = min(λ, κ · G / (‖∂Match/∂H1‖ + ‖∂Match/∂H2‖))        G = √(v / m) · (1 - u / max u)²

where G stands for the norm of the loss's own gradient at the features, out of the steps before. With m samples and
n² = m · ‖∂L/∂H1‖², which does not depend on how many they are,

    v  is the mean of n² over the last quarter or so of all steps: v ← (1 - a) v + a n², a = 4 / (t + 3)
    u  is the mean of n over some ten steps
    1 - u / max u  is what the loss has lost of the hold it had on the features: 0 when nothing has been learnt yet.
       Squared, it keeps matching from slowing a network down that is still learning

Norms are Frobenius norms over the global mini-batch.

Of several layers, with shares p in Match that add up to 1, each has a w of its own, of the gradients at its features.
Since L + Σ p w Match = Σ p (L + w Match), a step's gradient is then the mean of those of matching one layer alone, none
of which is taken over. What comes back to a layer from those behind it, and stands for the loss's gradient there, holds
the pull of Match on them as well: no more than κ p times the loss's own, where theirs is measured.

The idea is that of the adaptive weight of VQGAN (Esser et al.
2021) and of LARS' trust ratio (You et al. 2017): one gradient is given a length by another.
"""

from keras import ops

from keras_itdm import _replicas
from keras_itdm._checks import is_number, is_positive_number

RECENT = 0.9  # share that the mean over some ten steps keeps in each
_TINY = 1.2e-38  # the smallest normal float32


def check_max_share(value):
    """κ as a float, or None.

    Raises:
        ValueError: if it is neither None nor a positive, finite number.
    """
    if value is None:
        return None
    if not is_positive_number(value):
        hint = " For no matching at all: match_weight=0." if is_number(value) and value == 0 else ""
        raise ValueError(
            "`max_share` should be a positive, finite number, or None for a constant weight, as in the paper. "
            f"Received: {value!r}.{hint}"
        )
    return float(value)


class GradientBound:
    """What is known of the loss's gradient at the features of a layer, and the w that follows.

    Args:
        model: A `keras.Model`, which gets a variable: the number of steps t, then v, u and max u.
        max_share: κ.
        layer: Index of the layer among the feature layers.
    """

    def __init__(self, model, max_share, layer=0):
        self.max_share = max_share
        self._layer = layer
        self.variable = model.add_weight(
            shape=(4,),
            initializer="zeros",
            trainable=False,
            dtype="float32",
            name=f"loss_gradient_{layer}" if layer else "loss_gradient",
            aggregation="only_first_replica",
        )

    def known(self):
        return ops.convert_to_tensor(self.variable.value)

    def weight(self, match_weight, norm, step):
        """w, at most λ.

        Args:
            match_weight: λ.
            norm: ‖∂Match/∂H1‖ + ‖∂Match/∂H2‖.
            step: The `Step` in progress. In the first of all nothing is known yet, and w is 0.
        """
        _, squared, recent, largest = ops.unstack(self.known())
        room = ops.maximum(1.0 - recent / ops.maximum(largest, _TINY), 0.0)
        bound = self.max_share * ops.square(room) * ops.sqrt(squared / self._samples(step))
        return ops.where(match_weight * norm <= bound, match_weight, bound / ops.maximum(norm, _TINY))

    def updated(self, known, step):
        """What is known after a step, as a tensor like the variable's value.

        Args:
            known: What was known before.
            step: The `Step`, of which the gradient has been taken. One that is not finite, as with a loss scale that is
                too large, is passed over.
        """
        norms = step.taps.squared_norms
        if self._layer not in norms:  # nothing before the features is trained
            return known
        squared_norm = _replicas.total(norms[self._layer] / norms["loss"]) * self._samples(step)
        count, squared, recent, largest = ops.unstack(known)
        norm, part = ops.sqrt(squared_norm), 4.0 / (count + 4.0)
        recent = ops.where(count == 0, norm, RECENT * recent + (1 - RECENT) * norm)
        squared = (1 - part) * squared + part * squared_norm
        new = ops.stack([count + 1, squared, recent, ops.maximum(largest, recent)])
        return ops.where(ops.isfinite(squared_norm), new, known)

    @staticmethod
    def _samples(step):
        return _replicas.total(ops.cast(step.num_samples, "float32"))
