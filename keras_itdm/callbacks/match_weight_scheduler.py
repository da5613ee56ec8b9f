"""λ by a schedule."""

from collections.abc import Callable
from typing import Any, Literal

import keras
import numpy as np
from keras import ops

from keras_itdm._checks import is_function
from keras_itdm.model import ITDMModel


@keras.saving.register_keras_serializable(package="keras_itdm")
class MatchWeightScheduler(keras.callbacks.Callback):
    """Schedules λ, by epoch or by step.

    Args:
        schedule: By epoch, a function `(epoch, match_weight) -> float` of the epoch's index, from 0, and the current λ;
            it is called as an epoch begins. By step, any `keras.optimizers.schedules.LearningRateSchedule`, of the
            number of steps that the optimizer has taken; it is read before each call of the train function, so with
            `steps_per_execution=n` at every n-th step. On JAX it is compiled, as an optimizer's is.
        verbose: 1 to print λ as an epoch begins, 0 to be quiet.
        by: What a `LearningRateSchedule` is read by: `"step"`, or `"epoch"`, where it is called with the epoch's index,
            from 0, as an epoch begins. Functions are read by epoch in any case.

    Either way a training that is resumed goes on where it stopped: steps are counted by the optimizer, which is saved
    with the model, and epochs by `fit(initial_epoch=...)`.

    Raises:
        TypeError: if `schedule` is neither, or, as training begins, the model is not an `ITDMModel`.
        ValueError: if `by` is none of the above; in training, if the schedule gives no finite number of at least 0.

    Example:

    >>> warm_up = MatchWeightScheduler(lambda epoch, match_weight: min(0.8, 0.2 * epoch))
    >>> by_step = MatchWeightScheduler(keras.optimizers.schedules.CosineDecay(0.8, decay_steps=1000))
    >>> by_epoch = MatchWeightScheduler(keras.optimizers.schedules.CosineDecay(0.8, decay_steps=50), by="epoch")
    >>> MatchWeightScheduler(0.8)
    Traceback (most recent call last):
    ...
    TypeError: `schedule` should be a function or a LearningRateSchedule. Received: 0.8 of type float
    """

    def __init__(
        self,
        schedule: keras.optimizers.schedules.LearningRateSchedule | Callable[[int, float], float],
        verbose: int = 0,
        by: Literal["step", "epoch"] = "step",
    ):
        super().__init__()
        if not is_function(schedule):
            raise TypeError(
                "`schedule` should be a function or a LearningRateSchedule. "
                f"Received: {schedule!r} of type {type(schedule).__name__}"
            )
        if by not in ("step", "epoch"):
            raise ValueError(f'`by` should be "step" or "epoch". Received: {by!r}')
        self.schedule = schedule
        self.verbose = verbose
        self.by = by
        self._from_keras = isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule)
        self._by_step = self._from_keras and by == "step"
        self._steps_before_epoch = 0

    def on_train_begin(self, logs=None):
        self._itdm = self.model  # asked for between steps, `self.model` would have all variables handed back on JAX
        if not isinstance(self._itdm, ITDMModel):
            raise TypeError(f"MatchWeightScheduler sets λ of an ITDMModel. Received: {type(self._itdm).__name__}")
        self._read = self.schedule
        if self._by_step and keras.backend.backend() == "jax":
            import jax

            self._read = jax.jit(self.schedule)  # its operations one by one would take longer than a small step

    def on_epoch_begin(self, epoch, logs=None):
        if self._by_step:
            self._steps_before_epoch = int(self.model.optimizer.iterations)
            self._set(self._read(np.int32(self._steps_before_epoch)))
        elif self._from_keras:
            self._set(self.schedule(epoch))
        else:
            self._set(self.schedule(epoch, self.model.match_weight))
        if self.verbose:
            print(f"\nEpoch {epoch + 1}: MatchWeightScheduler sets match_weight to {self.model.match_weight:.6g}.")

    def on_train_batch_begin(self, batch, logs=None):
        if self._by_step and batch > 0:
            accumulated = self._itdm.optimizer.gradient_accumulation_steps or 1
            # Not a Python number: TensorFlow never forgets one that it has met.
            self._set(self._read(np.int32(self._steps_before_epoch + batch // accumulated)))

    def _set(self, value):
        number = ops.convert_to_numpy(value)
        if number.size != 1:
            raise ValueError(f"The schedule should give one number. Received: {value!r}")
        self._itdm.match_weight = number.item()

    def get_config(self) -> dict[str, Any]:
        schedule = keras.saving.serialize_keras_object(self.schedule)
        return {"schedule": schedule, "verbose": self.verbose, "by": self.by}

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "schedule": keras.saving.deserialize_keras_object(config["schedule"])})
