"""A Keras model around another, `base_model`, that passes for it: to callbacks, to whoever looks at its layers, and in
its loss. What cannot be passed on is refused by name when the model is wrapped.
"""

import inspect

import h5py

from keras_itdm._keras import lent_losses, own_metrics

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
        ValueError: if the class of the model overrides what a wrapper cannot carry along, or it has a preprocessor.
    """
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


class Wrapper:
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

    def build(self, input_shape=None):
        if not self.base_model.built:
            self.base_model.build(input_shape)
        self.built = True

    # Its files

    def save(self, filepath, *args, **kwargs):
        if str(filepath).endswith((".h5", ".hdf5")):
            raise ValueError(
                "The old HDF5 format holds no model around another. Save as '.keras', or the base model alone: "
                f"`base_model.save(...)`. Received: {filepath}"
            )
        super().save(filepath, *args, **kwargs)

    def load_weights(self, filepath, *args, **kwargs):
        """Loads a file of this model's weights, or one of the plain model's."""
        if str(filepath).endswith(".weights.h5"):
            with h5py.File(filepath, "r") as file:
                if "base_model" not in file:
                    return self.base_model.load_weights(filepath, *args, **kwargs)
        return super().load_weights(filepath, *args, **kwargs)

    def summary(self, *args, **kwargs):
        return self.base_model.summary(*args, **kwargs)

    def export(self, *args, **kwargs):
        return self.base_model.export(*args, **kwargs)
