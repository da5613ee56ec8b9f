import argparse
import json
import sys

import keras
import numpy as np
import pytest

import keras_itdm
from experiments import transfer
from tests.experiments import on_one_backend
from tests.experiments.fakes import fake_datasets


@pytest.fixture
def small_network(monkeypatch):
    """In place of MobileNetV2, which takes a minute to compile, a network of one convolution."""

    def network(shape, include_top, weights, pooling):
        assert (include_top, pooling) == (False, "avg")
        inputs = x = keras.Input(shape)
        x = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3, strides=4)(x))
        return keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x), name=f"small_{weights}")

    monkeypatch.setattr(keras.applications, "MobileNetV2", network)


def test_the_network_is_frozen_and_then_trained_with_matching(small_network, monkeypatch):
    seen = []
    fit = keras_itdm.ITDMModel.fit

    def spy(model, *arguments, **options):
        (network,) = [layer for layer in model.base_model.layers if isinstance(layer, keras.Model)]
        before = network.get_weights()
        history = fit(model, *arguments, **options).history
        changed = [not np.array_equal(w, b) for w, b in zip(network.get_weights(), before, strict=True)]
        seen.append((model, changed, history))

    monkeypatch.setattr(keras_itdm.ITDMModel, "fit", spy)
    rng = np.random.default_rng(0)
    data = transfer.ForNetwork.__new__(transfer.ForNetwork)
    data.num_classes, data.x_train = 10, rng.uniform(0, 255, (40, 32, 32, 3))
    data.y_train = np.eye(10)[np.arange(40) % 10]
    data.test = lambda: (data.x_train, data.y_train)
    settings = {"weights": "none", "image_size": 32, "frozen_epochs": 1, "epochs": 1, "batch_size": 20, "verbose": 0}
    result = transfer.transfer(data, 0.8, 0, argparse.Namespace(learning_rate=0.1, **settings))
    assert list(result) == ["frozen", "fine-tuned"]
    (model, changed, history), (model_again, changed_again, history_again) = seen
    assert model is model_again and model.feature_layer.startswith("small_None/global_average_pooling2d")
    assert not any(changed) and np.isnan(history["match_loss"]).all()
    assert all(changed_again) and history_again["match_loss"][0] > 0


def test_images_are_resized_and_coloured():
    images = np.random.default_rng(0).integers(0, 256, (5, 28, 28, 1), dtype=np.uint8)
    coloured = transfer.coloured(images, 32)
    assert coloured.shape == (5, 32, 32, 3) and coloured.dtype == np.float32
    assert abs(coloured.mean() - images.mean()) < 3
    np.testing.assert_array_equal(coloured[..., 0], coloured[..., 2])


@on_one_backend
def test_the_command(small_network, tmp_path, monkeypatch, capsys):
    arguments = ["--epochs", "1", "--frozen-epochs", "1", "--seeds", "1", "--train-size", "30", "--batch-size", "15"]
    monkeypatch.setattr(sys, "argv", ["transfer.py", *arguments, "--output", str(tmp_path / "results")])
    with fake_datasets(tmp_path / "data", num_examples=40):
        transfer.main()
    kept = json.loads((tmp_path / "results" / "results.json").read_text(encoding="utf-8"))
    stages = [("frozen", 0.0), ("fine-tuned", 0.0), ("fine-tuned", 0.8)]
    assert [(row["stage"], row["match_weight"]) for row in kept["rows"]] == stages
    assert all(np.isfinite(row["cross_entropy"][0]) for row in kept["rows"])
    text = (tmp_path / "results" / "table.md").read_text(encoding="utf-8")
    assert text.strip() in capsys.readouterr().out
