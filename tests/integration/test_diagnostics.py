"""The callbacks that look at features, in `fit` beside Keras' own."""

import csv

import keras
import numpy as np
import pytest

from keras_itdm import ITDMModel, two_sample_test
from keras_itdm.callbacks import FeatureDiscrepancy, FeatureProjection
from tests.networks import Subclassed, compiled, convolutional, data

TRAIN, VALIDATION = data(48), data(40, seed=1)
TRAIN_X, TRAIN_Y = TRAIN


@keras.saving.register_keras_serializable(package="keras_itdm_tests")
class AlwaysDropout(keras.layers.Dropout):
    """Dropout in evaluation too: its seed generator moves on at each forward pass."""

    def call(self, inputs, training=None):
        return super().call(inputs, training=True)


def events(folder):
    """Scalars and images in TensorBoard's files: dictionaries by tag of values by step."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util import tensor_util

    accumulator = EventAccumulator(str(folder), size_guidance={"tensors": 0}).Reload()
    return {
        tag: {event.step: tensor_util.make_ndarray(event.tensor_proto) for event in accumulator.Tensors(tag)}
        for tag in accumulator.Tags()["tensors"]
    }


def test_what_it_logs_is_a_metric_to_other_callbacks(tmp_path):
    keys = ["feature_mmd", "feature_mmd_p"] + [f"feature_mmd_class_{k}{end}" for k in range(3) for end in ("", "_p")]
    model = compiled(ITDMModel(convolutional(), "features", match_weight=0.5))
    stopping = keras.callbacks.EarlyStopping(monitor="feature_mmd", mode="min", min_delta=9.0, patience=1)
    callbacks = [
        FeatureDiscrepancy(TRAIN, VALIDATION, by_class=True, permutations=19),
        stopping,
        keras.callbacks.ReduceLROnPlateau(monitor="feature_mmd", mode="min", min_delta=9.0, patience=1, factor=0.5),
        keras.callbacks.CSVLogger(str(tmp_path / "log.csv")),
        keras.callbacks.TensorBoard(tmp_path / "logs"),
        FeatureProjection(TRAIN, VALIDATION, tmp_path, method="pca", every=2, log_dir=tmp_path / "logs"),
    ]
    history = model.fit(*TRAIN, batch_size=16, epochs=9, verbose=0, callbacks=callbacks).history
    assert stopping.stopped_epoch == 1  # nothing improves by so much
    assert history["learning_rate"] == pytest.approx([0.1, 0.1])
    assert float(model.optimizer.learning_rate) == pytest.approx(0.05)
    for key in keys:
        assert len(history[key]) == 2 and np.isfinite(history[key]).all()
    assert np.mean([history[f"feature_mmd_class_{k}"] for k in range(3)], axis=0) == pytest.approx(
        history["feature_mmd"]
    )
    with open(tmp_path / "log.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    scalars = events(tmp_path / "logs" / "train")
    for key in keys:
        assert [float(row[key]) for row in rows] == pytest.approx(history[key])
        written = [float(value) for value in scalars[f"epoch_{key}"].values()]
        assert written == pytest.approx(history[key], rel=1e-6)
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["epoch_0001.png", "epoch_0002.png"]
    images = events(tmp_path / "logs" / "features")["features"]
    assert sorted(images) == [0, 1]
    width, height, encoded = images[0][:3]
    assert (width, height, encoded[1:4]) == (b"768", b"576", b"PNG")


def test_the_value_is_that_of_features_in_evaluation_mode():
    same_number = VALIDATION[0], VALIDATION[1]
    train = TRAIN_X[:40], TRAIN_Y[:40]
    model = compiled(convolutional())
    joint = FeatureDiscrepancy(train[0], same_number[0], "features", permutations=99)
    by_class = FeatureDiscrepancy(
        train, same_number, "features", by_class=True, permutations=0, unbiased=True, name="match"
    )
    history = model.fit(*TRAIN, batch_size=16, epochs=2, verbose=0, callbacks=[joint, by_class]).history
    assert "match_p" not in history
    reader = keras.Model(model.inputs, model.get_layer("features").output)
    x, y = (reader.predict(part, verbose=0) for part in (train[0], same_number[0]))
    expected = two_sample_test(x, y, permutations=999, seed=1)
    assert history["feature_mmd"][-1] == pytest.approx(expected.statistic, rel=1e-4)
    assert history["feature_mmd_p"][-1] == pytest.approx(expected.p_value, abs=0.2)
    expected = two_sample_test(x, y, train[1], same_number[1], permutations=1, unbiased=True)
    assert history["match"][-1] == pytest.approx(expected.statistic, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("wrapped", [False, True])
def test_training_is_not_changed(wrapped, tmp_path):
    def train(watched):
        keras.utils.set_random_seed(3)
        model = keras.Sequential(
            [
                keras.Input((6, 6, 1)),
                keras.layers.Flatten(),
                AlwaysDropout(0.2),
                keras.layers.Dense(8, activity_regularizer="l2", name="features"),
                keras.layers.BatchNormalization(),
                keras.layers.Dropout(0.3),
                keras.layers.Dense(3, activation="softmax"),
            ]
        )
        model = compiled(ITDMModel(model, "features") if wrapped else model)
        callbacks = [
            FeatureDiscrepancy(TRAIN, VALIDATION, "features", permutations=5, by_class=True),
            FeatureProjection(TRAIN, VALIDATION, tmp_path, "features", method="pca", every=1),
        ]
        options = {"validation_data": VALIDATION, "batch_size": 16, "epochs": 2, "verbose": 0}
        history = model.fit(*TRAIN, callbacks=callbacks if watched else None, **options).history
        return [keras.ops.convert_to_numpy(v) for v in model.variables + model.optimizer.variables], history

    (plain, plain_history), (watched, history) = train(False), train(True)
    assert all(np.array_equal(a, b) for a, b in zip(plain, watched, strict=True))
    assert all(history[key] == values for key, values in plain_history.items())


def test_a_subclassed_and_a_nested_model_with_streams_of_data():
    import tensorflow as tf

    class Batches(keras.utils.PyDataset):
        num_batches = 3

        def __getitem__(self, index):
            part = slice(16 * index, 16 * (index + 1))
            return TRAIN_X[part], TRAIN_Y[part]

    dataset = tf.data.Dataset.from_tensor_slices(VALIDATION).batch(7)
    body = convolutional()
    body = keras.Model(body.inputs, body.get_layer("features").output, name="body")
    nested = keras.Sequential([keras.Input((6, 6, 1)), body, keras.layers.Dense(3, activation="softmax")])
    for model, layer in ((Subclassed(), "features"), (nested, "body/features")):
        discrepancy = FeatureDiscrepancy(Batches(), dataset, layer, max_samples=30, permutations=9)
        history = compiled(model).fit(*TRAIN, batch_size=24, epochs=1, verbose=0, callbacks=[discrepancy]).history
        assert 0 < history["feature_mmd"][0] < 1


def test_every_so_many_epochs(tmp_path):
    log = tmp_path / "log.csv"
    model = compiled(keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(3, "softmax", name="features")]))
    discrepancy = FeatureDiscrepancy(TRAIN, VALIDATION, "features", permutations=0, every=2)
    projection = FeatureProjection(TRAIN, VALIDATION, tmp_path, "features", every=3, method="tsne", max_samples=20)
    callbacks = [discrepancy, projection, keras.callbacks.CSVLogger(str(log))]
    history = model.fit(*TRAIN, epochs=6, initial_epoch=1, verbose=0, callbacks=callbacks).history
    assert len(history["feature_mmd"]) == 3
    with open(log, encoding="utf-8") as file:
        assert [row["feature_mmd"] == "NA" for row in csv.DictReader(file)] == [False, True, False, True, False]
    # The first, the third after it, and the last.
    assert sorted(path.stem for path in tmp_path.glob("*.png")) == ["epoch_0002", "epoch_0005", "epoch_0006"]


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((TRAIN, VALIDATION), {}, ValueError, "Name the layer whose output is looked at"),
        ((TRAIN, VALIDATION, "feature"), {}, ValueError, "has no layer 'feature'.*Did you mean 'features'"),
        ((TRAIN_X, VALIDATION, "features"), {"by_class": True}, ValueError, "needs labels: train_data=.x, y."),
        ((TRAIN, (VALIDATION[0][:0], VALIDATION[1][:0]), "features"), {}, ValueError, "hold at least one sample"),
        (
            ((TRAIN_X, TRAIN_Y[:9]), VALIDATION, "features"),
            {},
            ValueError,
            "`train_data` should be batched, with as many",
        ),
        ((3, VALIDATION, "features"), {}, TypeError, "`train_data` should be arrays or a dataset. Received: 3"),
        (
            ((TRAIN_X, 0 * TRAIN_Y), (VALIDATION[0], 0 * VALIDATION[1] + 1), "features"),
            {"by_class": True},
            ValueError,
            "should have a class in common",
        ),
    ],
)
def test_what_is_wrong_is_told_before_training(arguments, options, error, message):
    model = compiled(
        keras.Sequential([keras.Input((6, 6, 1)), keras.layers.Flatten(), keras.layers.Dense(3, name="features")])
    )
    with pytest.raises(error, match=message):
        model.fit(*TRAIN, verbose=0, callbacks=[FeatureDiscrepancy(*arguments, **options)])
    assert int(model.optimizer.iterations) == 0
