"""A Keras model around another, `base_model`, that passes for it: to callbacks, to whoever looks at its layers, and in
its loss. What cannot be passed on is refused by name when the model is wrapped.
"""

import inspect

import keras

from keras_itdm._keras import lent_losses, own_metrics
from keras_itdm._weight_files import WeightFiles

# What `fit` of a wrapper would pass over without a word: each is the whole of a step, or of a method around it.
_NOT_CARRIED = {
    "train_step": "write its loss as `compute_loss`, which is carried along",
    "test_step": "write its loss as `compute_loss`, which is carried along",
    "predict_step": "write it as `call`",
    "compute_metrics": "track metrics as attributes, which are carried along",
    "fit": "call what it does before `fit`",
    "evaluate": "call what it does before `evaluate`",
    "predict": "call what it does before `predict`",
    "compile": "compile the wrapper, with what it would set",
}


def check_can_be_wrapped(model):
    """
    Raises:
        TypeError: if `model` is not a `keras.Model`, or is a wrapper already.
        ValueError: if the class of the model overrides what a wrapper cannot carry along, or it has a preprocessor.
    """
    if not isinstance(model, keras.Model):
        raise TypeError(f"`model` should be a keras.Model. Received: {model!r} of type {type(model).__name__}")
    if isinstance(model, Wrapper):
        raise TypeError(f"`model` is an {type(model).__name__} already. Wrap its `base_model` instead.")
    if getattr(model, "preprocessor", None) is not None:
        raise ValueError(
            f"{type(model).__name__} preprocesses its inputs itself (`preprocessor`), which a wrapper would leave out. "
            "Wrap a model of its layers on preprocessed data: for a task of KerasHub, set `task.preprocessor = None`, "
            "map the data with the preprocessor, and pass `keras.Model(task.inputs, task.outputs)`."
        )
    for name, advice in _NOT_CARRIED.items():
        if _overrides(model, name):
            raise ValueError(
                f"{type(model).__name__} overrides `{name}`, which a wrapper would pass over: {advice}, or add "
                "keras_itdm.losses.ClassConditionalMMD to its own loss."
            )


def _overrides(model, name):
    """Whether a class of the user's, not one of Keras', defines a method."""
    for cls in type(model).__mro__:
        if name in vars(cls):
            return cls.__module__.partition(".")[0] not in ("keras", "tf_keras", "torch")
    return False


class Wrapper(WeightFiles):
    """Mixin before `keras.Model`: what a model with a `base_model` passes on to it."""

    def rematerialized_call(self, call, *args, **kwargs):
        return call  # under `keras.RematScope` what is computed again is the base model, not this around it

    # Its loss

    def compute_base_loss(self, x, y, y_pred, sample_weight, training):
        """The base model's own loss: what plain training would have, with the losses that layers add."""
        arguments = {"x": x, "y": y, "y_pred": y_pred, "sample_weight": sample_weight, "training": training}
        if not _overrides(self.base_model, "compute_loss"):
            return super().compute_loss(**arguments)
        if "training" not in inspect.signature(self.base_model.compute_loss).parameters:
            del arguments["training"]
        with lent_losses(self.base_model, self):  # those it was compiled with, and those that its layers add
            return self.base_model.compute_loss(**arguments)

    @property
    def metrics(self):
        """Metrics of this model, and those that the base model tracks as attributes."""
        metrics = super().metrics
        return metrics + [m for m in own_metrics(self.base_model) if not any(m is other for other in metrics)]

    # Its looks

    @property
    def layers(self):
        return self.base_model.layers

    def get_layer(self, name=None, index=None):
        return self.base_model.get_layer(name=name, index=index)

    @property
    def inputs(self):
        return self.base_model.inputs

    @property
    def outputs(self):
        return self.base_model.outputs

    @property
    def input(self):
        return self.base_model.input if hasattr(self.base_model, "input") else super().input

    @property
    def output(self):
        return self.base_model.output if hasattr(self.base_model, "output") else super().output

    @property
    def input_shape(self):
        return self.base_model.input_shape

    @property
    def output_shape(self):
        return self.base_model.output_shape

    @property
    def input_names(self):
        return self.base_model.input_names

    @property
    def output_names(self):
        return getattr(self.base_model, "output_names", None)

    @property
    def operations(self):
        return self.base_model.operations

    def count_params(self):
        return self.base_model.count_params()

    def get_weights(self):
        return self.base_model.get_weights()

    def set_weights(self, weights):
        self.base_model.set_weights(weights)

    def build(self, input_shape=None):
        if not self.base_model.built:
            self.base_model.build(input_shape)
        self.built = True

    def summary(self, *args, **kwargs):
        return self.base_model.summary(*args, **kwargs)

    def export(self, *args, **kwargs):
        return self.base_model.export(*args, **kwargs)
