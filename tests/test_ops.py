import keras
import numpy as np
import pytest

from keras_itdm import _ops
from keras_itdm.losses import ClassConditionalMMD
from tests import reference

on_tensorflow = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="is TensorFlow's alone")


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def features(rng):
    classes = np.arange(60) % 3
    h1, h2 = (rng.normal(size=(60, 24)).astype("float32") + classes[:, None] for _ in range(2))
    return h1, classes, h2, classes


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="JAX is told the precision of each product")
@pytest.mark.parametrize("form", ["blocks", "pairs", "tiles"])
def test_no_product_of_matrices_is_left_to_the_precision_of_a_gpu(rng, form):
    import jax

    function = jax.value_and_grad(ClassConditionalMMD(3, form=form), argnums=(0, 2))
    text = str(jax.make_jaxpr(function)(*features(rng)))
    assert text.count("dot_general[") == text.count("precision=(Precision.HIGHEST, Precision.HIGHEST)") > 0


@on_tensorflow
def test_both_parts_of_a_number_hold_in_tensor_float_32_and_give_it_back(rng):
    x = (rng.normal(size=1000) * 10.0 ** rng.uniform(-30, 30, size=1000)).astype("float32")
    rounded, rest = (part.numpy() for part in _ops._parts(keras.ops.convert_to_tensor(x)))
    np.testing.assert_array_equal(rounded + rest, x)
    assert not (rounded.view("int32") & 0x1FFF).any()
    assert (abs(rest) <= 2.0**-11 * abs(rounded)).all()


@on_tensorflow
def test_products_of_parts_are_as_good_as_those_of_float32(rng):
    x, y = rng.normal(size=(40, 200)).astype("float32"), rng.normal(size=(200, 30)).astype("float32")
    exact = x.astype("float64") @ y.astype("float64")

    def in_tensor_float_32(values):
        return _ops._parts(keras.ops.convert_to_tensor(values))[0].numpy().astype("float64")

    halves = [[in_tensor_float_32(part) for part in _ops._parts(keras.ops.convert_to_tensor(z))] for z in (x, y)]
    of_gpu = sum(a @ b for a in halves[0] for b in halves[1])
    assert abs(in_tensor_float_32(x) @ in_tensor_float_32(y) - exact).max() > 1e-3
    assert abs(of_gpu - exact).max() < 1e-4
    np.testing.assert_allclose(_ops._matmul_of_parts(*map(keras.ops.convert_to_tensor, (x, y))), exact, atol=1e-4)


@on_tensorflow
def test_the_loss_out_of_parts_is_the_loss(rng, monkeypatch):
    arguments = features(rng)
    monkeypatch.setattr(_ops, "_rounds_to_tf32", lambda: True)
    expected = reference.class_conditional(*arguments, num_classes=3)
    np.testing.assert_allclose(ClassConditionalMMD(3)(*arguments), expected, rtol=1e-5)
