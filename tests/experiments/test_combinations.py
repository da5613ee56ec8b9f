import dataclasses
import json

import numpy as np
import pytest

from experiments import combinations
from experiments.combinations import BestEpoch, Mixed
from experiments.data import Data, load


def test_a_mixed_batch_blends_images_as_it_blends_labels():
    y = np.arange(12) % 3
    x = y.astype("float32").reshape(-1, 1, 1, 1)
    batches = Mixed(x, np.eye(3, dtype="float32")[y], 5, alpha=1.0, seed=0)
    parts = [batches[index] for index in range(len(batches))]
    assert [len(images) for images, _ in parts] == [5, 5, 2]
    images, labels = (np.concatenate(part) for part in zip(*parts, strict=True))
    np.testing.assert_allclose(labels @ np.arange(3), images.ravel(), rtol=1e-6)
    np.testing.assert_allclose(labels.sum(axis=1), 1, rtol=1e-6)
    assert (labels.max(axis=1) < 1).any()


@pytest.mark.parametrize(
    "values, epoch, least",
    [([3.0, 1.0, 2.0, np.nan], 2, 1.0), ([np.nan, 2.0, np.nan], 2, 2.0), ([np.nan, np.nan], 1, np.inf)],
    ids=str,
)
def test_the_epoch_of_least_held_out_cross_entropy_is_kept(values, epoch, least):
    class Model:
        def get_weights(self):
            return index

    best = BestEpoch()
    best.set_model(Model())
    best.on_train_begin()
    for index, value in enumerate(values):
        best.on_epoch_end(index, {"val_cross_entropy": value})
    assert (best.epoch, best.weights, best.least) == (epoch, epoch - 1, least)


def test_a_few_values_are_those_in_the_middle():
    assert [combinations.middle([1, 2, 3, 4, 5], n) for n in (1, 3, 9)] == [[3], [2, 3, 4], [1, 2, 3, 4, 5]]


@pytest.fixture
def asked(monkeypatch):
    """Trainings as they are asked for. Held out, dropout is best at 0.2 alone and at 0.4 with ITDM."""
    asked = []

    def train(recipe, mixup, seed, data, held_out):
        assert len(data.x_train) == 50 and len(held_out.x_test) == 20 and not data.augment
        assert recipe.max_share == (1.0 if recipe.match_weight else None)
        asked.append((recipe.dropout, recipe.match_weight, seed))
        held = abs(recipe.dropout - (0.4 if recipe.match_weight else 0.2)) + mixup
        last = {"accuracy": 90.0 + seed, "cross_entropy": 0.5 - 0.1 * bool(recipe.match_weight) - 0.02 * seed}
        stopped = {"accuracy": 80.0, "cross_entropy": 0.3 + 0.1 * bool(recipe.dropout)}
        return {"held_out": held, "epoch": 3, "seconds": 1.0, "last": last, "stopped": stopped}

    y = np.arange(200) % 10
    images = np.zeros((200, 4, 4, 1), "uint8")
    monkeypatch.setattr(combinations, "train", train)
    monkeypatch.setattr(combinations, "load", lambda name: Data(name, images, y, images, y))
    return asked


def run(tmp_path, monkeypatch, *more):
    arguments = "combinations --data fashion_mnist --seeds 2 --train-size 50 --output"
    monkeypatch.setattr("sys.argv", [*arguments.split(), str(tmp_path), *more])
    combinations.main()


def test_each_method_is_tuned_alone_and_with_itdm_on_held_out_images(asked, tmp_path, monkeypatch):
    run(tmp_path, monkeypatch)
    table = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert "| dropout | dropout=0.2 |" in table and "| dropout + ITDM | dropout=0.4 |" in table
    assert (0.4, 0.8, 1) in asked and (0.2, 0.0, 1) in asked
    assert "| dropout + ITDM | dropout=0.6 | 0.2000 |" in (tmp_path / "tuning.md").read_text(encoding="utf-8")
    assert (tmp_path / "combinations.png").stat().st_size > 10_000
    kept = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert [row["last_accuracy"] for row in kept["rows"]] == [[90.0, 91.0]] * 10
    count = len(asked)
    run(tmp_path, monkeypatch)
    assert len(asked) == count, "what is finished is not trained again"


def test_both_together_are_compared_with_each_seed_by_seed(asked, tmp_path, monkeypatch):
    run(tmp_path, monkeypatch)
    table = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert "| ITDM | none | 90.50 ± 0.71 | 0.390 ± 0.014 | 80.00 | 0.300 | 3 |" in table
    assert "| ITDM - plain SGD | +0.00 | -0.100, better | +0.00 | +0.000 |" in table
    assert "| dropout + ITDM - dropout | +0.00 | -0.100, better | +0.00 | +0.000 |" in table
    assert "| dropout + ITDM - ITDM | +0.00 | +0.000 | +0.00 | +0.100, worse |" in table


def test_a_few_methods_at_a_few_values(asked, tmp_path, monkeypatch):
    run(tmp_path, monkeypatch, "--methods", "dropout", "--values", "1")
    table = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert "| dropout + ITDM | dropout=0.4 |" in table and "mixup" not in table
    assert len(asked) == 2 * 2 * 2, "plain SGD and dropout, without and with ITDM, two seeds"


def test_mixed_batches_train_with_matching(tmp_path):
    data = load("digits").take(100, 50)
    recipe = dataclasses.replace(
        combinations.RECIPE, filters=(4,), batch_size=30, epochs=2, milestones=(), **combinations.ITDM
    )
    result = combinations.train(recipe, 0.3, 0, data, data)
    assert result["epoch"] in (1, 2) and np.isfinite(result["last"]["cross_entropy"])
    assert result["held_out"] == pytest.approx(result["last"]["cross_entropy"], rel=1e-4)
    assert result["stopped"]["cross_entropy"] <= result["last"]["cross_entropy"] + 1e-4
