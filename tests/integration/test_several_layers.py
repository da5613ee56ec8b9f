"""Several feature layers, with a weight each. Their steps by hand: `test_bounded_matching.py`."""

import contextlib

import keras
import numpy as np
import pytest
from keras import layers

from keras_itdm import ITDMModel
from keras_itdm.callbacks import FeatureDiscrepancy
from tests import reference
from tests.networks import NUM_CLASSES, Subclassed, compiled, convolutional, data
from tests.test_model import dealt

X, Y = data(32)  # two equal batches: one shape to compile
JIT = keras.backend.backend() == "jax"  # elsewhere compiling takes longer than what is trained here


def fitted(model, **options):
    return (
        compiled(model, jit_compile=JIT).fit(X, Y, **{"batch_size": 16, "epochs": 2, "verbose": 0, **options}).history
    )


def values_of(model):
    return [keras.ops.convert_to_numpy(variable) for variable in model.variables]


def assert_equal(one, other):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("feature_layer", "weights", "partner"),
    [(("re_lu", -3), [0.5, 0.5], "stream"), ({"features": 6, 2: 2.0}, [0.25, 0.75], "split")],
    ids=["tuple", "dict"],
)
def test_match_is_the_weighted_mean(feature_layer, weights, partner):
    """What `fit` logs, against NumPy, by class: images of features beside vectors."""
    network = convolutional()
    network.layers[2].name = "re_lu"
    (x1, y1), (x2, y2) = data(24), data(20, seed=1)
    halves = (x1, y1, x2, y2)
    if partner == "split":
        first, second = dealt(y1)
        halves = x1[first], y1[first], x1[second], y1[second]
    for layer in network.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.trainable = False  # normalizes by moving averages, whatever else is in the batch

    def match(name):
        below = keras.Model(network.inputs, network.get_layer(name).output)
        h1, h2 = (keras.ops.convert_to_numpy(below(x)).reshape(len(x), -1) for x in halves[::2])
        return reference.class_conditional(h1, halves[1], h2, halves[3], NUM_CLASSES)

    expected = np.dot(weights, [match("re_lu"), match("features")])
    itdm = compiled(ITDMModel(network, feature_layer, partner=partner, max_share=None), jit_compile=JIT)
    batch = ((x1, y1), (x2, y2)) if partner == "stream" else (x1, y1)
    history = itdm.fit((batch for _ in range(2)), steps_per_epoch=1, epochs=1, verbose=0).history
    assert history["match_loss"][0] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("partner", "max_share"), [("stream", 1.0), ("split", None)])
def test_a_list_of_one_is_that_one(partner, max_share):
    trained = []
    for feature_layer in ("features", ["features"]):
        model = ITDMModel(convolutional(), feature_layer, partner=partner, max_share=max_share)
        history = fitted(model)
        trained.append([*history.values(), *values_of(model)])
    assert_equal(*trained)


def test_a_weight_of_zero_is_plain_training():
    x_and_y = {"shuffle": False}
    plain = convolutional()
    expected = fitted(plain, **x_and_y)
    itdm = ITDMModel(convolutional(), ["features", "classifier"], match_weight=0)
    history = fitted(itdm, **x_and_y)
    assert history["loss"] == expected["loss"]
    assert_equal([w.numpy() for w in plain.weights], [w.numpy() for w in itdm.base_model.weights])


@keras.saving.register_keras_serializable(package="keras_itdm_tests")
class TwoUnnamed(keras.Model):
    """Its layers have automatic names, which are others in each instance."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.flatten = layers.Flatten()
        self.below = layers.Dense(8, activation="relu")
        self.hidden = layers.Dense(6, activation="relu")
        self.classifier = layers.Dense(NUM_CLASSES, activation="softmax")

    def call(self, inputs):
        return self.classifier(self.hidden(self.below(self.flatten(inputs))))


@pytest.mark.parametrize(("form", "max_share"), [("list", 1.0), ("dict", None), ("layers", 1.0)])
def test_saved_and_loaded_it_goes_on_with_the_same_layers(form, max_share, tmp_path):
    model = TwoUnnamed()
    given = {
        "list": [-3, -2],
        "dict": {model.hidden.name: 3.0, model.below.name: 1},
        "layers": {model.hidden: 3, model.below: 1.0},
    }[form]
    itdm = ITDMModel(model, given, "joint", max_share=max_share)
    itdm.compile("sgd", "sparse_categorical_crossentropy", jit_compile=JIT)
    pair = (X[:16], Y[:16]), (X[16:], Y[16:])
    itdm.train_on_batch(*pair)
    itdm.save(tmp_path / "itdm.keras")
    loaded = keras.saving.load_model(tmp_path / "itdm.keras")
    hidden, below = loaded.base_model.hidden.name, loaded.base_model.below.name
    assert hidden != model.hidden.name
    assert loaded.feature_layer == ([below, hidden] if form == "list" else {hidden: 3.0, below: 1.0})
    assert_equal(values_of(itdm), values_of(loaded))
    logs = [one.train_on_batch(*pair, return_dict=True) for one in (itdm, loaded)]
    assert logs[0] == logs[1]


def test_an_unbuilt_model_and_its_layers():
    model = Subclassed()
    itdm = ITDMModel(model, {model.flatten: 1, model.hidden: 2}, "joint")
    assert fitted(itdm)["match_loss"][0] > 0.01
    assert len(itdm.layers) == len(model.layers)


def test_a_layer_inside_another():
    """Both are read in one pass, and under `keras.RematScope` as without."""

    def trained(scope):
        keras.utils.set_random_seed(1)
        with scope:
            below, above = layers.Dense(8, "tanh", name="below"), layers.Dense(6, "tanh", name="above")
            inner = keras.Sequential([keras.Input((36,)), below, above], name="inner")
            network = keras.Sequential([keras.Input((6, 6, 1)), layers.Flatten(), inner, layers.Dense(3, "softmax")])
            itdm = ITDMModel(network, ["inner/below", "inner"], "joint", match_weight=2.0)
            eagerly = keras.backend.backend() == "tensorflow"  # Keras' own models cannot be in a graph there
            itdm.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", run_eagerly=eagerly)
            return itdm.fit(X, Y, batch_size=16, epochs=2, shuffle=False, verbose=0).history

    expected, history = trained(contextlib.nullcontext()), trained(keras.RematScope())
    for key in ("loss", "match_loss", "match_weight"):
        assert history[key] == pytest.approx(expected[key], rel=1e-3)
    assert expected["match_weight"][-1] > 0


def test_callbacks_look_at_the_last_layer():
    itdm = ITDMModel(convolutional(), {"classifier": 2.0, "features": 1.0}, "joint")
    by_default = FeatureDiscrepancy((X, Y), data(seed=1), permutations=0)
    named = FeatureDiscrepancy((X, Y), data(seed=1), "features", permutations=0, name="named")
    other = FeatureDiscrepancy((X, Y), data(seed=1), "classifier", permutations=0, name="other")
    history = fitted(itdm, callbacks=[by_default, named, other])
    assert history["feature_mmd"] == history["named"] != history["other"]


def test_other_layers_are_set_as_many_as_before():
    model = convolutional()
    itdm = ITDMModel(model, ["features", "classifier"], "joint")
    itdm.feature_layer = {-3: 1, model.layers[0]: 3}
    assert itdm.feature_layer == {"features": 1.0, model.layers[0].name: 3.0}
    assert len(itdm.layers) == len(model.layers) and len(itdm.weights) == len(model.weights) + 3
    assert fitted(itdm)["match_loss"][0] > 0.01
