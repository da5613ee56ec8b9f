"""Which layers are matched, and for how much each counts: `feature_layer`, as users give it and as it is saved.

It is the path of a layer, a list of paths, or a dict from paths to weights. With p the weights, scaled to add up to 1,

    Match = Σ p_i · Match(H1_i, H2_i)

where H_i are the features at layer i. Equal weights are those of a list.
"""

from keras_itdm._checks import is_positive_number
from keras_itdm._features import check_path, find_layers, named_twice, path_in_copy, path_of, position_of


def paths_of(feature_layer):
    """The paths of all feature layers."""
    return [feature_layer] if isinstance(feature_layer, str) else list(feature_layer)


def mean_over_layers(feature_layer, values):
    """Σ p_i · values_i, of scalars. That of a single layer is its value, to the last bit."""
    if len(values) == 1:
        return values[0]
    weights = list(feature_layer.values()) if isinstance(feature_layer, dict) else [1.0] * len(values)
    largest = max(weights)  # the sum of large ones is infinite
    total = sum(weight / largest for weight in weights)
    return sum(weight / largest / total * value for weight, value in zip(weights, values, strict=True))


class FeatureLayers:
    """Mixin before `keras.Model`, for one with a `base_model`.

    Attributes:
        feature_layer: The path of the layer that is matched; of several, a list, or a dict with the weight of each. It
            is set as `ITDMModel` is given it, to as many layers as before.
    """

    def __setattr__(self, name, value):
        if name != "feature_layer":
            super().__setattr__(name, value)
            return
        feature_layer = _with_paths(self.base_model, value)
        num_layers = len(paths_of(vars(self).get(name, feature_layer)))
        if len(paths_of(feature_layer)) != num_layers:
            raise ValueError(
                f"`feature_layer` should name {num_layers} of the layers, as before: what is known of their gradients "
                f"is kept for each. To match more or fewer, wrap the `base_model` anew. Received: {value!r}"
            )
        object.__setattr__(self, name, feature_layer)  # untracked: a layer would become one of the wrapper's own


def _with_paths(model, feature_layer):
    """`feature_layer` as users give it, with paths in place of indices and layers."""
    if not isinstance(feature_layer, (list, tuple, dict)):
        path = path_of(model, feature_layer)
        _check(model, [path])
        return path
    if not feature_layer:
        raise ValueError(f"`feature_layer` should name at least one layer. Received: {feature_layer!r}")
    paths = [path_of(model, layer) for layer in feature_layer]
    _check(model, paths)
    if not isinstance(feature_layer, dict):
        return paths
    for path, weight in zip(paths, feature_layer.values(), strict=True):
        if not is_positive_number(weight):
            raise ValueError(
                f"`feature_layer`: the weight of '{path}' should be a positive, finite number. Received: {weight!r}. A "
                "layer that is not to be matched is left out."
            )
    return {path: float(weight) for path, weight in zip(paths, feature_layer.values(), strict=True)}


def _check(model, paths):
    for index, path in enumerate(paths):
        check_path(path)
        if path in paths[:index]:
            raise named_twice("one layer", path, path)
    if model.built:
        find_layers(model, paths)


def positions_of(model, feature_layer):
    """`position_of` a feature layer, or of each, by its path."""
    if isinstance(feature_layer, str):
        return position_of(model, feature_layer)
    return {path: position_of(model, path) for path in feature_layer}


def in_copy(model, feature_layer, positions):
    """`feature_layer` for a copy of a model, of which it had these `positions_of` in the original."""
    if not isinstance(feature_layer, (list, tuple, dict)):
        return path_in_copy(model, feature_layer, positions)
    position = positions.get if isinstance(positions, dict) else lambda path: None
    paths = [path_in_copy(model, path, position(path)) if isinstance(path, str) else path for path in feature_layer]
    return dict(zip(paths, feature_layer.values(), strict=True)) if isinstance(feature_layer, dict) else paths
