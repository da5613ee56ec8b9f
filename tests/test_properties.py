"""What holds for any features and labels: properties of the losses, tried on drawn ones.

Contents and scales are drawn freely, shapes and losses from a few, since JAX compiles each anew.
"""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies

from keras_itdm.losses import ClassConditionalMMD, JointMMD
from tests import reference

NUM_CLASSES = 3
SHAPES = [(9, 9, 4), (12, 7, 3)]
OPTIONS = [{}, {"squared": True, "unbiased": True}]
LOSSES = [make(**options) for options in OPTIONS for make in (JointMMD, lambda **o: ClassConditionalMMD(3, **o))]

anything = hypothesis.settings(max_examples=5, deadline=None, derandomize=True, database=None)


@strategies.composite
def batches(draw, shapes=SHAPES):
    """H1, y1, H2, y2: clusters of any scale, at any place, of any labels, -1 among them."""
    n, m, size = draw(strategies.sampled_from(shapes))
    rng = np.random.default_rng(draw(strategies.integers(0, 2**32 - 1)))
    scale = 10.0 ** draw(strategies.integers(-20, 20))
    spread = draw(strategies.sampled_from([0.0, 0.1, 1.0, 10.0]))
    shift = draw(strategies.sampled_from([0.0, 1.0, 100.0]))
    y1, y2 = rng.integers(-1, NUM_CLASSES, size=n), rng.integers(-1, NUM_CLASSES, size=m)
    centres = rng.normal(size=(NUM_CLASSES + 1, size)) * spread
    h1, h2 = (scale * (shift + centres[y] + rng.normal(size=(len(y), size))) for y in (y1, y2))
    return h1.astype("float32"), y1, h2.astype("float32"), y2


def value(loss, h1, y1, h2, y2):
    return reference.value(loss, h1, y1.astype("int32"), h2, y2.astype("int32"))


def close(expected, squared, unbiased):
    # The root of rounding error, where a value is 0; the square itself is good to 1e-6.
    return pytest.approx(expected, rel=1e-3, abs=1e-5 if squared else 2e-3)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: f"{type(loss).__name__}-{loss.squared}-{loss.unbiased}")
@anything
@hypothesis.given(batch=batches(), seed=strategies.integers(0, 2**32 - 1))
def test_a_loss(loss, batch, seed):
    h1, y1, h2, y2 = batch
    joint, rng = isinstance(loss, JointMMD), np.random.default_rng(seed)
    result, gradients = reference.value_and_gradients(loss, h1, y1.astype("int32"), h2, y2.astype("int32"))

    # The float64 reference agrees.
    options = {"squared": loss.squared, "unbiased": loss.unbiased}
    doubles = h1.astype("float64"), h2.astype("float64")
    if joint:
        expected = reference.joint(*doubles, **options)
    else:
        expected = reference.class_conditional(doubles[0], y1, doubles[1], y2, NUM_CLASSES, **options)
    same = close(expected, **options)
    assert result == same

    # It lies in [0, √2], its square in [0, 2]; the unbiased estimate may be less than 0.
    assert result <= (2.0 if loss.squared else np.sqrt(2.0)) + 1e-6
    assert result >= 0.0 or loss.unbiased

    assert all(np.isfinite(g).all() for g in gradients)

    if len(h1) == len(h2):  # one shape, and so one program
        assert value(loss, h2, y2, h1, y1) == same  # symmetric
        if not loss.unbiased:
            assert value(loss, h1, y1, h1, y1) == close(0.0, **options)
    p1, p2 = rng.permutation(len(h1)), rng.permutation(len(h2))
    assert value(loss, h1[p1], y1[p1], h2[p2], y2[p2]) == same  # whatever the order within a batch

    scale = max(np.abs(h1).max(), np.abs(h2).max())
    moved = [(h + scale).astype("float32") for h in doubles]
    rotation, _ = np.linalg.qr(rng.normal(size=(h1.shape[1], h1.shape[1])))
    turned = [(h @ rotation).astype("float32") for h in doubles]
    for a, b in (moved, turned):
        if scale < 1e3 * np.std(doubles[0], axis=0).min():  # float32 holds what they are after
            assert value(loss, a, y1, b, y2) == pytest.approx(expected, rel=1e-2, abs=1e-3 if loss.squared else 2e-2)

    names = np.append(rng.permutation(NUM_CLASSES), -1)  # -1 stays what it is
    assert value(loss, h1, names[y1], h2, names[y2]) == same
