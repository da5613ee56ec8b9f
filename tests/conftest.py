import os
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Tests compile much and run little.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true")
# On JAX a program is compiled once for all tests, and for the processes that they start.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    _cache = tempfile.TemporaryDirectory(prefix="keras_itdm_tests_", ignore_cleanup_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _cache.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

import keras
import numpy as np
import pytest


@pytest.fixture(autouse=True)
def seeded(doctest_namespace):
    doctest_namespace.update(np=np, keras=keras)
    keras.utils.set_random_seed(0)
    yield
    keras.backend.clear_session(free_memory=False)
