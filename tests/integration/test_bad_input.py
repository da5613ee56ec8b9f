"""Every row of docs/bad_input.md: an error that says what was expected and what came, or the meaning stated there."""

import builtins
import pathlib
import re

import keras
import numpy as np
import pytest
from keras import layers

from keras_itdm import ITDMModel, mmd, two_sample_test, zip_batches
from keras_itdm.callbacks import FeatureDiscrepancy, FeatureProjection, MatchWeightScheduler
from keras_itdm.kernels import GaussianMixture
from keras_itdm.layers import SplitBatchMatching
from keras_itdm.losses import ClassConditionalMMD, JointMMD
from keras_itdm.schedules import DANNRamp
from tests import reference

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "bad_input.md"
ROWS = {
    (heading, given): happens
    for heading, section in re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    for given, happens in re.findall(r"^\| (?!What one)(.*?) \| (.*) \|$", section, re.M)
}
CASES = {}


def case(heading, *given):
    """Registers what a row of the page does; it takes one test of its own."""

    def register(function):
        for row in given:
            assert (heading, row) not in CASES
            CASES[heading, row] = function
        return function

    return register


@pytest.mark.parametrize("row", ROWS, ids=": ".join)
def test_row(row):
    error = re.match(r'`(\w+Error)`: "(.*)"$', ROWS[row])
    if error is None:
        return CASES[row]()
    with pytest.raises(getattr(builtins, error[1]), match=re.escape(error[2])):
        CASES[row]()


def test_the_page_has_a_row_for_each_case_and_no_others():
    assert set(CASES) == set(ROWS)
    assert PAGE.read_text(encoding="utf-8").count("\n| ") == len(ROWS) + 5  # and five heads of tables


def network(num_classes=3):
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input((4,), name="numbers"),
            layers.Dense(4, name="below"),
            layers.Dense(4, name="features"),
            layers.Dense(num_classes, activation="softmax", name="classifier"),
        ]
    )


def plain():
    model = network()
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


def wrapped(model=None, feature_layer="features", loss="sparse_categorical_crossentropy", **options):
    itdm = ITDMModel(model or network(), feature_layer, **options)
    itdm.compile(keras.optimizers.SGD(0.1), loss)
    return itdm


X = np.random.default_rng(0).normal(size=(16, 4)).astype("float32")
Y = np.arange(16) % 3


def fit(itdm, x=X, y=Y, **options):
    return itdm.fit(x, y, **{"batch_size": 8, "verbose": 0, "shuffle": False, **options}).history


def dataset():
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices((X, Y)).batch(8)


def zipped(change=None, partner=None):
    import tensorflow as tf

    return tf.data.Dataset.zip((dataset(), (partner or dataset()).map(change or (lambda x, y: (x, y)))))


def several_targets(label_fn):
    inputs = keras.Input((4,))
    features = layers.Dense(4, name="features")(inputs)
    outputs = {"label": layers.Dense(3, name="label")(features), "size": layers.Dense(1, name="size")(features)}
    itdm = wrapped(
        keras.Model(inputs, outputs),
        loss={"label": "mse", "size": "mse"},
        matching=ClassConditionalMMD(3),
        label_fn=label_fn,
    )
    fit(itdm, y={"label": np.eye(3)[Y], "size": Y})


class Odd(keras.Model):
    """Calls one layer twice, one that returns several tensors, and one never."""

    def __init__(self):
        super().__init__()
        self.shared = layers.Dense(4, name="shared")
        self.lstm = layers.LSTM(4, return_state=True, name="lstm")
        self.unused = layers.Dense(3, name="unused")
        self.classifier = layers.Dense(3, activation="softmax", name="classifier")

    def call(self, x):
        return self.classifier(self.lstm(keras.ops.reshape(self.shared(self.shared(x)), (-1, 2, 2)))[0])


def with_preprocessor():
    model = network()
    model.preprocessor = layers.Rescaling(0.1)
    ITDMModel(model, "features")


def inner():
    return keras.Sequential([keras.Input((4,)), layers.Dense(4, name="features")], name="inner")


A = {
    "`ITDMModel(model)`: no Keras model": lambda: ITDMModel("model", "features"),
    "`ITDMModel(model)`: an `ITDMModel`": lambda: ITDMModel(ITDMModel(network(), "features"), "features"),
    "`feature_layer`: a name that the model lacks": lambda: ITDMModel(network(), "feature"),
    "`feature_layer`: no name": lambda: ITDMModel(network(), None),
    "`feature_layer`: no name, the model not built": lambda: ITDMModel(Odd(), None),
    "`feature_layer`: an input": lambda: ITDMModel(functional(), "numbers"),
    "`feature_layer`: called twice": lambda: fit(wrapped(Odd(), "shared")),
    "`feature_layer`: of several outputs": lambda: fit(wrapped(Odd(), "lstm")),
    "`feature_layer`: never called": lambda: fit(wrapped(Odd(), "unused")),
    "`feature_layer`: an empty list": lambda: ITDMModel(network(), []),
    "`feature_layer`: a list with a name that the model lacks": lambda: ITDMModel(network(), ["below", "feature"]),
    "`feature_layer`: a list within a list": lambda: ITDMModel(network(), ["below", ["features"]]),
    "`feature_layer`: a set": lambda: ITDMModel(network(), {"features"}),
    "`feature_layer`: a layer twice": lambda: ITDMModel(network(), ["features", "below", -2]),
    "`feature_layer`: a layer twice, the model not built": lambda: ITDMModel(Odd(), ["shared", "shared"]),
    "`feature_layer`: a nested model, and the layer inside that its output comes from": lambda: ITDMModel(
        keras.Sequential([keras.Input((4,)), inner(), layers.Dense(3)]), ["inner", "inner/features"]
    ),
    "`feature_layer`: a weight of 0": lambda: ITDMModel(network(), {"below": 1, "features": 0}),
    "`feature_layer`: a negative weight": lambda: ITDMModel(network(), {"features": -1}),
    "`feature_layer`: a weight of NaN": lambda: ITDMModel(network(), {"features": float("nan")}),
    "`feature_layer`: an infinite weight": lambda: ITDMModel(network(), {"features": float("inf")}),
    "`feature_layer`: a weight that is a string": lambda: ITDMModel(network(), {"features": "1"}),
    "`matching`: an unknown name": lambda: ITDMModel(network(), "features", "marginal"),
    "`matching`: a class": lambda: ITDMModel(network(), "features", JointMMD),
    "`match_weight`: negative": lambda: ITDMModel(network(), "features", match_weight=-1),
    "`match_weight`: NaN": lambda: ITDMModel(network(), "features", match_weight=float("nan")),
    "`match_weight`: infinite": lambda: ITDMModel(network(), "features", match_weight=float("inf")),
    "`match_weight`: infinite in float32": lambda: ITDMModel(network(), "features", match_weight=1e39),
    "`match_weight`: a string": lambda: ITDMModel(network(), "features", match_weight="0.5"),
    "`max_share`: 0": lambda: ITDMModel(network(), "features", max_share=0),
    "`max_share`: negative": lambda: ITDMModel(network(), "features", max_share=-0.5),
    "`max_share`: NaN": lambda: ITDMModel(network(), "features", max_share=float("nan")),
    "`max_share`: infinite": lambda: ITDMModel(network(), "features", max_share=float("inf")),
    "`max_share`: a string": lambda: ITDMModel(network(), "features", max_share="0.5"),
    "`max_share`: a bool": lambda: ITDMModel(network(), "features", max_share=True),
    "`match_weight`: a bool": lambda: ITDMModel(network(), "features", match_weight=True),
    "`partner`: an unknown name": lambda: ITDMModel(network(), "features", partner="both"),
    "`label_fn`: a number that is no index": lambda: ITDMModel(network(), "features", label_fn=0.5),
    "`label_fn`: a bool": lambda: ITDMModel(network(), "features", label_fn=True),
    "`synchronized`: neither True nor False": lambda: ITDMModel(network(), "features", synchronized="no"),
    "`SplitBatchMatching(synchronized)`: neither True nor False": lambda: SplitBatchMatching(synchronized=1),
    "`label_fn`: a class or a layer": lambda: ITDMModel(network(), "features", label_fn=dict),
    "`label_fn`: names no part of the targets": lambda: several_targets("colour"),
    "`label_fn`: none, of several targets": lambda: several_targets(None),
    "`name`: no string": lambda: ITDMModel(network(), "features", name=3),
    "A loss of numbers, matched class by class": lambda: fit(wrapped(loss="mean_squared_error"), y=np.eye(3)[Y]),
    "Targets of several labels at a time, matched class by class": lambda: fit(
        wrapped(loss="binary_crossentropy"), y=1 - np.eye(3)[Y]
    ),
    "Targets that are numbers, matched class by class": lambda: fit(
        wrapped(network(1), loss="binary_crossentropy"), y=Y + 0.5
    ),
    "A model that overrides `train_step`, or another method that is not carried along": lambda: ITDMModel(
        type("Odd", (Odd,), {"train_step": lambda self, data: {}})(), "shared"
    ),
    "A model with a preprocessor of its own": with_preprocessor,
    "`multipliers`: no numbers": lambda: GaussianMixture(4),
    "`multipliers`: not positive": lambda: GaussianMixture((0, 1)),
    "`bandwidth`: not positive": lambda: GaussianMixture(bandwidth=0),
    "`bandwidth`: an array": lambda: GaussianMixture(bandwidth=np.ones(2)),
    "`num_classes`: not positive": lambda: ClassConditionalMMD(0),
    "`num_classes`: no integer": lambda: ClassConditionalMMD(2.5),
    "`num_classes`: a bool": lambda: ClassConditionalMMD(True),
    "`kernel`: no kernel": lambda: JointMMD("gaussian"),
    "`kernel` of `mmd`: no kernel": lambda: mmd(X, X, "gaussian"),
    "`squared`: neither True nor False": lambda: JointMMD(squared="False"),
    "`unbiased`: neither True nor False": lambda: JointMMD(squared=True, unbiased="no"),
    "`unbiased` without `squared`": lambda: JointMMD(unbiased=True),
    "`form`: an unknown name": lambda: JointMMD(form="rows"),
    "`SplitBatchMatching(match_weight)`: a string": lambda: SplitBatchMatching("high"),
    "`SplitBatchMatching(kernel)`: no kernel": lambda: SplitBatchMatching(kernel="gaussian"),
    "`SplitBatchMatching(squared)`: neither True nor False": lambda: SplitBatchMatching(squared="yes"),
    "`schedule`: a number": lambda: MatchWeightScheduler(0.8),
    "`schedule`: a class or a layer": lambda: MatchWeightScheduler(dict),
    "`schedule` read `by`: an unknown word": lambda: MatchWeightScheduler(lambda epoch, weight: 1.0, by="batch"),
    "`DANNRamp(final_value)`: negative": lambda: DANNRamp(-0.1, 10),
    "`DANNRamp(ramp_steps)`: below 1": lambda: DANNRamp(1.0, 0),
    "`DANNRamp(steepness)`: a string": lambda: DANNRamp(1.0, 10, "steep"),
    "A callback of λ, the model no `ITDMModel`": lambda: plain().fit(
        X, Y, verbose=0, callbacks=[MatchWeightScheduler(lambda epoch, weight: 1.0)]
    ),
    "`FeatureDiscrepancy`: a plain model, no `feature_layer`": lambda: plain().fit(
        X, Y, verbose=0, callbacks=[FeatureDiscrepancy(X, X)]
    ),
    "`FeatureDiscrepancy(train_data)`: empty": lambda: fit(wrapped(), callbacks=[FeatureDiscrepancy(X[:0], X)]),
    "`FeatureDiscrepancy(train_data)`: endless": lambda: fit(
        wrapped(), callbacks=[FeatureDiscrepancy(dataset().repeat(), X)]
    ),
    "`FeatureDiscrepancy(by_class)`: data without labels": lambda: fit(
        wrapped(), callbacks=[FeatureDiscrepancy((X, Y), X, by_class=True)]
    ),
    "`FeatureDiscrepancy(by_class)`: neither True nor False": lambda: FeatureDiscrepancy(X, X, by_class=3),
    "`FeatureDiscrepancy(every)`: below 1": lambda: FeatureDiscrepancy(X, X, every=0),
    "`FeatureDiscrepancy(max_samples)`: below 2": lambda: FeatureDiscrepancy(X, X, max_samples=1),
    "`FeatureDiscrepancy(permutations)`: negative": lambda: FeatureDiscrepancy(X, X, permutations=-1),
    "`FeatureDiscrepancy(kernel)`: no kernel": lambda: FeatureDiscrepancy(X, X, kernel="gaussian"),
    "`FeatureProjection(method)`: an unknown name": lambda: FeatureProjection(X, X, "pictures", method="umap"),
    "`FeatureProjection`: no folder": lambda: FeatureProjection(X, X),
    "`two_sample_test(permutations)`: below 1": lambda: two_sample_test(X, X, permutations=0),
    "`two_sample_test(x_labels)`: for one sample alone": lambda: two_sample_test(X, X, x_labels=Y),
    "`two_sample_test(x_labels)`: not as many as samples": lambda: two_sample_test(X, X, Y[:9], Y),
    "`two_sample_test(x_labels)`: no class in common": lambda: two_sample_test(X, X, 0 * Y, 0 * Y + 1),
    "`two_sample_test(kernel)`: no kernel": lambda: two_sample_test(X, X, kernel="gaussian"),
    "`two_sample_test(unbiased)`: a single sample": lambda: two_sample_test(X, X[:1], unbiased=True),
    "`zip_batches(dataset)`: no `tf.data.Dataset`": lambda: zip_batches([1, 2]),
    "`zip_batches(partner)`: no `tf.data.Dataset`": lambda: zip_batches(dataset(), [1, 2]),
    "`zip_batches(seed)`: no integer": lambda: zip_batches(dataset(), seed=1.5),
}
CASES.update({("Arguments", given): function for given, function in A.items()})


@case("Arguments", "`num_classes`, `multipliers`, `bandwidth`, λ: NumPy's numbers")
def _():
    kernel = GaussianMixture((np.float32(2),), bandwidth=np.int64(3))
    loss = ClassConditionalMMD(np.int64(3), kernel)
    assert loss.get_config()["num_classes"] == 3 and kernel.get_config() == {"multipliers": [2.0], "bandwidth": 3}
    assert type(kernel.multipliers[0]) is float and type(kernel.bandwidth) is type(loss.num_classes) is int
    assert ITDMModel(network(), "features", match_weight=np.float32(0.5)).match_weight == 0.5


def functional():
    inputs = keras.Input((4,), name="numbers")
    return keras.Model(inputs, layers.Dense(3, name="classifier")(layers.Dense(4, name="features")(inputs)))


class Endless(keras.utils.PyDataset):
    num_batches = None

    def __getitem__(self, index):
        return X[:8], Y[:8]


D = {
    "Nothing": lambda: fit(wrapped(), None, None),
    "Data without labels, matched class by class": lambda: fit(wrapped(), y=None),
    "A dataset, and `y` beside it": lambda: wrapped().fit(dataset(), Y),
    "Lists of numbers": lambda: fit(wrapped(), X.tolist(), Y.tolist()),
    "Arrays of unequal lengths": lambda: fit(wrapped(), y=Y[:9]),
    "Arrays of length 0": lambda: fit(wrapped(), X[:0], Y[:0]),
    "An empty dataset": lambda: wrapped().fit(dataset().take(0)),
    "A dataset that turns out empty": lambda: wrapped().fit(dataset().filter(lambda x, y: y[0] > 99)),
    "An empty `partner`": lambda: zip_batches(dataset(), dataset().take(0)),
    "A dataset that is not batched": lambda: wrapped().fit(dataset().unbatch()),
    "An endless dataset without `steps_per_epoch`": lambda: wrapped().fit(dataset().repeat()),
    'An endless dataset without `steps_per_epoch`, `partner="split"`': lambda: wrapped(partner="split").fit(
        dataset().repeat()
    ),
    "An endless `PyDataset` without `steps_per_epoch`": lambda: wrapped().fit(Endless()),
    "A generator of one batch": lambda: wrapped().fit(batch for batch in [(X, Y)]),
    "Halves of different dtypes": lambda: wrapped().fit(zipped(lambda x, y: (x, float_(y)))),
    "Halves of different structures": lambda: wrapped().fit(zipped(lambda x, y: (x, y, y))),
    "Halves of different widths": lambda: wrapped().fit(zipped(lambda x, y: (x[:, :3], y))),
}
CASES.update({("Data", given): function for given, function in D.items()})


def float_(values):
    import tensorflow as tf

    return tf.cast(values, "float32")


@case("Data", "Halves of unequal lengths")
def _():
    steps = []
    count = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: steps.append(batch))
    wrapped().fit(zipped(partner=dataset().take(1)), verbose=0, callbacks=[count])
    assert len(steps) == 1
    assert len(list(zip_batches(dataset(), dataset().take(1)))) == 2


@case("Data", "Halves of different batch sizes")
def _():
    itdm = wrapped(matching="joint")
    below, features = (itdm.base_model.get_layer(name) for name in ("below", "features"))
    h = keras.ops.convert_to_numpy(features(below(X)))
    logs = itdm.train_on_batch((X[:8], Y[:8]), (X[8:13], Y[8:13]), return_dict=True)
    assert logs["match_loss"] == pytest.approx(reference.joint(h[:8], h[8:13]), rel=1e-4)


def matched(y, partner=None, num_classes=3):
    return float(ClassConditionalMMD(num_classes)(X[:8], y, X[8:], y if partner is None else partner))


def plainly(y, num_classes=3):
    return pytest.approx(reference.class_conditional(X[:8], y, X[8:], y, num_classes), rel=1e-4)


L = {
    "Labels of rank 3": lambda: matched(Y[:8, None, None]),
    "One-hot of the wrong width": lambda: matched(np.eye(4)[Y[:8]]),
    "Strings": lambda: matched(Y[:8].astype(str)),
    "Strings, in `fit`": lambda: fit(wrapped(), y=Y.astype(str)),
    "Complex numbers": lambda: matched(Y[:8] + 1j),
    "More or fewer than samples": lambda: matched(Y[:5]),
}
CASES.update({("Labels", given): function for given, function in L.items()})


@case("Labels", "More classes than a mini-batch can hold two of")
def _():
    for partner in ("stream", "split"):
        itdm = wrapped(network(20), partner=partner)
        with pytest.warns(UserWarning, match="Of 20 classes, a step will match about") as warned:
            fit(itdm, y=np.arange(16))
            fit(itdm, y=np.arange(16))
        assert sum("Of 20 classes" in str(one.message) for one in warned) == 1


@case("Labels", "Floats that are no whole numbers, NaN, negative ones, and ones from K on")
def _():
    y = np.array([0.5, np.nan, -1.0, 3.0, 0.0, 0.0, 1.0, 2.0], "float32")
    assert matched(y) == plainly(np.array([-1, -1, -1, -1, 0, 0, 1, 2]))


@case("Labels", "Integers of 8 bits, and more classes than they can count")
def _():
    assert matched(Y[:8].astype("int8"), num_classes=200) == plainly(Y[:8], 200)


@case("Labels", "Bools")
def _():
    assert matched(Y[:8] > 0) == plainly((Y[:8] > 0).astype(int))


@case("Labels", "-1 and 1, the compiled loss being a hinge loss")
def _():
    signs = [-1.0, 1.0] * 8
    histories = [fit(wrapped(network(1), loss="hinge"), y=np.array(y))["match_loss"] for y in (signs, [0.0, 1.0] * 8)]
    assert histories[0] == histories[1]


@case("Labels", "One-hot rows of zeros")
def _():
    y = np.eye(3)[Y[:8]]
    y[2] = 0
    assert matched(y) == plainly(np.where(np.arange(8) == 2, -1, Y[:8]))


@case("Labels", "Several ones in a row")
def _():
    y = np.eye(3)[Y[:8]]
    y[:, 2] = 1
    assert matched(y) == plainly(Y[:8])


@case("Labels", 'Targets of rank 3, matched jointly with `partner="split"`')
def _():
    itdm = wrapped(matching="joint", partner="split", loss=lambda y, prediction: keras.ops.mean(prediction))
    h = keras.ops.convert_to_numpy(itdm.base_model.get_layer("features")(itdm.base_model.get_layer("below")(X[:8])))
    logs = itdm.train_on_batch(X[:8], np.ones((8, 2, 8)), return_dict=True)
    assert logs["match_loss"] == pytest.approx(reference.joint(h[0::2], h[1::2]), rel=1e-4)


def joint(change, x=X[:8], partner=X[8:]):
    return float(JointMMD()(change(x), None, change(partner), None))


def of_tensorflow(make):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("a tensor of TensorFlow's")
    import tensorflow as tf

    return make(tf)


@case("Features", "Ragged tensors (TensorFlow)")
def _():
    joint(lambda x: of_tensorflow(lambda tf: tf.ragged.constant([[1.0, 2.0], [3.0]])))


@case("Features", "Sparse tensors (TensorFlow)")
def _():
    assert joint(lambda x: of_tensorflow(lambda tf: tf.sparse.from_dense(x))) == joint(np.asarray)


F = {
    "Complex numbers": lambda: joint(lambda x: x + 1j),
    "Different numbers of features": lambda: joint(np.asarray, partner=X[8:, :3]),
    "No features": lambda: joint(lambda x: x[:, :0]),
    "A scalar": lambda: joint(lambda x: 1.0),
    "An empty sample, to `mmd`": lambda: mmd(X[:0], X[8:]),
}
CASES.update({("Features", given): function for given, function in F.items()})


@case("Features", "Constant ones")
def _():
    ones = np.ones_like(X[:8])
    value, gradients = reference.value_and_gradients(JointMMD(), ones, None, ones, None)
    assert value == 0 and all((g == 0).all() for g in gradients)


@case("Features", "NaN or ±infinity")
def _():
    itdm = wrapped()
    for bad in (np.nan, np.inf, -np.inf):
        itdm.base_model.set_weights(network().get_weights())
        x = X.copy()
        x[3, 0] = bad
        history = fit(itdm, x, epochs=3, callbacks=[keras.callbacks.TerminateOnNaN()])
        assert len(history["loss"]) == 1 and np.isnan([history["loss"][0], history["match_loss"][0]]).all()


@case("Features", "Up to 1e36 in size")
def _():
    assert joint(lambda x: x * np.float32(1e36)) == pytest.approx(reference.joint(X[:8], X[8:]), rel=1e-4)


@case("Features", "Finite, but farther apart than 1e37")
def _():
    assert np.isnan(joint(lambda x: x * np.float32(1e38)))
    assert np.isnan(float(JointMMD()(np.full((8, 4), 3e38, "float32"), None, X[8:], None)))


@case("Features", "float64, integers, bools")
def _():
    for dtype in ("float64", "int32", "bool"):
        changed = (10 * X).astype(dtype).astype("float32")
        expected = reference.joint(changed[:8], changed[8:])
        assert joint(lambda x, dtype=dtype: (10 * x).astype(dtype)) == pytest.approx(expected, rel=1e-4)


@case("Features", "An empty batch, to a loss")
def _():
    assert joint(np.asarray, X[:0]) == joint(np.asarray, X[:0], X[:0]) == 0.0


def changes(itdm, **options):
    """By layer, how far its kernel moves in training; and the history."""
    kernels = {layer.name: layer.kernel for layer in itdm.base_model.layers}
    before = {name: keras.ops.convert_to_numpy(kernel).copy() for name, kernel in kernels.items()}
    history = fit(itdm, **options)
    return {n: np.abs(keras.ops.convert_to_numpy(k) - before[n]).max() for n, k in kernels.items()}, history


def again(itdm):
    itdm.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    return itdm


@case("Changes after wrapping", "The feature layer is frozen")
def _():
    moved = {}
    for weight in (0.0, 5.0):
        itdm = wrapped(match_weight=weight, max_share=None)
        itdm.base_model.get_layer("features").trainable = False
        moved[weight], _ = changes(again(itdm))
        assert moved[weight]["features"] == 0
    assert abs(moved[0.0]["below"] - moved[5.0]["below"]) > 1e-4


@case("Changes after wrapping", "`base_model.trainable = False`")
def _():
    itdm = wrapped()
    itdm.base_model.trainable = False
    moved, history = changes(again(itdm))
    assert not any(moved.values()) and history["match_loss"][0] > 0


@case("Changes after wrapping", "`itdm.trainable = False`, compiled again")
def _():
    itdm = wrapped(max_share=None)
    itdm.trainable = False
    itdm.match_weight = 0.3
    moved, history = changes(again(itdm))
    assert not any(moved.values()) and history["match_weight"] == pytest.approx([0.3])


def replaced(itdm, *new, number=1):
    for _ in range(number):
        itdm.base_model.pop()
    for layer in new:
        itdm.base_model.add(layer)
    return again(itdm)


C = {
    "The feature layer is removed": lambda: fit(replaced(wrapped(), layers.Dense(3), number=2)),
    "The feature layer is renamed": lambda: fit(renamed()),
    "`feature_layer` is set to more layers, or fewer": lambda: setattr(
        wrapped(), "feature_layer", ["below", "features"]
    ),
    "λ is set to NaN in training": lambda: fit(wrapped(), callbacks=[SetToNaN()]),
    "λ is scheduled to be NaN": lambda: fit(wrapped(), callbacks=[MatchWeightScheduler(lambda *_: float("nan"))]),
    "λ is set in a `fit` that began with 0, and no callback that could": lambda: fit_that_sets(0.5),
    "`fit` before `compile`": lambda: fit(ITDMModel(network(), "features")),
}
CASES.update({("Changes after wrapping", given): function for given, function in C.items()})


def renamed():
    itdm = wrapped()
    itdm.base_model.get_layer("features").name = "others"
    return itdm


def fit_that_sets(match_weight):
    itdm, callback = wrapped(match_weight=0), keras.callbacks.TerminateOnNaN()
    callback.on_epoch_begin = lambda epoch, logs=None: setattr(itdm, "match_weight", match_weight)
    return fit(itdm, callbacks=[callback])


class SetToNaN(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        self.model.match_weight = float("nan")


@case("Changes after wrapping", "`feature_layer` is set to another layer")
def _():
    itdm = wrapped(matching="joint")
    itdm.feature_layer = "below"
    h = keras.ops.convert_to_numpy(itdm.base_model.get_layer("below")(X))
    logs = again(itdm).train_on_batch((X[:8], Y[:8]), (X[8:], Y[8:]), return_dict=True)
    assert logs["match_loss"] == pytest.approx(reference.joint(h[:8], h[8:]), rel=1e-4)


@case("Changes after wrapping", "The classifier is replaced by a wider one, compiled again")
def _():
    itdm = replaced(wrapped(), layers.Dense(5, activation="softmax", name="wider"))
    h = keras.ops.convert_to_numpy(itdm.base_model.layers[1](itdm.base_model.layers[0](X)))
    y = np.arange(8) % 5
    logs = itdm.train_on_batch((X[:8], y), (X[8:], y), return_dict=True)
    assert logs["match_loss"] == pytest.approx(reference.class_conditional(h[:8], y, h[8:], y, 5), rel=1e-4)


@case("Changes after wrapping", "`base_model` is compiled")
def _():
    itdm = wrapped()
    itdm.base_model.compile("adam", "mse")
    assert itdm.loss == "sparse_categorical_crossentropy" and fit(itdm)["match_loss"][0] > 0


@case("Changes after wrapping", "Weights are loaded that hold a λ of NaN")
def _():
    itdm = wrapped()
    itdm.load_own_variables({"0": np.float32("nan"), "1": np.zeros(4, "float32")})
