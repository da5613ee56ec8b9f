"""On JAX and PyTorch the package works where TensorFlow is not installed; what needs it says so."""

import subprocess
import sys

import keras
import pytest

PRELUDE = """
import sys

sys.modules["tensorflow"] = None  # as if it were not installed
import keras
import numpy as np
from keras_itdm import ITDMModel, callbacks, mmd, two_sample_test, zip_batches

rng = np.random.default_rng(0)
x, y = rng.random((24, 4), dtype="float32"), rng.integers(3, size=24)
network = keras.Sequential(
    [
        keras.Input((4,)),
        keras.layers.Dense(5, activation="relu", name="features"),
        keras.layers.Dense(3, activation="softmax"),
    ]
)
itdm = ITDMModel(network, feature_layer="features")
itdm.compile("sgd", "sparse_categorical_crossentropy")

def fit(*data, **kwargs):
    assert np.isfinite(itdm.fit(*data, verbose=0, **kwargs).history["match_loss"][0])
"""

PARTS = {
    "arrays": "fit(x, y, batch_size=8, epochs=2)",
    "PyDataset": """
class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        return x[index * 8 : index * 8 + 8], y[index * 8 : index * 8 + 8]

fit(Batches())
""",
    "DataLoader": """
import torch

fit(torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.tensor(x), torch.tensor(y)), 8, shuffle=True))
""",
    "generator": """
def batches():
    while True:
        yield x[:8], y[:8]
        yield x[8:16], y[8:16]

fit(batches(), steps_per_epoch=2)
""",
    "callbacks": """
fit(
    x,
    y,
    batch_size=8,
    callbacks=[
        callbacks.MatchWeightScheduler(lambda epoch, match_weight: 0.4),
        callbacks.FeatureDiscrepancy((x, y), (x, y)),
    ],
)
assert itdm.match_weight == 0.4
""",
    "saving": """
import pathlib, tempfile

fit(x, y, batch_size=8)
with tempfile.TemporaryDirectory() as folder:
    for model in itdm, itdm.base_model:
        path = str(pathlib.Path(folder, "model.keras"))
        model.save(path)
        np.testing.assert_allclose(keras.saving.load_model(path).predict(x, verbose=0), network.predict(x, verbose=0))
""",
    "numbers": "assert float(mmd(x[:12], x[12:])) >= 0 and two_sample_test(x[:12], x[12:]).p_value > 0",
    "zip_batches": """
try:
    zip_batches([(x, y)])
except ImportError as error:
    assert "tensorflow" in str(error).lower(), error
else:
    raise AssertionError("zip_batches without TensorFlow")
""",
}


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="the backend itself")
def test_what_needs_no_tf_data_works_without_tensorflow():
    # One process for all: what takes time is the start.
    parts = "".join(f"\nprint({name!r})\n{code}\n" for name, code in PARTS.items())
    run = subprocess.run([sys.executable, "-c", PRELUDE + parts], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-500:] + run.stderr[-3000:]
    assert run.stdout.split() == list(PARTS)
