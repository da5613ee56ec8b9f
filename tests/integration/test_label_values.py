"""Labels that are no classes are told of in every kind of data, where its first batch is read."""

import warnings

import keras
import numpy as np
import pytest

from keras_itdm import ITDMModel

X = np.random.default_rng(0).normal(size=(40, 4)).astype("float32")
Y = np.arange(40) % 3


class Batches(keras.utils.PyDataset):
    def __init__(self, y):
        super().__init__()
        self.y = y

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return X[10 * index : 10 * index + 10], self.y[10 * index : 10 * index + 10]


def tf_dataset(y):
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices((X, y)).batch(10)


def data_loader(y):
    import torch

    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.tensor(X), torch.tensor(y)), batch_size=10)


def generator(y):
    batches = Batches(y)
    return (batches[index] for index in range(4))


KINDS = {
    "arrays": lambda y: (X, y),
    "PyDataset": lambda y: (Batches(y),),
    "tf.data": lambda y: (tf_dataset(y),),
    "DataLoader": lambda y: (data_loader(y),),
    "generator": lambda y: (generator(y),),
}


def fit(kind, y, partner="stream", **compiled):
    network = [keras.layers.Dense(4, name="features"), keras.layers.Dense(3, activation="softmax")]
    itdm = ITDMModel(keras.Sequential([keras.Input((4,)), *network]), "features", partner=partner)
    itdm.compile("sgd", lambda y, y_pred: keras.ops.mean(y_pred**2, axis=-1), **compiled)  # which takes any labels
    return itdm.fit(*KINDS[kind](y), batch_size=10 if kind == "arrays" else None, verbose=0)


@pytest.mark.parametrize("kind, jit_compile", [*((kind, False) for kind in KINDS), ("tf.data", True)])
def test_targets_of_no_class_are_refused(kind, jit_compile):
    if jit_compile is True and keras.backend.backend() == "torch":
        pytest.skip("torch.compile, which changes nothing here, takes minutes")
    numbers = Y + 1.3
    several_labels = np.eye(3, dtype="float32")[Y] + np.eye(3, dtype="float32")[0]
    targets, message = (numbers, "these targets are numbers") if jit_compile else (several_labels, "neither one-hot")
    with pytest.raises(ValueError, match=message):
        fit(kind, targets, jit_compile=jit_compile)


@pytest.mark.parametrize("kind, partner", [*((kind, "stream") for kind in KINDS), ("tf.data", "split")])
def test_a_class_that_is_left_out_is_warned_of(kind, partner):
    with pytest.warns(UserWarning, match=r"labels are no classes: NaN, or outside \[0, 3\)"):
        fit(kind, Y + 1, partner)


@pytest.mark.parametrize("y", [np.where(Y == 2, -1, Y), np.eye(3, dtype="float32")[Y] * (Y != 2)[:, None]])
def test_what_is_unlabelled_on_purpose_is_not_warned_of(y):
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        fit("tf.data", y)
    assert not [one for one in warned if "no classes" in str(one.message)]


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow's pipeline")
def test_looking_at_the_first_batch_leaves_the_order_of_s1():
    """Each batch is read once, and in plain fit's order."""
    import tensorflow as tf

    losses, read = [], []
    for wrap in (lambda model: model, lambda model: ITDMModel(model, "features", match_weight=0.0, partner="split")):
        keras.utils.set_random_seed(0)
        model = wrap(keras.Sequential([keras.Input((4,)), keras.layers.Dense(4, name="features")]))
        model.compile("sgd", "sparse_categorical_crossentropy", jit_compile=False)
        read.append([])
        shuffled = tf_dataset(Y).unbatch().shuffle(40).batch(10)
        note = lambda x: read[-1].append(float(x[0, 0]))  # noqa: E731
        seen = shuffled.map(lambda x, y, note=note: (tf.py_function(note, [x], []), (x, y))[1])
        losses.append(model.fit(seen, epochs=2, verbose=0).history["loss"])
    assert losses[0] == losses[1]
    assert read[0] == read[1] and len(read[0]) == 8
