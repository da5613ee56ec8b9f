import keras
import numpy as np
import pytest

from keras_itdm._labels import (
    check_loss_is_of_classes,
    class_indices,
    count_classes,
    labels_of,
    num_classes_matched,
    num_classes_of,
    stratified_halves,
)
from keras_itdm.callbacks import FeatureProjection
from keras_itdm.losses import ClassConditionalMMD

NO_CLASS = [-1.0, -7.0, 3.0, 1.5, np.nan, np.inf, 2.0**31, 2.0**33]


def indices(labels, num_classes=None):
    return keras.ops.convert_to_numpy(class_indices(np.array(labels), num_classes)).tolist()


def test_what_is_a_class_and_what_is_none():
    assert indices([0.0, 2.0, *NO_CLASS], 3) == [0, 2] + [-1] * len(NO_CLASS)
    assert indices([[0, 1, 0], [0, 0, 0], [0.5, 0.2, 0.3], [-1, 0, -2]], 3) == [1, -1, 0, -1]
    assert indices([[2], [-1]], 3) == [2, -1]
    assert indices([True, False]) == [1, 0]
    assert indices(np.array([200, 3], "uint8"), 300) == [200, 3]
    assert indices(np.array([2**40, 5, -(2**40)])) == [-1, 5, -1]
    assert indices([3.0, 1.5]) == [3, -1]


def test_the_number_of_classes():
    assert count_classes(np.array([0, 4]), np.array([-1, 2])) == 5
    assert count_classes(np.eye(4)[:2], np.eye(4)[:1]) == 4
    assert count_classes(np.array([-1, -1])) == 1
    assert count_classes(np.array([np.nan, 1.0])) == 2


def test_the_number_of_classes_is_that_of_the_output():
    for one in [(None, 5), [(None, 5)], {"kind": (None, 5)}, {"kind": [None, 5]}]:
        assert num_classes_of(one, None) == 5
        assert num_classes_of(one, lambda y: y["kind"]) == 5
    several = {"kind": (None, 5), "age": (None, 1)}
    assert num_classes_of(several, "kind") == 5
    with pytest.raises(ValueError, match="several outputs"):
        num_classes_of(several, None)
    with pytest.raises(ValueError, match="ClassConditionalMMD"):
        num_classes_of(several, lambda y: y["kind"])


@pytest.mark.parametrize("loss", ["poisson", {"kind": "poisson"}, "cosine_similarity", keras.losses.Huber()])
def test_losses_of_numbers_are_no_losses_of_classes(loss):
    with pytest.raises(ValueError, match="is one of numbers"):
        check_loss_is_of_classes(loss, None)


@pytest.mark.parametrize("form", ["indices", "column", "one-hot"])
def test_each_class_is_split_evenly_between_the_halves(form):
    y = np.random.default_rng(0).integers(4, size=31)
    labels = {"indices": y, "column": y[:, None], "one-hot": np.eye(4)[y]}[form]
    h1, y1, h2, y2 = (keras.ops.convert_to_numpy(part) for part in stratified_halves(np.arange(31.0), labels))
    assert sorted([*h1, *h2]) == list(range(31))
    y1, y2 = (np.argmax(part, axis=1) if form == "one-hot" else part.ravel() for part in (y1, y2))
    for label in range(4):
        position = np.flatnonzero(y == label)
        halves = [position[0::2].tolist(), position[1::2].tolist()]
        assert sorted([h1[y1 == label].tolist(), h2[y2 == label].tolist()]) == sorted(halves)


def test_without_labels_samples_are_taken_by_turns():
    h1, _, h2, _ = stratified_halves(np.arange(5.0), None)
    assert keras.ops.convert_to_numpy(h1).tolist() == [0, 2, 4]
    assert keras.ops.convert_to_numpy(h2).tolist() == [1, 3]


def test_a_row_of_zeros_is_no_class_wherever_labels_are_read(tmp_path):
    """In splitting a batch and in pictures it was class 0, in the loss none."""
    y = np.eye(3)[[0, 1, 0, 1, 0, 1]]
    y[[0, 2]] = 0
    integers = np.where(y.any(axis=1), y.argmax(axis=1), -1)
    halves = [keras.ops.convert_to_numpy(part) for part in stratified_halves(np.arange(6.0), y)[::2]]
    expected = [keras.ops.convert_to_numpy(part) for part in stratified_halves(np.arange(6.0), integers)[::2]]
    np.testing.assert_array_equal(halves, expected)
    h1, h2 = np.random.default_rng(0).normal(size=(2, 6, 4))
    assert float(ClassConditionalMMD(3)(h1, y, h2, y)) == float(ClassConditionalMMD(3)(h1, integers, h2, integers))

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="features")])
    model.compile("sgd", "mse")
    projection = FeatureProjection((h1, y), (h2, y), tmp_path, feature_layer="features", method="pca")
    projection.set_model(model)
    projection.on_train_begin()
    (of_training, _), num_classes = projection.classes()
    assert sorted(of_training) == sorted(integers) and num_classes == 3


def test_labels_out_of_targets():
    targets = {"a": 1, "b": 2}
    assert labels_of(targets, None) is targets
    assert labels_of(targets, "b") == 2
    assert labels_of([1, 2], "b", ["a", "b"]) == 2
    assert labels_of([1, 2], lambda y: y[0]) == 1
    with pytest.raises(ValueError, match="several parts"):
        labels_of(targets, None, needed=True)
    with pytest.raises(ValueError, match="names no part"):
        labels_of(targets, "c")


@pytest.mark.parametrize("halves", [False, True])
def test_the_number_of_classes_matched_is_that_of_random_batches(halves):
    rng = np.random.default_rng(0)
    labels = np.concatenate([rng.integers(20, size=300), np.full(100, -1), np.full(600, 3)])

    def matched():
        first, second = rng.choice(labels, 30), rng.choice(labels, 30)
        if halves:
            return sum(np.sum(first == k) >= 2 for k in range(20))
        return sum(k in first and k in second for k in range(20))

    expected = np.mean([matched() for _ in range(3000)])
    assert num_classes_matched(labels, 20, 30, halves) == pytest.approx(expected, abs=0.1)
