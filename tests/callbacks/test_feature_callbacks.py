import sys

import numpy as np
import pytest

from keras_itdm.callbacks import FeatureProjection
from keras_itdm.callbacks._samples import choose_samples
from keras_itdm.callbacks.feature_projection import picture, project


def choose(data, num_samples, seed=0):
    return choose_samples(data, "train_data", num_samples, np.random.default_rng(seed))


def test_a_stream_is_sampled_as_evenly_as_arrays():
    x, y = np.arange(100)[:, None], np.arange(100) + 0.5
    stream = [(x[i : i + 7], y[i : i + 7]) for i in range(0, 100, 7)]
    counts = np.zeros(100)
    for seed in range(200):
        chosen, (labels,) = choose(iter(stream), 20, seed)
        assert len(np.unique(chosen)) == 20 and np.array_equal(chosen[:, 0] + 0.5, labels)
        counts[chosen[:, 0]] += 1
        of_arrays, _ = choose((x, y), 20, seed)
        assert np.array_equal(chosen, of_arrays)  # the same numbers are drawn
    assert counts.min() > 15 and counts.max() < 70  # 40 ± 5.7


def test_nested_inputs_and_no_targets():
    (first, second), targets = choose(({"a": np.arange(9), "b": np.arange(9) + 1}, None), 4)[0].values(), None
    assert np.array_equal(first + 1, second) and len(first) == 4 and targets is None
    assert choose(np.arange(9), 4)[1] == []


def test_infinite_streams_are_refused():
    import tensorflow as tf

    with pytest.raises(ValueError, match="`train_data` is read to its end"):
        choose(tf.data.Dataset.from_tensor_slices(np.zeros((4, 2))).batch(2).repeat(), 3)


@pytest.mark.parametrize("method", ["tsne", "pca"])
def test_pictures_of_the_same_features_are_alike(method):
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    features = 6.0 * np.eye(5)[labels] + rng.normal(size=(60, 5))
    first, names = project(features.astype("float32"), method)
    assert np.array_equal(first, project(features.astype("float32"), method)[0])
    moved, _ = project((features + 0.05 * rng.normal(size=features.shape)).astype("float32"), method, first)
    assert moved.shape == (60, 2)
    centres, moved_centres = (np.array([p[labels == k].mean(axis=0) for k in range(3)]) for p in (first, moved))
    cosine = np.sum(centres * moved_centres) / np.linalg.norm(centres) / np.linalg.norm(moved_centres)
    assert cosine > 0.9
    assert any(names) == (method == "pca")


@pytest.mark.parametrize("method", ["tsne", "pca"])
def test_pictures_of_poor_features(method):
    assert project(np.ones((8, 3)), method)[0].shape == (8, 2)
    assert project(np.arange(8.0)[:, None], method)[0].shape == (8, 2)


def test_training_and_validation_samples_are_told_apart():
    halves = np.zeros((4, 2)), np.ones((3, 2))
    axis = picture(halves, [np.array([0, 1, 2, 0]), np.array([2, 1, 7])], ("", ""), "epoch 1").axes[0]
    training, validation = axis.collections
    assert [len(c.get_offsets()) for c in (training, validation)] == [4, 3]
    assert len(training.get_paths()[0].vertices) != len(validation.get_paths()[0].vertices)
    colours = training.get_facecolors()
    assert np.array_equal(colours[0], colours[3]) and not np.array_equal(colours[0], colours[1])
    assert np.array_equal(colours[2], validation.get_edgecolors()[0])
    texts = [text.get_text() for text in axis.get_legend().get_texts()]
    assert texts == ["training", "validation", "class 0", "class 1", "class 2", "class 7"]
    axis = picture(halves, [None, None], ("", ""), "epoch 1").axes[0]
    assert len(axis.get_legend().get_texts()) == 2
    axis = picture(halves, [np.array([0, -1, 0, -1]), np.array([-1, 0, -1])], ("", ""), "epoch 1").axes[0]
    grey = axis.collections[0].get_facecolors()[1]
    assert np.array_equal(grey, axis.collections[0].get_facecolors()[3]) and len(set(grey[:3])) == 1
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["training", "validation", "class 0"]
    assert picture(None, [None, None], ("", ""), "epoch 1").axes[0].texts[0].get_text() == "features are not finite"


def test_what_is_missing_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ImportError, match="pip install scikit-learn matplotlib"):
        FeatureProjection(np.zeros((4, 2)), np.zeros((4, 2)), tmp_path)
