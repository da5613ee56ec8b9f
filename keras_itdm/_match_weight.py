"""λ of Eq. 4 and 6: a variable of the model, saved with it, that can be set between two steps without a new trace."""

import keras
import numpy as np

from keras_itdm._checks import check_match_weight
from keras_itdm._keras import assign_between_steps, hand_back


class MatchWeight:
    """λ of a model.

    Args:
        model: A `keras.Model`, which gets the variable.
        value: λ to begin with, at least 0.

    Attributes:
        variable: The non-trainable float32 variable.
        is_zero: Whether the next step is one without matching. It is known without reading the variable, which on JAX
            takes longer than a small step.
    """

    def __init__(self, model, value):
        value = check_match_weight(value)
        self._model = model
        self.is_zero = value == 0
        self.variable = model.add_weight(
            shape=(),
            initializer=keras.initializers.Constant(value),
            trainable=False,
            dtype="float32",
            name="match_weight",
        )

    def get(self):
        """λ as a float: 0.8, not 0.800000011920929."""
        hand_back(self._model)
        return float(str(np.float32(self.variable.numpy())))

    def set(self, value):
        """Sets λ, in `fit` between two steps as well."""
        value = check_match_weight(value)
        self.is_zero = value == 0
        assign_between_steps(self._model, self.variable, np.float32(value))  # TensorFlow never forgets a Python number

    def refresh(self):
        """Looks at the variable, which others may have assigned to.

        Raises:
            ValueError: if it holds no finite number of at least 0.
        """
        self.is_zero = check_match_weight(self.get()) == 0
