"""Streams of pairs, where they are given on purpose, by mistake, or to what does not match."""

import keras
import numpy as np
import pytest

from keras_itdm import ITDMModel, zip_batches
from tests.networks import compiled, convolutional, data

X, Y = data(40)


def stream():
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices((X, Y)).batch(10)


def test_evaluation_of_pairs_is_that_of_s1():
    itdm = compiled(ITDMModel(convolutional(), "features"))
    expected = itdm.evaluate(stream(), verbose=0)
    assert itdm.evaluate(zip_batches(stream()), verbose=0) == pytest.approx(expected)
    history = itdm.fit(X, Y, batch_size=10, validation_data=zip_batches(stream()), verbose=0).history
    assert history["val_loss"] == pytest.approx([np.ravel(itdm.evaluate(stream(), verbose=0))[0]], rel=1e-4)


def test_prediction_of_pairs_is_that_of_s1():
    itdm = compiled(ITDMModel(convolutional(), "features"))
    expected = itdm.predict(X, batch_size=10, verbose=0)
    np.testing.assert_allclose(itdm.predict(stream(), verbose=0), expected, rtol=1e-5)
    np.testing.assert_allclose(itdm.predict(zip_batches(stream()), verbose=0), expected, rtol=1e-5)
    np.testing.assert_allclose(itdm.predict(Pairs(), verbose=0), expected, rtol=1e-5)


class Pairs(keras.utils.PyDataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        first, second = (slice(10 * (i % 4), 10 * (i % 4) + 10) for i in (index, index + 1))
        return (X[first], Y[first]), (X[second], Y[second])


class Firsts(Pairs):
    def __getitem__(self, index):
        return super().__getitem__(index)[0]


def test_class_weights_of_a_py_dataset_of_pairs_are_for_s1():
    losses = []
    for wrap, batches in (
        (lambda model: model, Firsts),
        (lambda model: ITDMModel(model, "features", match_weight=0.0), Pairs),
    ):
        keras.utils.set_random_seed(0)
        model = compiled(wrap(convolutional()))
        weights = {0: 2.0, 1: 0.5, 2: 1.0}
        losses.append(model.fit(batches(), class_weight=weights, shuffle=False, verbose=0).history["loss"])
    assert losses[0] == losses[1]


def test_half_a_pair_is_refused():
    def half():
        for _ in range(4):
            yield (X[:10], Y[:10]), X[10:20]

    with pytest.raises(ValueError, match=r"A pair should be `\(\(x1, y1\), \(x2, y2\)\)`"):
        compiled(ITDMModel(convolutional(), "features")).fit(half(), verbose=0)


@pytest.mark.parametrize("paired", [True, False])
def test_an_argument_says_what_a_stream_holds(paired):
    """Tuples of two views in and out of a subclassed model can be read in both ways."""

    class Views(keras.Model):
        def __init__(self):
            super().__init__()
            self.hidden = keras.layers.Dense(8, name="features")
            self.out = [keras.layers.Dense(36), keras.layers.Dense(36)]

        def call(self, views):
            if not isinstance(views, (tuple, list)):
                views = (views, views)
            hidden = self.hidden(views[0] + views[1])
            return self.out[0](hidden) if paired else tuple(out(hidden) for out in self.out)

    flat = X.reshape(40, 36)

    def views():
        while True:
            for i in range(0, 40, 10):
                yield (flat[i : i + 10], flat[i : i + 10]), (2 * flat[i : i + 10], 3 * flat[i : i + 10])

    itdm = ITDMModel(Views(), "features", matching="joint", paired=paired)
    itdm.compile(keras.optimizers.SGD(1e-3), "mse" if paired else ["mse", "mse"])
    history = itdm.fit(views(), steps_per_epoch=3, verbose=0).history
    assert np.isfinite(history["match_loss"]).all()


@pytest.mark.parametrize("match_weight", [0.0, 0.4])
def test_a_finite_generator_is_read_once_and_whole(match_weight):
    read = []

    def batches():
        for i in range(0, 40, 10):
            read.append(i)
            yield X[i : i + 10], Y[i : i + 10]

    itdm = compiled(ITDMModel(convolutional(), "features", match_weight=match_weight))
    steps = []
    count = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs=None: steps.append(batch))
    itdm.fit(batches(), callbacks=[count], verbose=0)
    assert steps == [0, 1, 2, 3] and read == [0, 10, 20, 30]


def test_data_that_augments_with_global_generators_are_those_of_plain_fit():
    class Noisy(keras.utils.PyDataset):
        def __init__(self):
            super().__init__()
            self.drawn = []

        def __len__(self):
            return 4

        def __getitem__(self, index):
            noise = np.random.normal(size=(10, 6, 6, 1)).astype("float32")
            return X[10 * index : 10 * index + 10] + noise, Y[10 * index : 10 * index + 10]

    losses = []
    for wrap in (lambda model: model, lambda model: ITDMModel(model, "features", match_weight=0.0)):
        keras.utils.set_random_seed(0)
        model = compiled(wrap(convolutional()))
        np.random.seed(5)
        losses.append(model.fit(Noisy(), epochs=2, shuffle=False, verbose=0).history["loss"])
    assert losses[0] == losses[1]


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="PyTorch's modules")
@pytest.mark.parametrize("match_weight", [0.0, 1e-12])
def test_modules_of_pytorch_see_s1_alone(match_weight):
    """Their buffers, and the global generator that their dropout draws from, are those of plain training."""
    import torch

    def model():
        torch.manual_seed(3)
        module = torch.nn.Sequential(
            torch.nn.Flatten(), torch.nn.Linear(36, 8), torch.nn.BatchNorm1d(8), torch.nn.Dropout(0.5)
        )
        wrapped = keras.layers.TorchModuleWrapper(module, name="features")
        return keras.Sequential([keras.Input((6, 6, 1)), wrapped, keras.layers.Dense(3, "softmax")]), module

    trained = []
    for wrap in (lambda model: model, lambda model: ITDMModel(model, "features", match_weight=match_weight)):
        keras.utils.set_random_seed(0)
        network, module = model()
        losses = compiled(wrap(network)).fit(X, Y, batch_size=10, shuffle=False, verbose=0, epochs=2).history["loss"]
        trained.append((losses, module[2].running_mean.numpy().copy(), int(module[2].num_batches_tracked)))
    assert trained[0][0] == pytest.approx(trained[1][0], rel=1e-5)
    np.testing.assert_allclose(trained[0][1], trained[1][1], rtol=1e-5)
    assert trained[0][2] == trained[1][2]
