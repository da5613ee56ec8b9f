import dataclasses
import json

import keras
import numpy as np
import pytest

from experiments.data import load
from experiments.training import Recipe, check_settings, train

RECIPE = Recipe(
    filters=(4,), batch_size=30, epochs=4, learning_rate=0.1, milestones=(2,), match_weight=0.8, dropout=0.3
)

PLAIN = dataclasses.replace(RECIPE, match_weight=0.0, dropout=0.0, epochs=2)


class Interrupted(Exception):
    pass


def interrupt_after(epochs):
    def on_epoch_end(epochs_done, history):
        if epochs_done == epochs:
            raise Interrupted

    return on_epoch_end


def without_times(result):
    return {**result, "history": {key: value for key, value in result["history"].items() if key != "seconds"}}


def few_digits():
    return load("digits").take(100)


@pytest.mark.parametrize(
    "changes",
    [{}, {"match_weight": 0.0}, {"partner": "split"}, {"max_share": 0.5}, {"sam": 0.05, "match_weight": 0.0}],
    ids=str,
)
def test_an_interrupted_training_ends_where_another_does(changes, tmp_path):
    recipe = dataclasses.replace(RECIPE, **changes)
    whole = train(recipe, few_digits(), 0, tmp_path / "whole")
    for epochs in (1, 3):
        with pytest.raises(Interrupted):
            train(recipe, few_digits(), 0, tmp_path / "interrupted", on_epoch_end=interrupt_after(epochs))
    seen = []
    resumed = train(
        recipe, few_digits(), 0, tmp_path / "interrupted", on_epoch_end=lambda done, history: seen.append(done)
    )
    assert seen == [4]
    assert without_times(resumed) == without_times(whole)
    assert len(whole["history"]["val_accuracy"]) == len(whole["history"]["seconds"]) == 4
    assert ("match_loss" in whole["history"]) == (recipe.match_weight > 0)
    assert [path.name for path in (tmp_path / "interrupted").iterdir()] == ["result.json"]


def test_seeds_are_set_once_a_training(tmp_path, monkeypatch):
    calls, set_random_seed = [], keras.utils.set_random_seed
    monkeypatch.setattr(keras.utils, "set_random_seed", lambda seed: calls.append(seed) or set_random_seed(seed))
    train(PLAIN, few_digits(), 3, tmp_path)
    assert calls == [3]


def test_a_write_that_was_cut_short_is_no_state(tmp_path):
    with pytest.raises(Interrupted):
        train(RECIPE, few_digits(), 0, tmp_path / "a", on_epoch_end=interrupt_after(2))
    (tmp_path / "a" / "progress" / "state-3.npz").write_bytes(b"half of")
    (tmp_path / "a" / "progress" / "history.json.new").write_text('{"loss": [')
    whole = train(RECIPE, few_digits(), 0, tmp_path / "b")
    assert without_times(train(RECIPE, few_digits(), 0, tmp_path / "a")) == without_times(whole)


def test_what_is_finished_is_not_trained_again(tmp_path):
    first = train(RECIPE, few_digits(), 0, tmp_path, measure=lambda folder, model: {"layers": len(model.layers)})
    again = train(RECIPE, few_digits(), 0, tmp_path, on_epoch_end=interrupt_after(1))
    assert again == first == json.loads((tmp_path / "result.json").read_text())
    assert first["layers"] > 3 and first["parameters"] > 1000


def test_every_regularizer_trains_in_its_own_way(tmp_path):
    regularizers = [
        {},
        {"mixup": 0.3},
        {"label_smoothing": 0.2},
        {"weight_decay": 0.05},
        {"sam": 0.05},
        {"dropout": 0.5},
        {"match_weight": 0.8},
        {"match_weight": 0.8, "partner": "split"},
        {"match_weight": 0.8, "matching": "joint"},
    ]
    outcomes = []
    for index, changes in enumerate(regularizers):
        history = train(dataclasses.replace(PLAIN, **changes), few_digits(), 0, tmp_path / str(index))["history"]
        assert np.isfinite(history["loss"]).all()
        outcomes.append(history["val_cross_entropy"][-1])
    assert len(set(outcomes)) == len(regularizers)


def test_mixed_precision_holds_for_every_training(tmp_path):
    policies = []
    for seed in range(2):
        train(
            dataclasses.replace(PLAIN, dtype_policy="mixed_bfloat16", epochs=1),
            few_digits(),
            seed,
            tmp_path / str(seed),
            measure=lambda folder, model: policies.append(model.get_layer("features").compute_dtype) or {},
        )
    keras.config.set_dtype_policy("float32")
    assert policies == ["bfloat16", "bfloat16"]


def test_regularizers_that_do_not_go_together():
    with pytest.raises(ValueError, match="Mixup and SAM are alternatives to ITDM"):
        dataclasses.replace(RECIPE, mixup=0.3)


def test_results_of_other_settings_are_not_mixed(tmp_path):
    import argparse

    settings = argparse.Namespace(output=tmp_path, epochs=3, seeds=1)
    check_settings(settings, free=("output", "seeds"))
    settings.seeds = 2
    check_settings(settings, free=("output", "seeds"))
    settings.epochs = 4
    with pytest.raises(SystemExit, match=r"epochs: 3 before, 4 now.*--output"):
        check_settings(settings, free=("output", "seeds"))
