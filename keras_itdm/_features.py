"""The features: finding the layers whose outputs they are, and reading them off a forward pass."""

import contextlib
import contextvars
import difflib
import functools
import inspect
import numbers
import re

import keras
from keras import tree

from keras_itdm._generators import OwnRandomness
from keras_itdm._keras import sublayers

_readings = contextvars.ContextVar("keras_itdm_readings", default=())


def find_layers(model, paths):
    """The layers of `model` at paths: names, or `"outer/inner"` for one inside a nested model.

    Args:
        model: A `keras.Model`.
        paths: List of layer names joined by `/`.

    Raises:
        ValueError: if there is no such layer (the message names the ones there are), it has no output of its own, or
            two of them are the same or have the same output.
    """
    return [layers[-1] for layers in _layers_to_each(model, paths)]


def _layers_to_each(model, paths):
    chains = [_layers_to(model, path) for path in paths]
    found = []
    for path, (*_, layer) in zip(paths, chains, strict=True):
        for other_path, other in found:
            if layer is other:
                same = "one layer"
            elif _output_of(layer) is not None and _output_of(layer) is _output_of(other):
                same = "one output"
            else:
                continue
            raise named_twice(same, other_path, path)
        found.append((path, layer))
    return chains


def named_twice(what, path, other):
    return ValueError(
        f"`feature_layer` names {what} twice, as '{path}' and '{other}'. Name it once; a layer that is to count more "
        f"has a larger weight: {{'{path}': 2.0, ...}}."
    )


def _output_of(layer):
    """The symbolic output: of a nested model that of the layer inside which it comes from."""
    try:
        return layer.outputs[0] if getattr(layer, "outputs", None) else layer.output
    except (AttributeError, ValueError):  # it has none yet, or several
        return None


def _layers_to(model, path):
    """The model and the layers that a path names, the last of which is the feature layer."""
    check_path(path)
    layers = [model]
    for name in path.split("/"):
        named = [child for child in sublayers(layers[-1]) if child.name == name]
        if len(named) != 1:
            raise ValueError(_no_such_layer(model, path))
        layers += named
    reason = _why_without_output(*layers[-2:])
    if reason:
        raise ValueError(f"The feature layer '{path}' has no output of its own: {reason}. Name one of: {_names(model)}")
    return layers


def check_path(path):
    if not isinstance(path, str) or not path:
        raise ValueError(
            "`feature_layer` should be the name of a layer, its index, or the layer itself. "
            f"Received: {path!r} of type {type(path).__name__}"
        )


def path_of(model, layer):
    """The path of a feature layer, which a user may give as such, or by its number, as `get_layer(index=...)` takes it.

    Raises:
        ValueError: if it is not in the model, or there is no layer of that number.
    """
    if isinstance(layer, numbers.Integral) and not isinstance(layer, bool):
        try:
            return model.layers[layer].name
        except IndexError:
            raise ValueError(
                f"`feature_layer={layer}`: the model has {len(model.layers)} layers. It has: {_names(model)}"
            ) from None
    if isinstance(layer, keras.layers.Layer):
        found = [path for path, child in _layers(model) if child is layer]
        if not found:
            raise ValueError(f"`feature_layer`: the layer '{layer.name}' is not in the model. It has: {_names(model)}")
        return found[0]
    return layer


def position_of(model, path):
    """Where a feature layer is, by number: of its layer among those directly inside the model, and so on inwards. It is
    the same in another instance of the model, where automatic names, such as `"dense_7"`, are others."""
    *outer, _ = layers = _layers_to(model, path)
    return [sublayers(above).index(layer) for above, layer in zip(outer, layers[1:], strict=True)]


def path_in_copy(model, path, position):
    """The path, in a copy of a model, of the layer that had this path and `position_of` in the original."""
    if not isinstance(model, keras.Model) or not isinstance(path, str) or not isinstance(position, (list, tuple)):
        return path  # which `ITDMModel` refuses
    layer, names = model, []
    for index in position:
        layers = sublayers(layer)
        if index not in range(len(layers)):
            return path  # layers that are made when the model is built
        layer = layers[index]
        names.append(layer.name)
    automatic = [re.sub(r"_\d+$", "", name) for name in names] == [re.sub(r"_\d+$", "", p) for p in path.split("/")]
    return "/".join(names) if automatic else path


def _layers(layer, prefix=""):
    for child in sublayers(layer):
        yield prefix + child.name, child
        yield from _layers(child, f"{prefix}{child.name}/")


def _no_such_layer(model, path):
    paths = [path for path, _ in _layers(model)]
    message = f"The model '{model.name}' has no layer '{path}' to take as `feature_layer`."
    likely = [p for p in paths if p.split("/")[-1] == path.split("/")[-1]] or difflib.get_close_matches(path, paths)
    if likely:
        message += f" Did you mean {' or '.join(repr(p) for p in likely)}?"
    return f"{message} It has: {_names(model)}"


def _names(model):
    names = [repr(path) for path, _ in _layers(model)]
    if not names:
        return "none yet, since the model is not built"
    return ", ".join(names)


def _why_without_output(parent, layer):
    if isinstance(layer, keras.layers.InputLayer):
        return "it is an input"
    if not getattr(parent, "outputs", None):
        return None  # in a subclassed model, or a layer: known once it is called
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
        layer: The layer.
        outputs: List of what it returned, one for each of its calls.
        while_building: Whether the last of these calls was one by which the layer was built, which is not counted.
        pass_on: Function of a tensor: what the rest of the network is given in place of each.
    """

    def __init__(self, path, layer, pass_on=None):
        self._path = path
        self.layer = layer
        self.outputs = []
        self.while_building = False
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
def read_features(model, paths, pass_on=None):
    """Reads what the layers of `model` at `paths` return when they are called in this thread while the context is open.

    Args:
        pass_on: Function of a layer's index in `paths` and a tensor, such as an identity with a gradient of its own:
            the rest of the network is given its result in place of the features. Defaults to the features themselves.

    Yields:
        List of a `Reading` for each path.
    """
    readings = []
    for index, (path, (*outer, layer)) in enumerate(zip(paths, _layers_to_each(model, paths), strict=True)):
        for each in outer:
            _make_open(each)
        _make_readable(layer)
        readings.append(Reading(path, layer, None if pass_on is None else functools.partial(pass_on, index)))
    token = _readings.set(readings)
    try:
        yield readings
    finally:
        _readings.reset(token)


def _make_readable(layer):
    """Has a layer tell what each of its calls returns, whichever way Keras takes to it. Under `keras.RematScope` that
    is read outside of what is computed again: what is inside has no gradient.

    Attributes are set past `__setattr__`, which tracks: the layer saves, clones and loads as before.
    """
    if hasattr(layer.call, "unread"):
        return
    rematerialized_call = layer.rematerialized_call
    for name in ("call", "quantized_call"):
        object.__setattr__(layer, name, _told(layer, getattr(layer, name)))

    def rematerialized(call, *args, **kwargs):
        unread = getattr(call, "unread", call)

        @functools.wraps(unread)
        def anew(*args, **kwargs):  # JAX keeps what it traced, variables' values among it, by the function's identity
            return unread(*args, **kwargs)

        return _told(layer, rematerialized_call(anew, *args, **kwargs))

    object.__setattr__(layer, "rematerialized_call", rematerialized)


def _told(layer, call):
    @functools.wraps(call)
    def call_and_tell(*args, **kwargs):
        output = call(*args, **kwargs)
        for reading in _readings.get():
            if reading.layer is not layer:
                continue
            if reading.while_building:
                reading.outputs.clear()
            reading.while_building = not layer.built  # then Keras calls it once to have its sublayers built
            reading.outputs.append(output)
            if reading.pass_on is not None and len(reading.outputs) == 1:
                output = tree.map_structure(reading.pass_on, output)
        return output

    call_and_tell.unread = call
    return call_and_tell


def _make_open(layer):
    """Has a model around the feature layer not be computed again as a whole while that is read. Its layers are."""
    if hasattr(layer.rematerialized_call, "is_open"):
        return
    rematerialized_call = layer.rematerialized_call

    def rematerialized_unless_read(call, *args, **kwargs):
        return call if _readings.get() else rematerialized_call(call, *args, **kwargs)

    rematerialized_unless_read.is_open = True
    object.__setattr__(layer, "rematerialized_call", rematerialized_unless_read)


def run_model(model, inputs, training):
    """The forward pass of a model as Keras' trainers would run it: `training` is for those whose `call` takes it.

    Elsewhere it would reach the layers inside all the same, if not told apart from what an outer call was given.
    """
    takes_training = "training" in inspect.signature(model.call).parameters
    return model(inputs, training=training if takes_training else None)


def features_without_trace(model, paths, inputs, training):
    """The features of each layer that a forward pass of its own gives, which leaves no trace: whatever it does to the
    state of the model, such as moving averages, random seeds and losses that layers add, is dropped. Gradients flow."""
    state = [(variable, variable.value) for variable in model.variables]  # on JAX one left out would have no gradient
    with keras.StatelessScope(state), _torch_state_kept(model), read_features(model, paths) as readings:
        run_model(model, inputs, training)
    return [reading.features() for reading in readings]


@contextlib.contextmanager
def _torch_state_kept(model):
    """Gives the PyTorch modules inside a model, of which Keras knows the parameters alone, buffers of their own for a
    while, such as moving averages, and draws from PyTorch's global generator apart, such as dropout's masks."""
    modules = _torch_modules(model) if keras.backend.backend() == "torch" else []
    if not modules:
        yield
        return
    if not hasattr(model, _RANDOMNESS):
        object.__setattr__(model, _RANDOMNESS, OwnRandomness(seed=0, devices=True))
    kept = [(module, name, buffer) for module in modules for name, buffer in module.named_buffers(recurse=False)]
    for module, name, buffer in kept:
        setattr(module, name, buffer.clone())
    try:
        with getattr(model, _RANDOMNESS):
            yield
    finally:
        for module, name, buffer in kept:
            setattr(module, name, buffer)


_RANDOMNESS = "_keras_itdm_randomness"


def _torch_modules(model):
    """The modules in the layers of a model, at any depth, that are no Keras layers themselves."""
    layers, found = [model], {}
    while layers:
        layer = layers.pop()
        layers += sublayers(layer)
        for module in layer.modules():
            if not isinstance(module, keras.layers.Layer):
                found[id(module)] = module
    return [module for module in found.values() if type(module).__name__ not in ("ParameterList", "ParameterDict")]
