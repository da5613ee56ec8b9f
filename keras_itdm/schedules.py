"""Schedules of λ that Keras does not have. All of its own serve as well: see `callbacks.MatchWeightScheduler`."""

import math
from typing import Any

import keras
from keras import ops

from keras_itdm._checks import is_number, is_positive_number
from keras_itdm._typing import Array


@keras.saving.register_keras_serializable(package="keras_itdm")
class DANNRamp(keras.optimizers.schedules.LearningRateSchedule):
    """The sigmoid ramp by which domain-adversarial networks raise their λ from 0.

    λ(p) = final_value · (2 / (1 + exp(-steepness · p)) - 1), where p rises from 0 to 1 over training, and stays at 1
    (Ganin and Lempitsky, "Unsupervised Domain Adaptation by Backpropagation", 2015, section 4.2). With a steepness of
    10 half of the final value is reached after 11 % of training, and 99.99 % of it in the end.

    Args:
        final_value: What it rises to, at least 0. Theirs is 1.
        ramp_steps: Number of steps, or of epochs where it is read by epoch, over which p rises. At least 1.
        steepness: γ of the paper, positive.

    Raises:
        ValueError: if an argument is none of the above.

    Example:

    >>> ramp = DANNRamp(0.8, ramp_steps=1000)
    >>> [round(float(ramp(step)), 3) for step in (0, 110, 500, 1000, 2000)]
    [0.0, 0.4, 0.789, 0.8, 0.8]
    """

    def __init__(self, final_value: float, ramp_steps: float, steepness: float = 10.0, name: str = "DANNRamp"):
        super().__init__()
        if not is_number(final_value) or not 0 <= final_value < math.inf:
            raise ValueError(f"`final_value` should be a finite number, at least 0. Received: {final_value!r}")
        if not is_number(ramp_steps) or not 1 <= ramp_steps < math.inf:
            raise ValueError(f"`ramp_steps` should be a finite number, at least 1. Received: {ramp_steps!r}")
        if not is_positive_number(steepness):
            raise ValueError(f"`steepness` should be a finite, positive number. Received: {steepness!r}")
        self.final_value = final_value
        self.ramp_steps = ramp_steps
        self.steepness = steepness
        self.name = name

    def __call__(self, step: Array) -> Array:
        progress = ops.minimum(ops.cast(step, "float32") / self.ramp_steps, 1.0)
        return self.final_value * (2.0 / (1.0 + ops.exp(-self.steepness * progress)) - 1.0)

    def get_config(self) -> dict[str, Any]:
        return {
            "final_value": self.final_value,
            "ramp_steps": self.ramp_steps,
            "steepness": self.steepness,
            "name": self.name,
        }
