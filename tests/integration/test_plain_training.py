"""The second batch leaves no trace, and λ = 0 is plain SGD."""

import keras
import numpy as np
import pytest

from keras_itdm import ITDMModel, zip_batches
from tests.networks import compiled, convolutional, data

BACKEND = keras.backend.backend()


def train(wrap, stream, epochs=3, **options):
    """History and all variables after training, of the plain model or of the same model wrapped with λ = 0."""
    network = convolutional()
    model = ITDMModel(network, "features", match_weight=0.0) if wrap else network
    compiled(model, **options)
    keras.utils.set_random_seed(5)
    x, y = data(100)
    if stream == "arrays":
        history = model.fit(x, y, batch_size=32, epochs=epochs, verbose=0, validation_split=0.2)
    else:
        import tensorflow as tf

        dataset = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(100, seed=3).batch(32)
        if stream == "zipped" and wrap:
            dataset = zip_batches(dataset)
        history = model.fit(dataset, epochs=epochs, verbose=0)
    variables = [keras.ops.convert_to_numpy(v) for v in (*network.variables, *model.optimizer.variables)]
    return history.history, variables


@pytest.mark.parametrize("stream", ["arrays", "dataset", "zipped"])
@pytest.mark.parametrize("how", [{"jit_compile": False}, {"run_eagerly": True}, {"jit_compile": True}])
def test_without_matching_training_is_that_of_the_plain_model_bit_for_bit(stream, how):
    if BACKEND == "torch" and how == {"jit_compile": True}:
        pytest.skip("torch.compile takes a minute a model: test_fit_data runs it once")
    if BACKEND == "jax" and how != {"jit_compile": True} and stream != "arrays":
        pytest.skip("covered by arrays: JAX without jit is slow")
    if BACKEND == "tensorflow" and how == {"run_eagerly": True} and stream != "arrays":
        pytest.skip("covered by arrays: Keras hands batches on in the same way, eagerly or not")
    plain, plain_variables = train(False, stream, **how)
    itdm, itdm_variables = train(True, stream, **how)
    assert np.isnan(itdm.pop("match_loss")).all() and itdm.pop("match_weight") == [0.0] * 3
    assert itdm == plain
    assert len(plain_variables) == len(itdm_variables)
    for expected, value in zip(plain_variables, itdm_variables, strict=True):
        np.testing.assert_array_equal(value, expected)


def test_moving_averages_seeds_and_added_losses_see_the_first_batch_alone():
    x, y = data(60)
    states, logs = [], []
    for partner in (20, 40):
        network = convolutional()
        model = compiled(ITDMModel(network, "features", match_weight=0.5, max_share=None))
        part = slice(partner, partner + 20)
        logs.append(model.train_on_batch((x[:20], y[:20]), (1e3 * x[part], y[part]), return_dict=True))
        states.append([keras.ops.convert_to_numpy(v) for v in network.non_trainable_variables])
    for one, other in zip(*states, strict=True):
        np.testing.assert_array_equal(one, other)
    objective = [log["loss"] - 0.5 * log["match_loss"] for log in logs]
    assert logs[0]["match_loss"] != logs[1]["match_loss"]
    assert objective[0] == pytest.approx(objective[1], rel=1e-5)

    plain = convolutional()
    compiled(plain).train_on_batch(x[:20], y[:20])
    for expected, value in zip(plain.non_trainable_variables, states[0], strict=True):
        np.testing.assert_allclose(value, keras.ops.convert_to_numpy(expected), rtol=1e-6)


def test_the_partner_is_normalized_by_its_own_batch_and_passes_gradients():
    """One step by hand: gradient of λ · Match through both forward passes, each in training mode."""
    x, y = data(40)
    inputs = keras.Input((6, 6, 1))
    hidden = keras.layers.Flatten()(inputs)
    features = keras.layers.BatchNormalization(name="features")(hidden)
    network = keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(features))
    model = ITDMModel(network, "features", "joint", match_weight=2.0, max_share=None)
    model.compile(keras.optimizers.SGD(1.0), "sparse_categorical_crossentropy")
    before = [keras.ops.convert_to_numpy(v) for v in network.trainable_variables]
    logs = model.train_on_batch((x[:20], y[:20]), (x[20:] + 7.0, y[20:]), return_dict=True)

    def normalized(batch):
        batch = batch.reshape(len(batch), -1).astype("float64")
        return (batch - batch.mean(0)) / np.sqrt(batch.var(0) + 1e-3)

    from tests import reference

    h1, h2 = normalized(x[:20]), normalized(x[20:] + 7.0)
    sigma = reference.median_bandwidth(h1, h2)
    assert logs["match_loss"] == pytest.approx(reference.joint(h1, h2, sigma), rel=1e-4)

    def objective(gamma, beta):
        first, second = h1 * gamma + beta, h2 * gamma + beta
        logits = first @ before[2] + before[3]
        log_probabilities = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        return -log_probabilities[np.arange(20), y[:20]].mean() + 2.0 * reference.joint(first, second, sigma)

    step = 1e-5
    for index in (0, 17):
        unit = np.eye(36)[index] * step
        slope = (objective(before[0] + unit, before[1]) - objective(before[0] - unit, before[1])) / (2 * step)
        after = keras.ops.convert_to_numpy(network.trainable_variables[0])
        assert before[0][index] - after[index] == pytest.approx(slope, rel=2e-3, abs=1e-6)


def test_match_weight_changes_without_tracing_again():
    traces = []

    class Counting(keras.layers.Layer):
        def call(self, inputs):
            traces.append(None)
            return inputs

    x, y = data(60)
    network = keras.Sequential(
        [keras.Input((6, 6, 1)), Counting(), keras.layers.Flatten(), keras.layers.Dense(3, "softmax", name="features")]
    )
    model = compiled(ITDMModel(network, "features", match_weight=0.5, max_share=None))
    model.fit(x, y, batch_size=20, verbose=0)
    count = len(traces)
    losses = []
    for match_weight in (0.2, 5.0):
        model.match_weight = match_weight
        losses.append(model.fit(x, y, batch_size=20, verbose=0, epochs=2).history)
        assert losses[-1]["match_weight"] == pytest.approx([match_weight] * 2)
    if BACKEND != "torch":  # which traces nothing
        assert len(traces) == count
    assert losses[1]["loss"][0] > losses[0]["loss"][0]
    model.match_weight = 0.0
    assert np.isnan(model.fit(x, y, batch_size=20, verbose=0).history["match_loss"]).all()
    model.match_weight = 1.0
    assert model.fit(x, y, batch_size=20, verbose=0).history["match_loss"][0] > 0


def test_class_and_sample_weights_leave_matching_alone():
    x, y = data(40)
    logs = []
    for weight in (np.ones(20), np.linspace(0.1, 3, 20)):
        model = compiled(ITDMModel(convolutional(), "features"))
        logs.append(model.train_on_batch((x[:20], y[:20], weight), (x[20:], y[20:], weight), return_dict=True))
    assert logs[0]["match_loss"] == pytest.approx(logs[1]["match_loss"], rel=1e-5)
    assert logs[0]["loss"] != pytest.approx(logs[1]["loss"], rel=1e-3)
