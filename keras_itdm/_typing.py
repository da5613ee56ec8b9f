"""What the annotations of the public functions say."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import keras

Array: TypeAlias = Any
"""A NumPy array, a tensor of the backend, or what Keras makes one of: there is no type that all of these share."""

FormName: TypeAlias = Literal["auto", "blocks", "pairs", "tiles"]
LabelFn: TypeAlias = Callable[[Any], Array]
FeatureLayer: TypeAlias = str | int | keras.layers.Layer
LayersToMatch: TypeAlias = FeatureLayer | Sequence[FeatureLayer] | Mapping[FeatureLayer, float]
