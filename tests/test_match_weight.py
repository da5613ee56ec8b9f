import keras
import pytest

from keras_itdm import ITDMModel
from tests.networks import compiled, convolutional, data


class SetEachStep(keras.callbacks.Callback):
    """Sets λ to the step's number, from 1, reads it at every second step, and interrupts training where it is told
    to."""

    def __init__(self, last_step=None):
        super().__init__()
        self.last_step = last_step

    def on_train_batch_begin(self, batch, logs=None):
        self._model.match_weight = batch + 1  # not `self.model`, which on JAX has all variables handed back
        if batch % 2:
            assert self.model.match_weight == batch + 1
        if batch == self.last_step:
            raise KeyboardInterrupt


def test_set_between_steps_of_fit():
    model = compiled(ITDMModel(convolutional(), "features", max_share=None))
    x, y = data(80)
    history = model.fit(x, y, batch_size=20, epochs=2, verbose=0, callbacks=[SetEachStep()]).history
    assert history["match_weight"] == pytest.approx([2.5, 2.5])
    assert model.match_weight == 4
    with pytest.raises(KeyboardInterrupt):
        model.fit(x, y, batch_size=20, verbose=0, callbacks=[SetEachStep(last_step=2)])
    assert model.match_weight == 3
    model._match_weight.variable.assign(0.25)  # as loading weights does
    assert model.fit(x, y, batch_size=20, verbose=0).history["match_weight"] == [0.25]
