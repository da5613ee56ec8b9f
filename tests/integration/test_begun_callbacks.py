"""Callbacks that change the model as training begins: it trains as the plain one does."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_itdm import ITDMModel
from tests.networks import NUM_CLASSES, data

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="Elsewhere Keras builds the optimizer before callbacks begin"
)


class AsTrainingBegins(keras.callbacks.Callback):
    def __init__(self, change):
        super().__init__()
        self.change = change

    def on_train_begin(self, logs=None):
        self.change(self.model)


def freeze(model):
    model.get_layer("below").trainable = False


def thaw(model):
    model.get_layer("below").trainable = True


def average(model):
    model.optimizer.use_ema, model.optimizer.ema_momentum = True, 0.5


def lora(model):
    model.get_layer("below").enable_lora(2)


class HeadInTraining(keras.Model):
    """Built by a call in which a layer that training has is not met."""

    def __init__(self):
        super().__init__()
        self.flatten, self.hidden = layers.Flatten(), layers.Dense(8, activation="relu", name="features")
        self.classifier, self.head = layers.Dense(NUM_CLASSES, activation="softmax"), layers.Dense(2)

    def call(self, x, training=False):
        hidden = self.hidden(self.flatten(x))
        if training:
            self.add_loss(keras.ops.mean(self.head(hidden) ** 2))
        return self.classifier(hidden)


def sequential():
    model = [layers.Flatten(), layers.Dense(8, activation="relu", name="below")]
    model += [layers.Dense(8, activation="relu", name="features"), layers.Dense(NUM_CLASSES, activation="softmax")]
    return keras.Sequential([keras.Input((6, 6, 1)), *model])


def head_in_training():
    model = HeadInTraining()
    model(data(2)[0])
    return model


@pytest.mark.parametrize(
    ("network", "change", "use_ema"),
    [
        (sequential, freeze, False),
        (sequential, freeze, True),
        (sequential, thaw, False),
        (sequential, average, False),
        (sequential, lora, False),
        (head_in_training, lambda model: None, False),
    ],
    ids=["freeze", "freeze under averages", "thaw", "average", "lora", "a head in training alone"],
)
def test_a_model_that_callbacks_change_trains_as_the_plain_one(network, change, use_ema):
    trained = []
    for wrap in (lambda model: model, lambda model: ITDMModel(model, "features", match_weight=0.0)):
        keras.utils.set_random_seed(1)
        inner = network()
        if change is thaw:
            inner.get_layer("below").trainable = False
        model = wrap(inner)
        optimizer = keras.optimizers.SGD(0.1, momentum=0.5, use_ema=use_ema, ema_momentum=0.5)
        model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
        keras.utils.set_random_seed(2)
        model.fit(*data(), batch_size=16, epochs=2, callbacks=[AsTrainingBegins(change)], verbose=0)
        trained.append([variable.numpy() for variable in (*inner.weights, *optimizer.variables)])
    for one, other in zip(*trained, strict=True):
        np.testing.assert_array_equal(one, other)
