"""In-Training Distribution Matching for Keras 3 (Li, Pan, Li and Zhu, 2020)."""

from keras_itdm import callbacks, kernels, layers, losses, schedules
from keras_itdm._mmd import mmd
from keras_itdm._two_sample_test import TwoSampleTest, two_sample_test
from keras_itdm.data import zip_batches
from keras_itdm.model import ITDMModel

__all__ = [
    "ITDMModel",
    "TwoSampleTest",
    "callbacks",
    "kernels",
    "layers",
    "losses",
    "mmd",
    "schedules",
    "two_sample_test",
    "zip_batches",
]
__version__ = "0.1.0"
