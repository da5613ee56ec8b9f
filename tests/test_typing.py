import inspect

import pytest

import keras_itdm
from keras_itdm import callbacks, kernels, layers, losses, schedules

PUBLIC = [
    *(getattr(keras_itdm, name) for name in keras_itdm.__all__),
    *(getattr(callbacks, name) for name in callbacks.__all__),
    losses.MatchingLoss.__call__,
    losses.JointMMD,
    losses.JointMMD.form_for,
    losses.ClassConditionalMMD,
    kernels.Kernel,
    kernels.Kernel.excess_and_slope,
    kernels.GaussianMixture,
    layers.SplitBatchMatching,
    schedules.DANNRamp,
]


@pytest.mark.parametrize("thing", [t for t in PUBLIC if callable(t)], ids=lambda thing: thing.__qualname__)
def test_what_is_public_says_its_types(thing):
    for parameter in inspect.signature(thing).parameters.values():
        assert parameter.name == "self" or parameter.annotation is not parameter.empty, parameter
