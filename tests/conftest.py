import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Tests compile much and run little.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true")

import keras
import numpy as np
import pytest


@pytest.fixture(autouse=True)
def seeded(doctest_namespace):
    doctest_namespace.update(np=np, keras=keras)
    keras.utils.set_random_seed(0)
    yield
    keras.backend.clear_session(free_memory=False)
