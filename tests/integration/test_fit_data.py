"""`fit` takes what Keras' own `fit` takes."""

import functools

import keras
import numpy as np
import pytest

from keras_itdm import ITDMModel, zip_batches
from tests.networks import compiled, convolutional, data

BACKEND = keras.backend.backend()


def itdm(**options):
    return compiled(ITDMModel(convolutional(), "features", match_weight=0.5, max_share=None), **options)


def check(history, epochs=2):
    assert {"loss", "accuracy", "match_loss", "match_weight"} <= set(history.history)
    assert all(len(values) == epochs for values in history.history.values())
    assert np.isfinite(history.history["loss"]).all()
    assert min(history.history["match_loss"]) > 0.01
    assert history.history["match_weight"] == pytest.approx([0.5] * epochs)


def dataset(batch_size=20, num_samples=64):
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices(data(num_samples)).batch(batch_size)


class Batches(keras.utils.PyDataset):
    def __init__(self, pairs=False, **kwargs):
        super().__init__(**kwargs)
        self.x, self.y = data()
        self.pairs = pairs
        self.asked = []

    @property
    def num_batches(self):
        return 4

    def __getitem__(self, index):
        self.asked.append(index)
        part = slice(index * 16, (index + 1) * 16)
        batch = self.x[part], self.y[part]
        return (batch, (self.x[::4], self.y[::4])) if self.pairs else batch


def test_arrays():
    x, y = data()
    check(itdm().fit(x, y, batch_size=20, epochs=2, verbose=0))


def test_arrays_with_validation_split_class_weight_and_a_smaller_last_batch():
    x, y = data()
    history = itdm().fit(
        x, y, batch_size=20, epochs=2, verbose=0, validation_split=0.25, class_weight={0: 1.0, 1: 2.0, 2: 0.5}
    )
    check(history)
    assert {key for key in history.history if key.startswith("val_")} == {"val_loss", "val_accuracy"}


def test_arrays_with_sample_weight():
    x, y = data()
    check(itdm().fit(x, y, sample_weight=np.linspace(0.1, 2, len(x)), batch_size=20, epochs=2, verbose=0))


def test_tensors_of_the_backend():
    x, y = data()
    x, y = keras.ops.convert_to_tensor(x), keras.ops.convert_to_tensor(y)
    check(itdm().fit(x, y, batch_size=20, epochs=2, verbose=0))


def test_batched_dataset():
    check(itdm().fit(dataset(), epochs=2, verbose=0))


def test_batched_dataset_with_class_weight_and_validation_data():
    history = itdm().fit(
        dataset(), epochs=2, verbose=0, class_weight={0: 1.0, 1: 2.0, 2: 0.5}, validation_data=dataset()
    )
    check(history)
    assert "val_loss" in history.history and "val_match_loss" not in history.history


def test_endless_dataset_with_steps_per_epoch():
    check(itdm().fit(dataset().repeat(), steps_per_epoch=3, epochs=2, verbose=0))


def test_zipped_dataset():
    check(itdm().fit(zip_batches(dataset(), seed=0), epochs=2, verbose=0))
    check(itdm().fit(zip_batches(dataset()).prefetch(2), epochs=2, verbose=0, class_weight={0: 2.0, 1: 1.0, 2: 1.0}))


def test_dataset_zipped_by_hand():
    import tensorflow as tf

    pairs = tf.data.Dataset.zip((dataset(), dataset().shuffle(4, seed=1)))
    check(itdm().fit(pairs, epochs=2, verbose=0))


@pytest.mark.parametrize("workers", [1, 2])
def test_py_dataset(workers):
    check(itdm().fit(Batches(workers=workers), epochs=2, verbose=0))


def test_py_dataset_of_pairs():
    check(itdm().fit(Batches(pairs=True), epochs=2, verbose=0))


@pytest.mark.parametrize("pairs", [False, True])
def test_generator(pairs):
    def batches():
        x, y = data()
        while True:
            for start in range(0, 64, 16):
                batch = x[start : start + 16], y[start : start + 16]
                yield (batch, (x[::4], y[::4])) if pairs else batch

    check(itdm().fit(batches(), steps_per_epoch=3, epochs=2, verbose=0))


@pytest.mark.skipif(BACKEND != "torch", reason="a DataLoader needs PyTorch")
@pytest.mark.parametrize("shuffle", [False, True])
def test_data_loader(shuffle):
    import torch

    x, y = data()
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(torch.tensor(x), torch.tensor(y)), batch_size=20, shuffle=shuffle
    )
    check(itdm().fit(loader, epochs=2, verbose=0))


def test_data_loader_of_pairs():
    torch = pytest.importorskip("torch")
    x, y = data()
    samples = [((x[i], y[i]), (x[-i], y[-i])) for i in range(len(x))]
    check(itdm().fit(torch.utils.data.DataLoader(samples, batch_size=20), epochs=2, verbose=0))


def test_train_on_batch():
    x, y = data()
    model = itdm()
    for batch in (((x[:20], y[:20]), (x[20:40], y[20:40])), (x[:20], y[:20])):  # a pair; halves of one batch
        logs = model.train_on_batch(*batch, return_dict=True)
        assert set(logs) == {"loss", "accuracy", "match_loss", "match_weight"}
        assert logs["match_loss"] > 0.01
    assert set(model.test_on_batch(x, y, return_dict=True)) == {"loss", "accuracy"}
    assert len(model.train_on_batch((x, y), (x, y))) == 2  # loss and accuracy, as of the plain model


@pytest.mark.parametrize("jit_compile", [True, False, "auto"])
def test_jit_compile(jit_compile, monkeypatch):
    x, y = data()
    if (BACKEND, jit_compile) in (("torch", True), ("jax", False)):  # for one size of a batch: more takes long
        x, y = x[:40], y[:40]
    if BACKEND == "torch":  # all of its compiler but C++
        import torch

        monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    check(itdm(jit_compile=jit_compile).fit(x, y, batch_size=20, epochs=2, verbose=0))


def test_run_eagerly():
    x, y = data()
    check(itdm(run_eagerly=True).fit(x, y, batch_size=20, epochs=2, verbose=0))


@pytest.mark.skipif(BACKEND == "torch", reason="Keras has no steps_per_execution on PyTorch")
def test_steps_per_execution():
    x, y = data(100)
    check(itdm(steps_per_execution=2).fit(x, y, batch_size=20, epochs=2, verbose=0))


def test_gradient_accumulation():
    x, y = data()
    optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)
    check(itdm(optimizer=optimizer).fit(x, y, batch_size=20, epochs=2, verbose=0))


@pytest.mark.parametrize("matching", ["class_conditional", "joint"])
@pytest.mark.parametrize("partner", ["stream", "split"])
def test_both_matchings_and_partners_train(matching, partner):
    x, y = data(256)
    model = compiled(
        ITDMModel(convolutional(), "features", matching, match_weight=0.5, partner=partner, max_share=None)
    )
    history = model.fit(x, y, batch_size=32, epochs=8, verbose=0)
    check(history, epochs=8)
    assert history.history["loss"][-1] < history.history["loss"][0] - 0.2
    assert model.evaluate(x, y, verbose=0, return_dict=True)["accuracy"] > 0.8


def test_joint_matching_needs_no_labels():
    x, _ = data()
    model = keras.Sequential(
        [keras.Input((6, 6, 1)), keras.layers.Conv2D(1, 3, padding="same", name="features"), keras.layers.ReLU()]
    )
    model = compiled(
        ITDMModel(model, "features", "joint", match_weight=0.5, max_share=None), loss="mse", metrics=["mae"]
    )
    history = model.fit(x, x, batch_size=20, epochs=2, verbose=0)
    assert min(history.history["match_loss"]) > 0.01
