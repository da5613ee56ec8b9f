"""The training step in progress: what `ITDMModel.train_step` knows and `call` and `compute_loss` need."""

import contextlib
import contextvars
import dataclasses

import keras
from keras import tree

from keras_itdm._features import Reading
from keras_itdm._gradients import Taps, attach

_current = contextvars.ContextVar("keras_itdm_step", default=None)  # replicas are traced in threads of their own


@dataclasses.dataclass
class Step:
    """A step with matching.

    Attributes:
        model: The `ITDMModel` that takes the step.
        partner: S2, or `None` to match the halves of S1.
        readings: Of the features of S1 at each feature layer, once the model has been called.
        taps: Note the norm of the loss's gradient at the features of each feature layer, by its index, and at the
            `"loss"` itself, by which one that is scaled is known.
        num_samples: Number of samples in S1, known once the loss is.
    """

    model: object
    partner: object = None
    readings: list[Reading] = dataclasses.field(default_factory=list)
    taps: Taps = dataclasses.field(default_factory=Taps)
    num_samples: object = None


def current_step(model):
    """The `Step` of a model in progress in this thread, or `None`: another's, such as a model around it, is not its."""
    step = _current.get()
    return step if step is not None and step.model is model else None


@contextlib.contextmanager
def in_progress(step):
    token = _current.set(step)
    try:
        yield step
    finally:
        _current.reset(token)


class StepsOnJAX:
    """Mixin before `keras_itdm._keras.TrainerHooks`: on JAX a step takes the gradient itself, to see what arrives at
    the features, and its logs are sent for together."""

    def make_train_function(self, force=False):
        before = self.train_function
        super().make_train_function(force)
        function = self.train_function
        if keras.backend.backend() != "jax" or function is before:
            return

        def train_function(*args):
            logs, state = function(*args)
            for value in tree.flatten(logs):  # callbacks read one by one, and wait for a GPU each time
                if value.is_fully_addressable:
                    value.copy_to_host_async()
            return logs, state

        self.train_function = train_function

    def compute_loss_and_updates(self, trainable_variables, non_trainable_variables, *args, **kwargs):
        """The step of Keras' trainer on JAX, up to the gradient; a `Step` in progress takes the gradient itself."""
        step = current_step(self)

        def compute(trainable_variables):
            return super(StepsOnJAX, self).compute_loss_and_updates(
                trainable_variables, non_trainable_variables, *args, **kwargs
            )

        if step is None or not self._bounds:
            return compute(trainable_variables)
        taps = [*range(len(self._bounds)), "loss"]
        loss, gradients, (unscaled_loss, y_pred, updated, metrics) = step.taps.differentiate(
            compute, trainable_variables, taps
        )
        ids, updated = [id(variable) for variable in self.non_trainable_variables], list(updated)
        for bound in self._bounds:
            index = ids.index(id(bound.variable))
            updated[index] = bound.updated(updated[index], step)
        return attach(loss, trainable_variables, gradients), (unscaled_loss, y_pred, updated, metrics)
