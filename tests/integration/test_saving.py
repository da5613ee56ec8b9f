"""Saving, loading and exporting."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest

import keras_itdm
from keras_itdm import ITDMModel
from keras_itdm.kernels import GaussianMixture
from keras_itdm.layers import SplitBatchMatching
from keras_itdm.losses import ClassConditionalMMD
from tests.networks import Subclassed, compiled, convolutional, data


def trained(network=None, **options):
    model = compiled(ITDMModel(network or convolutional(), "features", match_weight=0.5, **options))
    x, y = data()
    model.fit(x, y, batch_size=20, verbose=0)
    return model


@keras.saving.register_keras_serializable(package="keras_itdm_tests")
def first(y):
    return y


@pytest.mark.parametrize(
    ("network", "options"),
    [
        (convolutional, {"matching": "joint", "partner": "split"}),
        (Subclassed, {"matching": ClassConditionalMMD(kernel=GaussianMixture((1, 3), bandwidth=2.0), squared=True)}),
        (convolutional, {"label_fn": first}),
    ],
    ids=["joint split", "subclassed, loss with a kernel", "label function"],
)
def test_a_saved_model_is_loaded_as_it_was_and_trains_on(tmp_path, network, options):
    model = trained(network(), **options)
    x, y = data(40, seed=8)
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras", safe_mode=True)
    assert isinstance(loaded, ITDMModel)
    configs = [m.get_config() for m in (loaded, model)]
    assert {**configs[0], "model": None} == {**configs[1], "model": None}
    assert loaded.match_weight == 0.5
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))
    assert loaded.evaluate(x, y, verbose=0) == pytest.approx(model.evaluate(x, y, verbose=0))
    for m in (model, loaded):
        m.reset_metrics()  # Keras before 3.13 does not by itself
    batch = (x, y) if model.partner == "split" else ((x[:20], y[:20]), (x[20:], y[20:]))
    logs = [m.train_on_batch(*batch, return_dict=True) for m in (model, loaded)]
    assert logs[0]["match_loss"] == pytest.approx(logs[1]["match_loss"], rel=1e-5)  # loss: Keras saves no dropout seed


def test_config_round_trip():
    model = ITDMModel(convolutional(), "features", "joint", match_weight=0.3, partner="split", name="named")
    again = ITDMModel.from_config(model.get_config())
    assert again.get_config() == model.get_config()


def test_weights_hold_match_weight(tmp_path):
    model = trained()
    model.match_weight = 0.25
    model.save_weights(tmp_path / "m.weights.h5")
    other = ITDMModel(convolutional(seed=9), "features")
    other.load_weights(tmp_path / "m.weights.h5")
    assert other.match_weight == 0.25
    x, _ = data()
    np.testing.assert_array_equal(other.predict(x, verbose=0), model.predict(x, verbose=0))


def test_loading_weights_with_match_weight_0_ends_matching(tmp_path):
    model = trained()
    model.match_weight = 0.0
    model.save_weights(tmp_path / "m.weights.h5")
    model.match_weight = 0.5
    model.load_weights(tmp_path / "m.weights.h5")
    x, y = data()
    assert model.fit(x, y, verbose=0).history["match_weight"] == [0.0]


def test_the_plain_model_loads_where_this_package_is_not_installed(tmp_path):
    model = trained()
    model.base_model.save(tmp_path / "plain.keras")
    x, _ = data()
    np.save(tmp_path / "x.npy", x)
    code = f"""
import sys
sys.modules["keras_itdm"] = None  # importing it fails
import keras, numpy as np
model = keras.saving.load_model({str(tmp_path / "plain.keras")!r})
np.save({str(tmp_path / "y.npy")!r}, model.predict(np.load({str(tmp_path / "x.npy")!r}), verbose=0))
"""
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ, cwd=tmp_path)
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), model.predict(x, verbose=0), rtol=1e-5, atol=1e-6)


def test_export(tmp_path):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("a SavedModel is TensorFlow's")
    import tensorflow as tf

    model = trained()
    model.export(tmp_path / "served", verbose=False)
    x, _ = data(5)
    served = tf.saved_model.load(str(tmp_path / "served"))
    np.testing.assert_allclose(served.serve(x), model.predict(x, verbose=0), rtol=1e-5, atol=1e-6)


def test_summary_is_the_plain_models():
    lines = {"itdm": [], "plain": []}
    network = convolutional()
    model = ITDMModel(network, "features")
    model.summary(print_fn=lambda line, *_, **__: lines["itdm"].append(line))
    network.summary(print_fn=lambda line, *_, **__: lines["plain"].append(line))
    assert lines["itdm"] == lines["plain"]


def test_the_layer_is_saved_with_a_plain_model(tmp_path):
    layer = SplitBatchMatching(0.3, kernel=GaussianMixture((1, 2), bandwidth=3.0), squared=True)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(5), layer, keras.layers.Dense(2)])
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras", safe_mode=True)
    assert loaded.layers[1].get_config() == layer.get_config()


@pytest.mark.skipif(
    keras.backend.backend() == "tensorflow", reason="its import takes seconds, wherever it is not at hand"
)
def test_nobody_waits_for_tensorflow():
    """Training imports the backend in use alone, even where the others are installed."""
    code = """
import sys, keras, numpy as np
from keras_itdm import ITDMModel
layers = [keras.Input((4,)), keras.layers.Dense(8, name="features"), keras.layers.Dense(3, activation="softmax")]
itdm = ITDMModel(keras.Sequential(layers), "features")
itdm.compile("sgd", "sparse_categorical_crossentropy")
itdm.fit(np.ones((20, 4)), np.arange(20) % 3, batch_size=10, verbose=0)
assert "tensorflow" not in sys.modules
"""
    environment = {**os.environ, "PYTHONPATH": os.path.dirname(keras_itdm.__path__[0])}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_importing_needs_the_backend_in_use_alone(backend):
    others = {"tensorflow": ["jax", "torch"], "jax": ["tensorflow", "torch"], "torch": ["tensorflow", "jax"]}[backend]
    if backend != keras.backend.backend():
        pytest.skip("tested where that backend is in use")
    code = f"""
import importlib.abc, importlib.machinery, sys
class Missing(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] in {others}:
            return importlib.machinery.ModuleSpec(name, self)
    def create_module(self, spec):
        raise ImportError(spec.name)
sys.meta_path.insert(0, Missing())
import keras_itdm
"""
    environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": os.path.dirname(keras_itdm.__path__[0])}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
