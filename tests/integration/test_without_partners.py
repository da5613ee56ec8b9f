"""At λ = 0, where nothing could change that, no second batch is drawn: data are asked for what plain `fit` asks for."""

import keras
import numpy as np
import pytest
import torch

from keras_itdm import ITDMModel
from keras_itdm.callbacks import MatchWeightScheduler
from tests.networks import compiled, data

X, Y = data(60)


def network():
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(8, name="features"),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )


class Augmenting(keras.utils.PyDataset):
    """Batches with noise out of a generator of its own, which each of its calls moves on."""

    def __init__(self, pairs=False, **kwargs):
        super().__init__(**kwargs)
        self.rng = np.random.default_rng(0)
        self.pairs = pairs
        self.asked = []

    def __len__(self):
        return 3

    def on_epoch_end(self):
        self.asked.append("end")

    def __getitem__(self, index):
        self.asked.append(index)
        rows = slice(20 * index, 20 * index + 20)
        batch = X[rows] + self.rng.normal(size=(20, 6, 6, 1)).astype("float32"), Y[rows]
        return (batch, batch) if self.pairs else batch


def generator(asked):
    for index in range(6):
        asked.append(index)
        yield X[10 * index : 10 * index + 10], Y[10 * index : 10 * index + 10]


def data_loader(asked):
    class Samples(torch.utils.data.Dataset):
        def __len__(self):
            return 60

        def __getitem__(self, index):
            asked.append(index)
            return X[index] + np.random.normal(), Y[index]

    return torch.utils.data.DataLoader(Samples(), batch_size=20, shuffle=True)


def fit(model, kind, **options):
    keras.utils.set_random_seed(2)
    asked = []
    if kind == "PyDataset":
        x = Augmenting()
        asked = x.asked
    else:
        torch.manual_seed(2)  # which Keras does on PyTorch alone
        x = {"generator": generator, "DataLoader": data_loader}[kind](asked)
    options = {"epochs": 1 if kind == "generator" else 2, "verbose": 0, **options}
    return compiled(model).fit(x, **options).history["loss"], asked


@pytest.mark.parametrize("kind", ["PyDataset", "generator", "DataLoader"])
def test_data_are_asked_for_what_plain_training_asks_for(kind):
    plain = fit(network(), kind)
    assert fit(ITDMModel(network(), "features", match_weight=0.0), kind) == plain
    assert len(fit(ITDMModel(network(), "features"), kind)[1]) >= len(plain[1])


def test_a_callback_that_may_set_it_has_partners_drawn():
    class SetsIt(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.model.match_weight = 0.5 * epoch

    for callback in (SetsIt(), MatchWeightScheduler(lambda epoch, match_weight: 0.5 * epoch)):
        itdm = compiled(ITDMModel(network(), "features", match_weight=0.0))
        logged = itdm.fit(X, Y, epochs=2, verbose=0, callbacks=[callback]).history["match_loss"]
        assert np.isnan(logged[0]) and logged[1] > 0


def test_setting_it_otherwise_is_refused():
    itdm = ITDMModel(network(), "features", match_weight=0.0)

    class Setting(Augmenting):
        def __getitem__(self, index):
            itdm.match_weight = 0.5
            return super().__getitem__(index)

    compiled(itdm, run_eagerly=True)
    with pytest.raises(Exception, match="`match_weight` was 0 when `fit` began"):
        itdm.fit(Setting(), verbose=0)
    itdm.match_weight = 0.5
    compiled(itdm)
    assert itdm.fit(X, Y, verbose=0).history["match_loss"][0] > 0


@pytest.mark.parametrize("class_weight", [None, {0: 1.0, 1: 2.0, 2: 3.0}])
def test_of_pairs_the_first_is_trained_on(class_weight):
    losses = []
    for wrap, pairs in ((False, False), (True, True)):
        model = ITDMModel(network(), "features", match_weight=0.0) if wrap else network()
        keras.utils.set_random_seed(2)
        history = compiled(model).fit(Augmenting(pairs), epochs=2, verbose=0, class_weight=class_weight)
        losses.append(history.history["loss"])
    assert losses[0] == losses[1]


def test_workers_are_stopped_at_the_end_of_an_epoch():
    itdm = compiled(ITDMModel(network(), "features", match_weight=0.0))
    assert len(itdm.fit(Augmenting(workers=2), epochs=3, verbose=0).history["loss"]) == 3


def test_inputs_in_lists_are_no_pairs():
    itdm = compiled(ITDMModel(network(), "features", match_weight=0.0))
    assert np.isfinite(itdm.fit([X], [Y], verbose=0).history["loss"][0])
