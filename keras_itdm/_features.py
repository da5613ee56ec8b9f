"""The features: finding the layer whose output they are, and reading them off a forward pass."""

import contextlib
import contextvars
import difflib
import functools
import inspect

import keras
from keras import tree

from keras_itdm._keras import sublayers

_reading = contextvars.ContextVar("keras_itdm_reading", default=(None, None))  # layer and Reading


def find_layer(model, path):
    """The layer of `model` at `path`: its name, or `"outer/inner"` for one inside a nested model.

    Args:
        model: A `keras.Model`.
        path: Layer names joined by `/`.

    Raises:
        ValueError: if there is no such layer (the message names the ones there are), or it has no output of its own.
    """
    check_path(path)
    layer = model
    for name in path.split("/"):
        named = [child for child in sublayers(layer) if child.name == name]
        if len(named) != 1:
            raise ValueError(_no_such_layer(model, path))
        layer = named[0]
    reason = _why_without_output(model, layer)
    if reason:
        raise ValueError(f"The feature layer '{path}' has no output of its own: {reason}. Name one of: {_names(model)}")
    return layer


def check_path(path):
    if not isinstance(path, str) or not path:
        raise ValueError(
            f"`feature_layer` should be the name of a layer. Received: {path!r} of type {type(path).__name__}"
        )


def _paths(layer, prefix=""):
    for child in sublayers(layer):
        yield prefix + child.name
        yield from _paths(child, f"{prefix}{child.name}/")


def _no_such_layer(model, path):
    paths = list(_paths(model))
    message = f"The model '{model.name}' has no layer '{path}' to take as `feature_layer`."
    likely = [p for p in paths if p.split("/")[-1] == path.split("/")[-1]] or difflib.get_close_matches(path, paths)
    if likely:
        message += f" Did you mean {' or '.join(repr(p) for p in likely)}?"
    return f"{message} It has: {_names(model)}"


def _names(model):
    names = [repr(path) for path in _paths(model)]
    if not names:
        return "none yet, since the model is not built"
    return ", ".join(names)


def _why_without_output(model, layer):
    if isinstance(layer, keras.layers.InputLayer):
        return "it is an input"
    if not getattr(model, "outputs", None):
        return None  # a subclassed model: known once it is called
    try:
        output = layer.output
    except AttributeError:
        return "the model does not call it"
    if isinstance(output, (list, tuple, dict)):
        return f"it returns {len(output)} tensors"
    return None


class Reading:
    """What a layer returns while the context of `read_features` is open.

    Attributes:
        outputs: List of what it returned, one for each of its calls.
        pass_on: Function of a tensor: what the rest of the network is given in place of each.
    """

    def __init__(self, path, pass_on=None):
        self._path = path
        self.outputs = []
        self.pass_on = pass_on

    def features(self):
        """The one tensor that the layer returned.

        Raises:
            ValueError: if it was not called, was called several times, or does not return one tensor.
        """
        tensors = tree.flatten(self.outputs[0]) if self.outputs else []
        if len(self.outputs) == len(tensors) == 1:
            return tensors[0]
        happened = (
            "the model does not call it in training"
            if not self.outputs
            else f"the model calls it {len(self.outputs)} times"
            if len(self.outputs) > 1
            else f"it returns {len(tensors)} tensors"
        )
        raise ValueError(f"The feature layer '{self._path}' has no output of its own: {happened}.")


@contextlib.contextmanager
def read_features(model, path, pass_on=None):
    """Reads what the layer of `model` at `path` returns whenever it is called in this thread while the context is open.

    Args:
        pass_on: Function of a tensor, such as an identity with a gradient of its own: the rest of the network is given
            its result in place of the features. Default: it is given the features.

    Yields:
        A `Reading`.
    """
    layer = find_layer(model, path)
    if not hasattr(layer.call, "is_read"):
        # Past `__setattr__`, which tracks: the layer saves, clones and loads as before.
        object.__setattr__(layer, "call", _readable(layer))
    reading = Reading(path, pass_on)
    token = _reading.set((layer, reading))
    try:
        yield reading
    finally:
        _reading.reset(token)


def _readable(layer):
    call = layer.call

    @functools.wraps(call)
    def call_and_tell(*args, **kwargs):
        output = call(*args, **kwargs)
        read_layer, reading = _reading.get()
        if read_layer is layer:
            reading.outputs.append(output)
            if reading.pass_on is not None and len(reading.outputs) == 1:
                output = tree.map_structure(reading.pass_on, output)
        return output

    call_and_tell.is_read = True
    return call_and_tell


def run_model(model, inputs, training):
    """The forward pass of a model as Keras' trainers would run it: `training` is for those whose `call` takes it.

    Elsewhere it would reach the layers inside all the same, if not told apart from what an outer call was given.
    """
    takes_training = "training" in inspect.signature(model.call).parameters
    return model(inputs, training=training if takes_training else None)


def features_without_trace(model, path, inputs, training):
    """The features that a forward pass of its own gives, which leaves no trace: whatever it does to the state of the
    model, such as moving averages, random seeds and losses that layers add, is dropped. Gradients flow."""
    state = [(variable, variable.value) for variable in model.variables]  # on JAX one left out would have no gradient
    with keras.StatelessScope(state), read_features(model, path) as reading:
        run_model(model, inputs, training)
    return reading.features()
