import keras
import numpy as np
import pytest
from keras import layers

from keras_itdm import ITDMModel
from keras_itdm.callbacks import AdaptiveMatchWeight, MatchWeightScheduler
from tests import reference
from tests.networks import NUM_CLASSES, compiled, convolutional, data

X, Y = data(48)
PAIR = (X[:24], Y[:24]), (X[24:], Y[24:])


JIT = False if keras.backend.backend() == "tensorflow" else "auto"  # XLA compiles for longer than these train


@pytest.fixture(scope="module")
def trained_as():
    """A function of λ and `partner` to a compiled model with its first weights: compiled once for all tests."""
    models = {}

    def model_with(match_weight=0.8, partner="stream"):
        if partner not in models:
            keras.utils.set_random_seed(1)
            hidden = layers.Dense(8, activation="tanh", name="features")
            classifier = layers.Dense(NUM_CLASSES, activation="softmax")
            network = keras.Sequential([keras.Input((6, 6, 1)), layers.Flatten(), hidden, classifier])
            model = compiled(ITDMModel(network, "features", partner=partner), jit_compile=JIT)
            model.optimizer.build(model.trainable_variables)
            state = [*model.variables, *model.optimizer.variables]
            models[partner] = model, [(v, keras.ops.convert_to_numpy(v).copy()) for v in state]
        model, state = models[partner]
        for variable, value in state:
            variable.assign(value)
        model.match_weight = match_weight
        return model

    return model_with


def norms(model, pair):
    """‖∂CE/∂H1‖ and ‖∂Match_c/∂H1‖ in float64."""
    (x1, y1), (x2, y2) = pair
    w1, b1, w2, b2 = (w.astype("float64") for w in model.get_weights())
    h1, h2 = (np.tanh(x.reshape(len(x), -1) @ w1 + b1) for x in (x1, x2))
    scores = np.exp(h1 @ w2 + b2)
    probabilities = scores / scores.sum(axis=1, keepdims=True)
    of_loss = (probabilities - np.eye(NUM_CLASSES)[y1]) @ w2.T / len(x1)
    of_match, _ = reference.class_conditional_gradients(h1, y1, h2, y2, NUM_CLASSES)
    return np.linalg.norm(of_loss), np.linalg.norm(of_match)


def fit(model, callback, epochs=1, x=X, y=Y, **options):
    """λ before every step, and the history."""
    seen = []
    spy = keras.callbacks.LambdaCallback(on_train_batch_begin=lambda batch, logs: seen.append(model.match_weight))
    keras.utils.set_random_seed(5)  # of S2, and of PyTorch's dropout
    options = {"batch_size": 24, "shuffle": False, "verbose": 0, "epochs": epochs, **options}
    return seen, model.fit(x, y, callbacks=[callback, spy], **options).history


def test_lambda_gives_the_share(trained_as):
    model = trained_as(0.4)
    loss_norm, match_norm = norms(model.base_model, PAIR)
    expected = 0.3 / 0.7 * loss_norm / match_norm
    callback = AdaptiveMatchWeight(PAIR, share=0.3, smoothing=0, maximum=100.0)
    seen, history = fit(model, callback)
    assert seen[0] == pytest.approx(expected, rel=1e-4)
    assert history["match_share"] == pytest.approx([0.3], rel=1e-5)
    assert history["match_weight"] == pytest.approx([expected], rel=1e-4)


def test_smoothing_the_maximum_and_a_mean_over_pairs(trained_as):
    pairs = [PAIR, PAIR[::-1]]
    model = trained_as(4.0)
    loss_norm, match_norm = np.mean([norms(model.base_model, pair) for pair in pairs], axis=0)
    weight = 0.75 * 4.0 + 0.25 * 0.3 / 0.7 * loss_norm / match_norm
    share = weight * match_norm / (loss_norm + weight * match_norm)
    seen, history = fit(model, AdaptiveMatchWeight(pairs, share=0.3, smoothing=0.75, maximum=100.0))
    assert seen[0] == pytest.approx(weight, rel=1e-4)
    assert history["match_share"] == pytest.approx([share], rel=1e-4)
    seen, _ = fit(trained_as(4.0), AdaptiveMatchWeight(PAIR, share=0.99, maximum=0.5))
    assert seen[0] == 0.5


def test_training_differs_by_lambda_alone():
    """Batch normalization, dropout, weight and activity penalties: the same as with these λ set from outside."""
    models = [compiled(ITDMModel(convolutional(), "features", match_weight=0.4), jit_compile=JIT) for _ in range(2)]
    seen, history = fit(models[0], AdaptiveMatchWeight(PAIR, every=1, maximum=100.0), epochs=2)
    assert len(set(seen)) == 4
    replayed = iter(seen)
    replay = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: setattr(models[1], "match_weight", next(replayed))
    )
    _, again = fit(models[1], replay, epochs=2)
    assert {key: values for key, values in history.items() if key != "match_share"} == again
    for one, other in zip(models[0].get_weights(), models[1].get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("every, changes", [("epoch", [0, 4, 8]), (3, [0, 3, 6, 9])])
def test_how_often(every, changes, trained_as):
    x, y = data(96)
    seen, _ = fit(trained_as(), AdaptiveMatchWeight(PAIR, every=every), epochs=3, x=x, y=y)
    assert [0, *(np.flatnonzero(np.diff(seen)) + 1)] == changes


def schedulers():
    by_step = keras.optimizers.schedules.PolynomialDecay(0.9, decay_steps=9, end_learning_rate=0.1)
    by_epoch = keras.optimizers.schedules.PolynomialDecay(0.9, decay_steps=3, end_learning_rate=0.1)
    return {
        "by step": lambda: MatchWeightScheduler(by_step),
        "by epoch": lambda: MatchWeightScheduler(by_epoch, by="epoch"),
        "adaptive": lambda: AdaptiveMatchWeight(PAIR[0], every=3),
    }


@pytest.mark.parametrize("name", schedulers())
def test_a_training_saved_and_resumed_goes_on_as_it_would_have(name, trained_as, tmp_path):
    callback = schedulers()[name]
    model = trained_as(0.5, "split")
    seen, history = fit(model, callback(), epochs=3)
    weights = model.get_weights()
    begun = trained_as(0.5, "split")
    fit(begun, callback(), epochs=1)
    begun.save(tmp_path / "m.keras")
    resumed = keras.saving.load_model(tmp_path / "m.keras")
    seen_after, history_after = fit(resumed, callback(), epochs=3, initial_epoch=1)
    assert len(set(seen)) > 1
    assert seen_after == seen[2:]
    assert history_after["match_weight"] == history["match_weight"][1:]
    for one, other in zip(weights, resumed.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-7)


def test_zero_gradients(trained_as):
    model = trained_as()
    model.base_model.layers[-1].kernel.assign(np.zeros((8, NUM_CLASSES)))  # CE does not depend on the features
    seen, history = fit(model, AdaptiveMatchWeight(PAIR, smoothing=0))
    assert seen[0] == 0 and history["match_share"] == [0]
    one = np.ones_like(X[:24])  # all features are equal: Match has no slope
    seen, _ = fit(trained_as(), AdaptiveMatchWeight(((one, Y[:24]), (one, Y[24:]))))
    assert seen[0] == 0.8
    seen, _ = fit(trained_as(), AdaptiveMatchWeight(((np.nan * one, Y[:24]), PAIR[1])))
    assert seen[0] == 0.8


def test_what_does_not_fit_the_model_is_refused(trained_as):
    with pytest.raises(TypeError, match="sets λ of an ITDMModel"):
        compiled(convolutional()).fit(X, Y, verbose=0, callbacks=[AdaptiveMatchWeight(PAIR)])
    for partner, probe, expected in (
        ("stream", PAIR[0], r"pairs \(\(x1, y1\), "),
        ("split", PAIR, r"batches \(x, y\)"),
    ):
        with pytest.raises(ValueError, match=f'With partner="{partner}", `data` should hold {expected}'):
            fit(trained_as(partner=partner), AdaptiveMatchWeight(probe))


def test_verbose(trained_as, capsys):
    fit(trained_as(0.8), AdaptiveMatchWeight(PAIR, share=0, smoothing=0.5, verbose=1))
    assert "Epoch 1: AdaptiveMatchWeight sets match_weight to 0.4." in capsys.readouterr().out
