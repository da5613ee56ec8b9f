import argparse
import dataclasses

import numpy as np
import pytest

from experiments import alternatives
from experiments.data import Data

SETTINGS = argparse.Namespace(methods=["dropout"], seeds=2, epochs=None, train_size=None, output=None)


@pytest.fixture
def trials(monkeypatch):
    """Trials as they are asked for; the held-out cross-entropy is least for a dropout of 0.4, the test one for 0.2."""
    y = np.arange(1000) % 10
    x = y.reshape(-1, 1, 1, 1)
    monkeypatch.setattr(alternatives, "load", lambda name: Data(name, x, y, x[:50], y[:50]))
    asked = []

    def run_trials(trials, output, measure):
        asked.extend(trials)
        held_out = "tuning" in trials[0].name
        entropy = {0.2: 0.5 if held_out else 0.1, 0.4: 0.3, 0.6: 0.4, 0.0: 0.9}
        return [
            dict.fromkeys(("accuracy", "cross_entropy", "seconds_per_epoch", "seconds"), entropy[t.recipe.dropout])
            for t in trials
        ]

    monkeypatch.setattr(alternatives, "run_trials", run_trials)
    return asked


def test_tuning_goes_by_held_out_images_and_never_sees_the_test_images(trials):
    (plain, dropout), tried = alternatives.study("digits", 0.4, SETTINGS)
    assert [(row["setting"], row["cross_entropy"]) for row in tried] == [
        ("dropout=0.2", 0.5),
        ("dropout=0.4", 0.3),
        ("dropout=0.6", 0.4),
    ]
    assert (plain["method"], plain["setting"]) == ("plain SGD", "none")
    assert (dropout["setting"], dropout["cross_entropy"][0]) == ("dropout=0.4", 0.3)
    tuning = [trial for trial in trials if "tuning" in trial.name]
    tested = [trial for trial in trials if "test" in trial.name]
    assert [trial.recipe.dropout for trial in tuning] == [0.2, 0.4, 0.6]
    assert {trial.seed for trial in tuning} == {0}
    assert all(len(trial.data.x_test) == 100 and len(trial.data.x_train) == 400 for trial in tuning)
    assert all(len(trial.data.x_test) == 50 and len(trial.data.x_train) == 400 for trial in tested)
    assert [(trial.recipe.dropout, trial.seed) for trial in tested] == [(0.0, 0), (0.0, 1), (0.4, 0), (0.4, 1)]


def test_training_labels_are_poisoned_by_seed_and_held_out_ones_are_not(trials):
    alternatives.study("digits", 0.4, SETTINGS)
    tuning, first, second = trials[0], trials[-2], trials[-1]
    assert (first.data.y_train != second.data.y_train).any()
    np.testing.assert_array_equal(tuning.data.y_train, first.data.y_train)
    np.testing.assert_array_equal(tuning.data.y_test, tuning.data.x_test[:, 0, 0, 0])


def test_twice_the_batch_takes_as_many_steps():
    plain = alternatives.RECIPES["fashion_mnist"]
    twice = alternatives.recipe_of(plain, {"batch": 2, "rate": 0.5})
    assert (twice.batch_size, twice.epochs) == (2 * plain.batch_size, 2 * plain.epochs)
    assert twice.milestones == tuple(2 * epoch for epoch in plain.milestones)
    assert twice.learning_rate == plain.learning_rate / 2
    assert alternatives.recipe_of(plain, {"sam": 0.1}) == dataclasses.replace(plain, sam=0.1)
