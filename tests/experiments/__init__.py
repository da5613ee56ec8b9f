import keras
import pytest

# What a training computes is tested on every backend in test_training.py, and test_digits runs a script on every one.
on_one_backend = pytest.mark.skipif(
    keras.backend.backend() != "torch",
    reason="Files and arguments are the same on every backend; PyTorch starts soonest",
)
