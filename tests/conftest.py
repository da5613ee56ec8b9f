import gc
import importlib.metadata
import importlib.util
import os
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Tests compile much and run little: programs that are compiled in a quarter of the time, and run slowly.
if "XLA_FLAGS" not in os.environ:
    _flags = ["xla_backend_optimization_level=0", "xla_llvm_disable_expensive_passes=true"]
    _flags += ["xla_cpu_parallel_codegen_split_count=1"]
    _jaxlib = importlib.metadata.version("jaxlib") if importlib.util.find_spec("jaxlib") else "1.0"
    if tuple(map(int, _jaxlib.split(".")[:2])) < (0, 11):  # XLA ends the process at a flag that it knows no more
        _flags += ["xla_cpu_use_fusion_emitters=false"]
    os.environ["XLA_FLAGS"] = " ".join(f"--{flag}" for flag in _flags)
# On JAX a program is compiled once for all tests, and for the processes that they start.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    _cache = tempfile.TemporaryDirectory(prefix="keras_itdm_tests_", ignore_cleanup_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _cache.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

import pytest

# With --share-out, which is for those who run the tests on all backends, each of these runs on those named here alone.
# PyTorch traces nothing, and has most of them for little. The rest of the package is tested on every backend.
SHARES = {
    "tests/examples": ["torch"],  # what programs do as any user's would, they do on every backend if the package does
    "tests/experiments": ["torch"],
    "tests/test_pages.py": ["torch"],
    "tests/test_two_sample_test.py": ["torch"],  # is NumPy
    "tests/test_data.py": ["tensorflow"],  # is tf.data
    # A backend that traces its steps, and PyTorch, which does not: data, resuming, saving, bounds and devices, in which
    # TensorFlow and JAX have differed, are tested on both.
    "tests/test_properties.py": ["jax", "torch"],
    "tests/integration/test_collapse.py": ["jax", "torch"],
    "tests/integration/test_diagnostics.py": ["jax", "torch"],
    "tests/integration/test_precision.py": ["jax", "torch"],
    "tests/integration/test_label_values.py": ["tensorflow", "torch"],
    "tests/integration/test_several_layers.py": ["tensorflow", "torch"],
    "tests/integration/test_unseen_models.py": ["tensorflow", "torch"],
    "tests/integration/test_weight_files.py": ["tensorflow", "torch"],
}


def pytest_addoption(parser):
    parser.addoption("--share-out", action="store_true", help="run what some backends are enough for on these alone")


def pytest_ignore_collect(collection_path, config):
    if config.getoption("--share-out"):
        import keras  # not above: the process that hands out tests to others needs none of the backends, and would wait

        place = collection_path.relative_to(config.rootpath).as_posix()
        return keras.backend.backend() not in SHARES.get(place, [keras.backend.backend()]) or None


def pytest_collection_finish():
    _spare_what_stays()
    gc.set_threshold(20_000, 20, 50)


def _spare_what_stays():
    """Spares the garbage collector what stays anyway, objects of the backends: a tenth of TensorFlow's time, which
    keeps a graph of every step that it has traced."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="module")
def spared():
    yield
    _spare_what_stays()


@pytest.fixture(autouse=True)
def seeded(doctest_namespace):
    import keras
    import numpy as np

    doctest_namespace.update(np=np, keras=keras)
    keras.utils.set_random_seed(0)
    yield
    keras.backend.clear_session(free_memory=False)
