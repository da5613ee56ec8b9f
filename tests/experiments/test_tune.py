import json
import sys

import keras
import keras_tuner
import pytest
from keras import layers

from experiments import tune
from keras_itdm import ITDMModel
from tests.experiments import on_one_backend
from tests.networks import NUM_CLASSES, compiled, data


@on_one_backend
def test_a_search_to_its_best_trial_and_what_it_is_worth(tmp_path, monkeypatch, capsys):
    arguments = ["--trials", "2", "--epochs", "1", "--seeds", "1", "--train-size", "200", "--output", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["tune.py", *arguments])
    tune.main()
    kept = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert 0.05 <= kept["best"]["match_weight"] <= 1.6
    assert kept["best"]["matching"] in ("class_conditional", "joint")
    assert kept["best"]["feature_layer"] in ("features", "preactivation")
    assert 0 < kept["score"] < 10 and 0 < kept["reloaded"]["cross_entropy"] < 10
    assert [row["name"] for row in kept["rows"]] == ["λ = 0", "best trial"]
    assert kept["rows"][0]["cross_entropy"] != kept["rows"][1]["cross_entropy"]
    text = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert "Best of 2 trials: match_weight = " in text and text.strip() in capsys.readouterr().out


def test_the_best_model_is_read_back_as_it_was_at_its_best_epoch(tmp_path):
    def build(hp):
        hidden = layers.Dense(8, activation="relu", name="features")
        head = layers.Dense(NUM_CLASSES, activation="softmax")
        network = keras.Sequential([keras.Input((6, 6, 1)), layers.Flatten(), hidden, head])
        weight = hp.Float("match_weight", 0.1, 1.0)
        return compiled(ITDMModel(network, "features", "joint", weight, partner="split"))

    x, y = data(60)
    tuner = keras_tuner.RandomSearch(build, "val_loss", max_trials=1, seed=0, directory=tmp_path)
    tuner.search(x[:40], y[:40], validation_data=(x[40:], y[40:]), epochs=2, batch_size=20, verbose=0)
    (trial,), (model,) = tuner.oracle.get_best_trials(1), tuner.get_best_models(1)
    assert isinstance(model, ITDMModel)
    assert model.match_weight == pytest.approx(trial.hyperparameters["match_weight"], rel=1e-6)
    assert model.evaluate(x[40:], y[40:], verbose=0)[0] == pytest.approx(trial.score, rel=1e-5)
