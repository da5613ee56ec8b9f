import numpy as np

from experiments import combinations
from experiments.combinations import BestEpoch, Mixed


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


def test_the_epoch_of_least_held_out_cross_entropy_is_kept():
    class Model:
        def get_weights(self):
            return epoch

    best = BestEpoch()
    best.set_model(Model())
    best.on_train_begin()
    for epoch, value in enumerate([3.0, 1.0, 2.0, float("nan")]):
        best.on_epoch_end(epoch, {"val_cross_entropy": value})
    assert (best.epoch, best.weights, best.least) == (2, 1, 1.0)


def test_each_method_is_tuned_alone_and_with_itdm_on_held_out_images(tmp_path, monkeypatch, capsys):
    asked = []

    def train(recipe, mixup, seed, data, held_out):
        assert len(data.x_train) == 50 and len(held_out.x_test) == 20 and not data.augment
        asked.append((recipe.dropout, recipe.match_weight, seed))
        held = abs(recipe.dropout - (0.4 if recipe.match_weight else 0.2)) + mixup
        numbers = {"accuracy": 90.0, "cross_entropy": 0.5}
        return {"held_out": held, "epoch": 3, "seconds": 1.0, "last": numbers, "stopped": numbers}

    from experiments.data import Data

    y = np.arange(200) % 10
    images = np.zeros((200, 4, 4, 1), "uint8")
    monkeypatch.setattr(combinations, "train", train)
    monkeypatch.setattr(combinations, "load", lambda name: Data(name, images, y, images, y))
    command = [
        "combinations",
        "--data",
        "fashion_mnist",
        "--seeds",
        "2",
        "--train-size",
        "50",
        "--output",
        str(tmp_path),
    ]
    monkeypatch.setattr("sys.argv", command)
    combinations.main()
    printed = capsys.readouterr().out
    assert "| dropout | dropout=0.2 |" in printed and "| dropout + ITDM | dropout=0.4 |" in printed
    assert (0.4, 0.8, 1) in asked and (0.2, 0.0, 1) in asked
    count = len(asked)
    combinations.main()  # what is finished is not trained again
    assert len(asked) == count
