"""λ of Eq. 4 and 6: a variable of the model, saved with it, that can be set between two steps without a new trace."""

import contextlib

import keras
import numpy as np
from keras import tree

from keras_itdm._checks import check_match_weight
from keras_itdm._keras import assign_between_steps, hand_back

_MAY_SET = ("LambdaCallback", "LearningRateScheduler", "BackupAndRestore", "MatchWeightScheduler")


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
        self._is_held = False
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
        if self._is_held and value:
            raise ValueError(
                "`match_weight` was 0 when `fit` began, and no callback was there that could set it, so that no second "
                f"mini-batch is drawn. Set it by a callback, such as MatchWeightScheduler. Received: {value}"
            )
        self.is_zero = value == 0
        assign_between_steps(self._model, self.variable, np.float32(value))  # TensorFlow never forgets a Python number

    def stays_zero(self, callbacks):
        """Whether λ is 0, and stays so in a `fit` with these callbacks: none could set it. Of those that are neither
        Keras' nor this package's it is not known."""
        self.refresh()
        callbacks = tree.flatten(getattr(callbacks, "callbacks", callbacks) or [])
        return self.is_zero and all(
            type(callback).__module__.partition(".")[0] in ("keras", "keras_itdm")
            and type(callback).__name__ not in _MAY_SET
            for callback in callbacks
        )

    @contextlib.contextmanager
    def held(self, at_zero):
        """Refuses, if it is to be held `at_zero`, to set it to anything else while the context is open."""
        self._is_held = at_zero
        try:
            yield
        finally:
            self._is_held = False

    def refresh(self):
        """Looks at the variable, which others may have assigned to.

        Raises:
            ValueError: if it holds no finite number of at least 0.
        """
        self.is_zero = check_match_weight(self.get()) == 0
