"""Mixed precision: features in 16 bits, matching in float32, and the objective scaled once."""

import keras
import numpy as np
import pytest

from keras_itdm import ITDMModel
from keras_itdm.layers import SplitBatchMatching
from tests.integration.test_bounded_matching import KAPPA, ONE, TWO
from tests.integration.test_bounded_matching import train as train_bounded
from tests.networks import NUM_CLASSES, data

EPOCHS, BATCH_SIZE = 15, 20  # of 80 samples: 60 steps


def train(policy, partner, epochs=EPOCHS, match_weight=0.5, scale=None):
    """Trains under a dtype policy; `partner="layer"` is `SplitBatchMatching` without a wrapper.

    Returns:
        The history, and the trainable variables before and after, as arrays.
    """
    keras.utils.set_random_seed(1)
    network = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            keras.layers.Flatten(dtype=policy),
            keras.layers.Dense(8, activation="relu", dtype=policy, name="features"),
            *([SplitBatchMatching(match_weight, dtype=policy)] if partner == "layer" else []),
            keras.layers.Dense(NUM_CLASSES, dtype=policy),
            keras.layers.Activation("softmax", dtype="float32"),
        ]
    )
    model = (
        network
        if partner == "layer"
        else ITDMModel(network, "features", partner=partner, match_weight=match_weight, max_share=None)
    )
    optimizer = keras.optimizers.SGD(0.1)
    if policy == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, **({"initial_scale": scale} if scale else {}))
    model.compile(optimizer, "sparse_categorical_crossentropy")
    before = [keras.ops.convert_to_numpy(v) for v in network.trainable_variables]
    x, y = data(80)
    history = model.fit(x, y, batch_size=BATCH_SIZE, epochs=epochs, shuffle=False, verbose=0).history
    return history, before, [keras.ops.convert_to_numpy(v) for v in network.trainable_variables]


def test_sixty_steps_end_near_those_of_float32():
    reference, _, _ = train("float32", "stream")
    for policy in ("mixed_bfloat16", "mixed_float16"):
        history, _, after = train(policy, "stream")
        assert all(np.isfinite(v).all() and v.dtype == "float32" for v in after)
        for key in history:
            assert history[key][-1] == pytest.approx(reference[key][-1], rel=0.1), (policy, key)


@pytest.mark.parametrize("partner", ["stream", "split", "layer"])
def test_loss_scaling_scales_matching_with_the_rest(partner):
    """Steps do not depend on the scale, and are those of float32: were matching left unscaled, it would be lost."""
    steps = []
    for policy, scale in (("float32", None), ("mixed_float16", 8.0), ("mixed_float16", 1024.0)):
        _, before, after = train(policy, partner, epochs=1, match_weight=20.0, scale=scale)
        steps.append(np.concatenate([(a - b).ravel() for a, b in zip(after[:1], before[:1], strict=True)]))
    for step in steps[1:]:
        assert np.linalg.norm(step - steps[0]) < 0.05 * np.linalg.norm(steps[0])


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("partner", ["stream", "split"])
def test_terminate_on_nan_stops_a_training_whose_features_are_not_finite(partner, value):
    x, y = data(80)
    x[70] = value
    keras.utils.set_random_seed(1)
    network = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(8, name="features"),
            keras.layers.Dense(NUM_CLASSES, activation="softmax"),
        ]
    )
    model = ITDMModel(network, "features", partner=partner)
    model.compile("sgd", "sparse_categorical_crossentropy")
    steps = []
    spy = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: steps.append(batch))
    options = {"batch_size": 20, "epochs": 3, "shuffle": False, "verbose": 0}
    history = model.fit(x, y, callbacks=[spy, keras.callbacks.TerminateOnNaN()], **options)
    assert history.epoch == [0] and not np.isfinite(history.history["loss"][0])
    assert len(steps) <= 4
    assert model.fit(x, y, **options).epoch == [0, 1, 2]  # without it, as in plain Keras, training goes on


@pytest.mark.parametrize(("feature_layer", "partner"), [(ONE, "stream"), (ONE, "split"), (TWO, "stream")])
def test_bounded_weights_are_near_those_of_float32(feature_layer, partner):
    last = {}
    for policy in ("float32", "mixed_bfloat16", "mixed_float16"):
        keras.config.set_dtype_policy(policy)
        try:
            history, *_ = train_bounded(feature_layer, partner, max_share=KAPPA, match_weight=100.0)
        finally:
            keras.config.set_dtype_policy("float32")
        # Not the first one: a step whose scaled loss overflows is passed over.
        last[policy] = history["match_weight"][-1]
        assert last[policy] == pytest.approx(last["float32"], rel=0.25)
