"""A `.keras` file from a stranger runs nothing that it names, and gives no object of a strange class a place."""

import json
import sys
import zipfile

import keras
import pytest

from keras_itdm import ITDMModel
from keras_itdm.callbacks import MatchWeightScheduler
from keras_itdm.kernels import GaussianMixture
from keras_itdm.losses import JointMMD
from tests.networks import convolutional


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    path = tmp_path_factory.mktemp("honest") / "m.keras"
    ITDMModel(convolutional(), "features", JointMMD(GaussianMixture((1, 2)))).save(path)
    return path


@pytest.fixture
def trap(tmp_path, monkeypatch):
    """A module that leaves a mark where it is imported, and another where something of it is called."""
    (tmp_path / "itdm_trap.py").write_text(
        f"""import pathlib
here = pathlib.Path({str(tmp_path)!r})
(here / "imported").touch()
def call(*args, **kwargs): (here / "called").touch()
class Trap:
    __init__ = call
    from_config = classmethod(call)
"""
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield lambda: [name for name in ("imported", "called") if (tmp_path / name).exists()]
    sys.modules.pop("itdm_trap", None)


def tampered(honest, path, change):
    """A copy of the saved model with another configuration."""
    with zipfile.ZipFile(honest) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name == "config.json":
                saved = json.loads(content)
                change(saved["config"])
                content = json.dumps(saved)
            target.writestr(name, content)
    return path


FUNCTION = {"module": "itdm_trap", "class_name": "function", "config": "call", "registered_name": "call"}
CLASS = {"module": "itdm_trap", "class_name": "Trap", "config": {}, "registered_name": "Trap"}
SYSTEM = {"module": "os", "class_name": "function", "config": "system", "registered_name": "system"}
EVAL = {"module": "builtins", "class_name": "function", "config": "eval", "registered_name": "eval"}
UNSAFE = {
    "module": "keras.config",
    "class_name": "function",
    "config": "enable_unsafe_deserialization",
    "registered_name": "enable_unsafe_deserialization",
}
DENSE = {"module": "keras.layers", "class_name": "Dense", "config": {"units": 3}, "registered_name": None}
DENSE_CLASS = {"module": "keras.layers", "class_name": "function", "config": "Dense", "registered_name": "Dense"}
SGD = {"module": "keras.optimizers", "class_name": "SGD", "config": {}, "registered_name": None}


def code_of(function):
    """A Python function as Keras saves its code."""
    return keras.saving.serialize_keras_object(function)


def set_kernel(config, value):
    config["matching"]["config"]["kernel"] = value


def set_layer(config, value):
    config["model"]["config"]["layers"].insert(-1, value)


PLACES = {
    "model": lambda config, value: config.update(model=value),
    "layer": set_layer,
    "matching": lambda config, value: config.update(matching=value),
    "kernel": set_kernel,
    "label_fn": lambda config, value: config.update(label_fn=value),
}


@pytest.mark.parametrize(
    "value",
    [FUNCTION, CLASS, SYSTEM, EVAL, UNSAFE, DENSE, DENSE_CLASS, SGD],
    ids=lambda v: v["config"] if isinstance(v["config"], str) else v["class_name"],
)
@pytest.mark.parametrize("place", PLACES)
def test_what_a_file_names_is_not_run(honest, trap, tmp_path, place, value):
    if place == "layer" and value is DENSE:
        pytest.skip("a layer is no stranger among layers")
    path = tampered(honest, tmp_path / "m.keras", lambda config: PLACES[place](config, value))
    with pytest.raises((TypeError, ValueError)):
        keras.saving.load_model(path, safe_mode=True)
    assert trap() == []


def lambda_layer():
    return code_of(keras.layers.Lambda(lambda x: __import__("itdm_trap").call() or x))


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "make", [lambda_layer, lambda: code_of(lambda *a: __import__("itdm_trap").call())], ids=["Lambda", "lambda"]
)
def test_code_in_a_file_is_not_run(honest, trap, tmp_path, place, make):
    path = tampered(honest, tmp_path / "m.keras", lambda config: PLACES[place](config, make()))
    with pytest.raises((TypeError, ValueError), match="lambda"):
        keras.saving.load_model(path, safe_mode=True)
    assert trap() == []


@pytest.mark.parametrize("config", [{"feature_layer": None}, {"match_weight": "nan"}, {"partner": DENSE}])
def test_arguments_in_a_file_are_checked(honest, tmp_path, config):
    path = tampered(honest, tmp_path / "m.keras", lambda saved: saved.update(config))
    with pytest.raises(ValueError, match=f"`{next(iter(config))}` should be"):
        keras.saving.load_model(path)


@pytest.mark.parametrize(
    "value",
    [FUNCTION, CLASS, SYSTEM, EVAL, UNSAFE, DENSE, DENSE_CLASS, SGD],
    ids=lambda v: v["config"] if isinstance(v["config"], str) else v["class_name"],
)
def test_a_scheduler_calls_nothing_that_its_config_names(trap, value):
    config = keras.saving.serialize_keras_object(MatchWeightScheduler(keras.optimizers.schedules.CosineDecay(0.8, 9)))
    config["config"]["schedule"] = value
    with pytest.raises((TypeError, ValueError)):
        keras.saving.deserialize_keras_object(config)
    config["config"]["schedule"] = code_of(lambda epoch, match_weight: __import__("itdm_trap").call())
    with pytest.raises(ValueError, match="lambda"):
        keras.saving.deserialize_keras_object(config)
    assert trap() == []


def test_the_trap_snaps(honest, trap, tmp_path):
    """Without safe mode the same file runs its code: the tests above would see it."""
    path = tampered(honest, tmp_path / "m.keras", lambda config: set_layer(config, lambda_layer()))
    keras.saving.load_model(path, safe_mode=False)
    assert trap() == ["imported", "called"]
