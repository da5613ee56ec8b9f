import keras
import numpy as np
import pytest

from keras_itdm import _layouts
from keras_itdm._layouts import Plan
from keras_itdm.losses import ClassConditionalMMD, JointMMD
from tests import reference

BALANCED = [1 / 5] * 5
ONE_CLASS_HOLDS_MOST = [0.9, 0.04, 0.03, 0.02, 0.01]


def form_of(*sizes_and_form):
    return Plan(*sizes_and_form).form


def labels(shares, n, seed):
    rng = np.random.default_rng(seed)
    y = rng.choice(len(shares), size=n, p=shares)
    y[rng.random(n) < 0.05] = -1
    return y


def features(n, y, seed):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, 6)) + 0.5 * y[:, None] + 100).astype("float32")


def check(loss, n, m, shares, num_classes=5, **options):
    y1, y2 = labels(shares, n, 1), labels(shares, m, 2)
    h1, h2 = features(n, y1, 3), features(m, 1.2 * y2, 4)
    value, gradients = reference.value_and_gradients(loss, h1, y1, h2, y2)
    if isinstance(loss, JointMMD):
        y1, y2, num_classes = np.zeros_like(y1), np.zeros_like(y2), 1
    assert value == pytest.approx(reference.class_conditional(h1, y1, h2, y2, num_classes, **options), rel=1e-4)
    expected = reference.class_conditional_gradients(h1, y1, h2, y2, num_classes, **options)
    largest = max(np.abs(gradient).max() for gradient in expected)
    for gradient, reference_gradient in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(gradient, reference_gradient, atol=1e-4 * largest)


def test_the_form_follows_from_the_sizes():
    compiled = keras.backend.backend() != "torch"  # where blocks always pay
    assert form_of(16, 16, 10).name == ("pairs" if compiled else "blocks")  # too few for blocks to pay
    assert form_of(150, 150, 2).name == ("pairs" if compiled else "blocks")  # and too few classes
    assert form_of(150, 150, 10) == ("blocks", 10, (56,), 10, 56)
    assert form_of(1024, 1024, 10).block_sizes == (240, 272)
    assert form_of(256, 256, 1000) == ("blocks", 256, (8,), 256, 8)  # no more classes than samples
    assert form_of(2048, 2048, 1, "pairs") == ("pairs", 1, (4096,), 1, 4096)
    assert form_of(2048, 2048, 1).name == ("pairs" if compiled else "blocks")
    assert form_of(8192, 8192, 1) == ("tiles", 1, (16384,), 1, 64)
    form = form_of(8192, 8192, 10)
    assert form.name == "blocks" and form.blocks_at_once == 1 and form.rows_at_once == form.block_sizes[-1]
    assert form_of(20000, 20000, 3, "blocks").rows_at_once < 20000


def test_the_form_can_be_read_and_forced():
    assert ClassConditionalMMD(10).form_for(150, 150).name == "blocks"
    assert ClassConditionalMMD(10, form="tiles").form_for(150, 150) == ("tiles", 1, (300,), 1, 300)
    assert JointMMD(form="tiles").form_for(8, 8).name == "tiles"
    assert JointMMD(form="pairs").form_for(8, 8).name == "pairs"
    with pytest.raises(ValueError, match="depends on the number of classes"):
        ClassConditionalMMD().form_for(150, 150)
    with pytest.raises(ValueError, match=r"one of \['auto', 'pairs', 'tiles', 'blocks'\]. Received: 'block'"):
        JointMMD(form="block")


@pytest.mark.parametrize("form", ["blocks", "pairs"])
@pytest.mark.parametrize("shares", [BALANCED, ONE_CLASS_HOLDS_MOST], ids=["balanced", "overflowing"])
@pytest.mark.parametrize("options", [{}, {"squared": True, "unbiased": True}], ids=["biased", "unbiased"])
def test_every_form_equals_the_float64_reference(form, shares, options):
    check(ClassConditionalMMD(5, form=form, **options), 80, 70, shares, **options)


@pytest.mark.parametrize("blocks_at_once", [1, 3])
def test_blocks_in_chunks(monkeypatch, blocks_at_once):
    size = form_of(80, 70, 5, "blocks").block_sizes[-1]
    monkeypatch.setattr(_layouts, "_BLOCKS", blocks_at_once * size**2)
    assert form_of(80, 70, 5, "blocks").blocks_at_once == blocks_at_once
    check(ClassConditionalMMD(5, form="blocks"), 80, 70, BALANCED)


@pytest.mark.parametrize(
    "form, loss", [("tiles", JointMMD), ("tiles", ClassConditionalMMD), ("blocks", ClassConditionalMMD)]
)
@pytest.mark.parametrize("options", [{}, {"squared": True, "unbiased": True}], ids=["biased", "unbiased"])
def test_some_rows_at_a_time(monkeypatch, form, loss, options):
    """20 rows of the matrix, or of each block's, at a time: no divisor of their number."""
    monkeypatch.setattr(_layouts, "_WHOLE", 0)
    width = form_of(80, 70, 5, form).block_sizes[-1]
    monkeypatch.setattr(_layouts, "_TILE", 20 * width)
    assert width % 20 and form_of(80, 70, 5, form).rows_at_once == 20
    options = {**options, "form": form}
    loss = loss(**options) if loss is JointMMD else loss(5, **options)
    check(loss, 80, 70, BALANCED, **{key: value for key, value in options.items() if key != "form"})


def test_blocks_that_just_fit():
    """The smaller size, the larger one and the matrix give the same, whichever a batch fits into."""
    loss = ClassConditionalMMD(4, form="blocks")
    small, large = loss.form_for(240, 240).block_sizes
    for most in (small, small + 1, large, large + 1):
        y = np.random.default_rng(0).permutation(np.repeat(np.arange(4), [most, 280 - most, 100, 100]))
        h1, h2 = features(240, y[:240], 3), features(240, y[240:], 4)
        value = reference.value(loss, h1, y[:240], h2, y[240:])
        assert value == pytest.approx(reference.class_conditional(h1, y[:240], h2, y[240:], 4), rel=1e-4)


def test_more_classes_than_samples():
    rng = np.random.default_rng(0)
    y1, y2 = rng.integers(300, size=90), rng.integers(300, size=80)
    h1, h2 = features(90, y1 % 5, 3), features(80, y2 % 5, 4)
    loss = ClassConditionalMMD(300)
    assert loss.form_for(90, 80).name == "blocks"
    value, gradients = reference.value_and_gradients(loss, h1, y1, h2, y2)
    assert value == pytest.approx(reference.class_conditional(h1, y1, h2, y2, 300), rel=1e-4)
    expected = reference.class_conditional_gradients(h1, y1, h2, y2, 300)
    for gradient, reference_gradient in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(gradient, reference_gradient, atol=1e-4 * np.abs(reference_gradient).max())


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="shapes are always known on other backends")
@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("form", ["auto", "tiles"])
def test_a_graph_for_batches_of_any_size(monkeypatch, jit_compile, form):
    """The form is then chosen in the graph, by the same rule, unless it is given."""
    import tensorflow as tf

    monkeypatch.setattr(_layouts, "_TILE", 20_000)  # in all but the smallest batch not all rows at once
    loss = ClassConditionalMMD(5, form=form)
    specs = [tf.TensorSpec([None, 6]), tf.TensorSpec([None], "int64")] * 2

    @tf.function(input_signature=specs, jit_compile=jit_compile)
    def value_and_gradients(h1, y1, h2, y2):
        with tf.GradientTape() as tape:
            tape.watch((h1, h2))
            value = loss(h1, y1, h2, y2)
        return value, tape.gradient(value, (h1, h2))

    for n, m, shares in [(9, 14, BALANCED), (150, 160, BALANCED), (150, 160, ONE_CLASS_HOLDS_MOST)]:
        y1, y2 = labels(shares, n, 1), labels(shares, m, 2)
        h1, h2 = features(n, y1, 3), features(m, 1.2 * y2, 4)
        value, gradients = value_and_gradients(h1, y1, h2, y2)
        assert float(value) == pytest.approx(reference.class_conditional(h1, y1, h2, y2, 5), rel=1e-4)
        expected = reference.class_conditional_gradients(h1, y1, h2, y2, 5)
        for gradient, reference_gradient in zip(gradients, expected, strict=True):
            np.testing.assert_allclose(gradient, reference_gradient, atol=1e-4 * np.abs(reference_gradient).max())


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="JAX says what a compiled step is made of")
@pytest.mark.parametrize(
    "n, loss", [(150, ClassConditionalMMD(10)), (1024, ClassConditionalMMD(10)), (150, JointMMD())]
)
def test_nothing_compiled_waits_for_the_host(n, loss):
    """Loops have a fixed length, and no Python runs in between."""
    import jax

    h, y = np.zeros((n, 8), "float32"), np.arange(n) % 10
    program = str(jax.make_jaxpr(jax.value_and_grad(loss, argnums=(0, 2)))(h, y, h, y))
    assert " scan[" in program
    assert " while[" not in program and "callback" not in program
