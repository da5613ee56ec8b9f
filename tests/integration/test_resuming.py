"""A training that was killed, and started again by the same script, ends as one that was not: bit for bit."""

import json
import os
import pathlib
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_itdm import ITDMModel
from tests.integration import killed_training
from tests.integration.killed_training import network_with_state, train
from tests.networks import compiled, data

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module", autouse=True)
def deterministic():
    """TensorFlow alone has to be asked: without, the last digit of a training differed in one of a few runs."""
    if keras.backend.backend() != "tensorflow":
        yield
        return
    import tensorflow as tf
    from tensorflow.python.framework.config import disable_op_determinism

    tf.config.experimental.enable_op_determinism()
    yield
    disable_op_determinism()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What a training on arrays that nothing interrupts logs and ends with."""
    directory = tmp_path_factory.mktemp("whole")
    variables = train(directory, "arrays")
    return lines(directory), variables


def lines(directory):
    """The logs of each epoch, as often as it was finished."""
    return (directory / "epochs.txt").read_text().splitlines()


def assert_same(variables, expected):
    assert len(variables) == len(expected)
    for value, wanted in zip(variables, expected, strict=True):
        np.testing.assert_array_equal(value, wanted)


def test_killed_in_an_epoch_and_in_a_write(tmp_path):
    """λ by step and a zipped stream: two processes are killed, and this one ends what they began."""
    moments = ["middle of epoch 1", "writing weights of epoch 2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "KERAS_BACKEND": keras.backend.backend()}

    def start(moment):
        command = [sys.executable, "-m", "tests.integration.killed_training", tmp_path / "killed", "zipped", moment]
        return subprocess.Popen(command, env=environment, cwd=ROOT)

    process = start(moments[0])
    expected = train(tmp_path / "whole", "zipped")  # meanwhile
    assert process.wait() == -signal.SIGKILL
    assert start(moments[1]).wait() == -signal.SIGKILL
    variables = train(tmp_path / "killed", "zipped")
    logs = lines(tmp_path / "whole")
    # The backup of epoch 2 was lost, so it was trained twice, to the same end.
    assert lines(tmp_path / "killed") == [logs[epoch] for epoch in (0, 1, 2, 2, 3)]
    assert_same(variables, expected)


@pytest.fixture
def interrupted(monkeypatch):
    """A function that trains until it is interrupted, in this process, at a moment of `killed_training`."""

    def interrupt():
        raise KeyboardInterrupt

    def train_until(directory, stream, moment):
        with pytest.raises(KeyboardInterrupt):
            train(directory, stream, moment)

    monkeypatch.setattr(killed_training, "kill", interrupt)
    return train_until


def test_interrupted_between_the_writes_of_weights_and_epoch(whole, interrupted, tmp_path):
    expected_lines, expected = whole
    interrupted(tmp_path, "arrays", "between writes of epoch 1")
    assert json.loads((tmp_path / "backup" / "training_metadata.json").read_text())["epoch"] == 1
    assert_same(train(tmp_path, "arrays"), expected)
    assert lines(tmp_path) == expected_lines


def test_a_backup_without_the_number_of_its_epoch(whole, interrupted, tmp_path):
    expected_lines, expected = whole
    interrupted(tmp_path, "arrays", "writing metadata of epoch 2")
    with pytest.raises(json.JSONDecodeError):  # Keras reads the empty file
        train(tmp_path, "arrays")
    os.remove(tmp_path / "backup" / "training_metadata.json")
    assert_same(train(tmp_path, "arrays"), expected)
    assert lines(tmp_path) == expected_lines


@pytest.mark.parametrize("partner", ["stream", "split"])
def test_from_a_model_checkpoint(tmp_path, partner):
    def fit(model, **options):
        keras.utils.set_random_seed(4)
        x, y = data(60)
        checkpoint = keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras")
        history = model.fit(x, y, batch_size=20, epochs=3, verbose=0, callbacks=[checkpoint], **options).history
        return history["loss"], [keras.ops.convert_to_numpy(v) for v in (*model.variables, *model.optimizer.variables)]

    losses, expected = fit(compiled(ITDMModel(network_with_state(), "features", partner=partner)))
    resumed, variables = fit(keras.saving.load_model(tmp_path / "2.keras"), initial_epoch=2)
    assert resumed == losses[2:]
    assert_same(variables, expected)


@pytest.mark.parametrize("num_batches, length_is_known", [(3, True), (20, False)])
def test_an_epoch_of_a_dataset_is_passed_over_by_reading_a_batch(num_batches, length_is_known, tmp_path):
    """S2 of a short epoch is drawn from the whole of it, of a longer one from the batches that were read."""
    import tensorflow as tf

    x, y = data(20 * num_batches)
    read = []

    def fit(model, initial_epoch=0, epochs=5):
        keras.utils.set_random_seed(4)
        order = tf.data.Dataset.range(len(x)).shuffle(len(x), seed=1).filter(lambda _: True).batch(20)
        dataset = order.map(lambda rows: tf.ensure_shape(tf.numpy_function(note, [rows], tf.int64), [None]))
        dataset = dataset.map(lambda rows: (tf.gather(x, rows), tf.gather(y, rows)))
        if length_is_known:
            dataset = dataset.apply(tf.data.experimental.assert_cardinality(num_batches))
        checkpoint = keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras")
        begin = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: read_at.append(len(read)))
        options = {"initial_epoch": initial_epoch, "verbose": 0, "callbacks": [checkpoint, begin]}
        read_at = []
        read.clear()
        return model.fit(dataset, epochs=epochs, **options).history["loss"], read_at[0]

    def note(rows):
        read.append(rows)
        return rows

    losses, _ = fit(compiled(ITDMModel(network_with_state(), "features")))
    resumed, _ = fit(keras.saving.load_model(tmp_path / "3.keras"), initial_epoch=3)
    assert resumed == losses[3:]
    _, num_read = fit(keras.saving.load_model(tmp_path / "5.keras"), initial_epoch=40, epochs=41)
    assert 40 <= num_read < 100  # some were read ahead, to build the model: pairs of 40 epochs would be 120 or more


def test_a_fit_after_a_restored_one_begins_at_the_first_epoch():
    model = compiled(ITDMModel(network_with_state(), "features"))
    model._initial_epoch = 2  # as `BackupAndRestore` leaves it
    assert model.fit(*data(), epochs=2, verbose=0).epoch == [0, 1]


def test_a_model_that_goes_on_training_draws_what_the_plain_model_draws():
    """Only a model's first `fit` passes over data: a later one finds the stream where the earlier one left it."""
    import tensorflow as tf

    histories = []
    for wrap in (False, True):
        network = network_with_state()
        model = compiled(ITDMModel(network, "features", match_weight=0.0) if wrap else network)
        keras.utils.set_random_seed(4)
        dataset = tf.data.Dataset.from_tensor_slices(data(60)).shuffle(60, seed=1).batch(20)
        model.fit(dataset, epochs=1, verbose=0)
        histories.append(model.fit(dataset, epochs=3, initial_epoch=1, verbose=0).history["loss"])
    assert histories[0] == histories[1]
