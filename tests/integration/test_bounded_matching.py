"""Matching cannot take over: w · ‖∂Match/∂H‖ ≤ κ · G at every step, as worked out by hand in float64."""

import keras
import numpy as np
import pytest

from keras_itdm import ITDMModel
from keras_itdm._feature_layers import paths_of
from tests import reference
from tests.networks import NUM_CLASSES
from tests.test_model import dealt

NUM_INPUTS, NUM_FEATURES, NUM_STEPS, LEARNING_RATE, KAPPA = 6, 5, 6, 0.5, 0.3


def batches(num_samples=24):
    """Pairs of mini-batches, no two of the same size, in which the classes differ a little."""
    rng = np.random.default_rng(0)

    def batch(num_samples):
        y = rng.integers(NUM_CLASSES, size=num_samples)
        return (rng.normal(size=(num_samples, NUM_INPUTS)) + 0.7 * y[:, None]).astype("float32"), y

    return [(batch(num_samples), batch(num_samples - 5)) for _ in range(NUM_STEPS)]


ONE, TWO = "features", {"below": 0.5, "features": 1.5}  # values of `feature_layer`


def model(feature_layer=ONE, **arguments):
    """A network with as many hidden layers as are matched."""
    keras.utils.set_random_seed(1)
    hidden = [keras.layers.Dense(NUM_FEATURES, activation="tanh", name=name) for name in paths_of(feature_layer)]
    classifier = keras.layers.Dense(NUM_CLASSES, activation="softmax")
    network = keras.Sequential([keras.Input((NUM_INPUTS,)), *hidden, classifier])
    return ITDMModel(network, feature_layer, **arguments)


def train(feature_layer=ONE, partner="stream", optimizer=None, **arguments):
    """A history with a value for each step, the variables before and after, and the model."""
    itdm = model(feature_layer, partner=partner, **arguments)
    itdm.compile(optimizer or keras.optimizers.SGD(LEARNING_RATE), "sparse_categorical_crossentropy")
    before = [keras.ops.convert_to_numpy(variable) for variable in itdm.trainable_variables]
    steps = (pair if partner == "stream" else pair[0] for pair in batches())
    history = itdm.fit(steps, steps_per_epoch=1, epochs=NUM_STEPS, verbose=0).history
    return history, before, [keras.ops.convert_to_numpy(variable) for variable in itdm.trainable_variables], itdm


class KnownByHand:
    """What is known of the loss's gradient at the features of a layer."""

    def __init__(self):
        self.squares, self.recent = [], []

    def bound(self, m):
        """κ · G, for m samples; 0 at first."""
        if not self.squares:
            return 0.0
        t = len(self.squares)
        # v ← (1 - a) v + a n² with a = 4 / (t + 3): weights that grow with the cube of the step's number
        parts = [4 / (s + 3) * np.prod([1 - 4 / (r + 3) for r in range(s + 1, t + 1)]) for s in range(1, t + 1)]
        assert sum(parts) == pytest.approx(1)
        return KAPPA * (1 - self.recent[-1] / max(self.recent)) ** 2 * np.sqrt(np.dot(parts, self.squares) / m)

    def note(self, gradient):
        n = np.sqrt(len(gradient)) * np.linalg.norm(gradient)
        self.squares.append(n**2)
        self.recent.append(0.9 * self.recent[-1] + 0.1 * n if self.recent else n)


class ByHand:
    """The same training in NumPy.

    Attributes:
        weights: w of each step; of several layers, the mean.
        matches: Match of each step.
        variables: Kernels and biases.
        shares: w · (‖∂Match/∂H1‖ + ‖∂Match/∂H2‖) over κ · G of each step but the first, at each layer.
    """

    def __init__(self, variables, partner, match_weight, parts=(1.0,)):
        self.variables = [variable.astype("float64") for variable in variables]
        self.weights, self.matches, self.shares = [], [], []
        known = [KnownByHand() for _ in parts]
        for (x1, y1), (x2, y2) in batches():
            *hidden, classifier, offset = self.variables
            m, both = len(x1), [[x1], [x2]]
            for kernel, bias in zip(hidden[::2], hidden[1::2], strict=True):
                for h in both:
                    h.append(np.tanh(h[-1] @ kernel + bias))
            logits = both[0][-1] @ classifier + offset
            probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
            from_loss = (probabilities - np.eye(NUM_CLASSES)[y1]) / m

            pulls, weights, matches = [], [], []
            for h1, h2, layer in zip(*(h[1:] for h in both), known, strict=True):
                match, gradients = self._match(partner, h1, y1, h2, y2)
                norm, bound = sum(np.linalg.norm(gradient) for gradient in gradients), layer.bound(m)
                weights.append(min(match_weight, bound / norm))
                matches.append(match)
                pulls.append([weights[-1] * gradient for gradient in gradients])
                if bound:
                    self.shares.append(weights[-1] * norm / bound)
            self.weights.append(np.dot(parts, weights))
            self.matches.append(np.dot(parts, matches))

            steps = [both[0][-1].T @ from_loss, from_loss.sum(axis=0)]
            arriving = [from_loss @ classifier.T, np.zeros_like(both[1][-1])]
            for i in reversed(range(len(parts))):
                known[i].note(arriving[0])
                layer_steps = [0.0, 0.0]
                for s, (h, pull) in enumerate(zip(both, pulls[i], strict=False)):
                    before_tanh = (arriving[s] + parts[i] * pull) * (1 - h[i + 1] ** 2)
                    layer_steps[0] += h[i].T @ before_tanh
                    layer_steps[1] += before_tanh.sum(axis=0)
                    arriving[s] = before_tanh @ hidden[2 * i].T
                steps = layer_steps + steps
            self.variables = [v - LEARNING_RATE * step for v, step in zip(self.variables, steps, strict=True)]

    @staticmethod
    def _match(partner, h1, y1, h2, y2):
        """Match, and its gradients in the features of S1 and, with `partner="stream"`, of S2."""
        if partner == "stream":
            halves = h1, y1, h2, y2
        else:
            first, second = dealt(y1)
            halves = h1[first], y1[first], h1[second], y1[second]
        gradients = reference.class_conditional_gradients(*halves, NUM_CLASSES)
        if partner == "split":
            whole = np.zeros_like(h1)
            whole[first], whole[second] = gradients
            gradients = (whole,)
        return reference.class_conditional(*halves, NUM_CLASSES), gradients


@pytest.mark.parametrize("partner", ["stream", "split"])
@pytest.mark.parametrize(
    ("feature_layer", "parts", "match_weight"), [(ONE, [1.0], 100.0), (ONE, [1.0], 1e-4), (TWO, [0.25, 0.75], 100.0)]
)
def test_steps_are_those_by_hand(partner, feature_layer, parts, match_weight):
    history, before, after, _ = train(feature_layer, partner, max_share=KAPPA, match_weight=match_weight)
    by_hand = ByHand(before, partner, match_weight, parts)
    np.testing.assert_allclose(history["match_weight"], by_hand.weights, rtol=1e-3)
    np.testing.assert_allclose(history["match_loss"], by_hand.matches, rtol=1e-4)
    for variable, expected in zip(after, by_hand.variables, strict=True):
        np.testing.assert_allclose(variable, expected, atol=1e-5)
    assert history["match_weight"][0] == 0
    assert max(by_hand.shares) <= 1 + 1e-12
    reached = np.isclose(by_hand.shares, 1)
    assert reached.all() if match_weight == 100.0 else not reached.all()


def test_where_the_bound_is_not_reached_the_weight_is_that_of_the_paper():
    """λ to the last bit, and the training that of a constant λ to rounding."""
    trained = {}
    for max_share in (KAPPA, None):
        itdm = model(max_share=max_share, match_weight=0.3)
        itdm.compile(keras.optimizers.SGD(LEARNING_RATE), "sparse_categorical_crossentropy")
        if max_share is not None:
            bound_of(itdm).assign([1e6, 1e12, 1.0, 1e9])
        history = itdm.fit((pair for pair in batches()), steps_per_epoch=1, epochs=NUM_STEPS, verbose=0).history
        trained[max_share] = history, itdm.trainable_variables
    assert trained[KAPPA][0]["match_weight"] == trained[None][0]["match_weight"] == NUM_STEPS * [float(np.float32(0.3))]
    np.testing.assert_allclose(trained[KAPPA][0]["loss"], trained[None][0]["loss"], rtol=1e-5)
    for one, other in zip(trained[KAPPA][1], trained[None][1], strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), atol=1e-5)


def test_a_scaled_loss_is_bounded_as_one_that_is_not():
    options = {"max_share": KAPPA, "match_weight": 100.0}
    plain, _, after, _ = train(**options)
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(LEARNING_RATE), initial_scale=2.0**10)
    scaled, _, after_scaled, _ = train(optimizer=optimizer, **options)
    np.testing.assert_allclose(scaled["match_weight"], plain["match_weight"], rtol=1e-4)
    for one, other in zip(after, after_scaled, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_a_step_that_is_not_finite_is_not_remembered():
    """A loss scale that is too large is found out by its first steps."""
    itdm = model(match_weight=100.0)
    itdm.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    ((x, y), _), *rest = batches()
    broken = x.copy()
    broken[0] = np.inf
    steps = (step for step in [((x, y), (x[:9], y[:9])), ((broken, y), (x[:9], y[:9])), *rest])
    known = []
    note = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: known.append(keras.ops.convert_to_numpy(bound_of(itdm)))
    )
    itdm.fit(steps, steps_per_epoch=1, epochs=2, callbacks=[note], verbose=0)
    assert known[0][0] == 1
    np.testing.assert_array_equal(known[0], known[1])


def bound_of(itdm):
    return next(variable for variable in itdm.non_trainable_variables if variable.name == "loss_gradient")


@pytest.mark.parametrize("how", ["steps_per_execution", "run_eagerly", "gradient accumulation"])
def test_however_steps_are_run_they_are_the_same(how):
    arguments = {"max_share": KAPPA, "match_weight": 100.0}
    if how == "steps_per_execution" and keras.backend.backend() == "torch":
        pytest.skip("Keras runs one step at a time on PyTorch")
    itdm = {}
    for name in ("plainly", how):
        optimizer = keras.optimizers.SGD(0.5, gradient_accumulation_steps=2 if "accumulation" in how else None)
        itdm[name] = model(**arguments)
        options = {"jit_compile": False} if keras.backend.backend() == "torch" else {}
        if name == how:
            options |= {"steps_per_execution": {"steps_per_execution": 2}, "run_eagerly": {"run_eagerly": True}}.get(
                how, {}
            )
        itdm[name].compile(optimizer, "sparse_categorical_crossentropy", **options)
        itdm[name].fit((pair for pair in batches()), steps_per_epoch=NUM_STEPS, epochs=1, verbose=0)
    for one, other in zip(itdm["plainly"].weights, itdm[how].weights, strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=1e-4, atol=1e-6, err_msg=one.path)


def test_what_is_known_is_saved(tmp_path):
    _, _, _, itdm = train(max_share=KAPPA)
    itdm.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.max_share == KAPPA
    np.testing.assert_array_equal(bound_of(loaded).numpy(), bound_of(itdm).numpy())
    assert bound_of(loaded).numpy()[0] == NUM_STEPS


def test_features_that_nothing_trains_are_matched_with():
    itdm = model(max_share=KAPPA)
    itdm.base_model.get_layer("features").trainable = False
    itdm.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    history = itdm.fit((pair for pair in batches()), steps_per_epoch=1, epochs=NUM_STEPS, verbose=0).history
    assert np.isfinite(history["loss"]).all()
