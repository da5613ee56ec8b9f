import keras
import pytest

from keras_itdm._step import StepsOnJAX


class Value:
    is_fully_addressable = True
    copies = 0

    def copy_to_host_async(self):
        self.copies += 1


class Trainer:
    train_function = None

    def make_train_function(self, force=False):
        if self.train_function is None or force:
            self.train_function = lambda state, logs: (logs, state)


class Model(StepsOnJAX, Trainer):
    pass


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="Elsewhere logs are no arrays of JAX")
def test_logs_are_sent_for_together_and_once():
    model, logs = Model(), {"loss": Value(), "match_loss": Value()}
    for _ in range(2):  # the second finds a function, and leaves it
        model.make_train_function()
    assert model.train_function("state", logs) == (logs, "state")
    assert [value.copies for value in logs.values()] == [1, 1]
