import keras
import numpy as np
import pytest

from keras_itdm import ITDMModel
from keras_itdm.callbacks import MatchWeightScheduler
from tests.networks import compiled, convolutional, data


def fit(callback, epochs=4, **options):
    model = compiled(ITDMModel(convolutional(), "features", match_weight=0.4, max_share=None), **options)
    x, y = data(80)
    seen = []
    spy = keras.callbacks.LambdaCallback(on_train_batch_begin=lambda batch, logs: seen.append(model.match_weight))
    history = model.fit(x, y, batch_size=20, epochs=epochs, verbose=0, callbacks=[callback, spy]).history
    return history, seen, model


def test_by_epoch():
    history, _, _ = fit(MatchWeightScheduler(lambda epoch, match_weight: match_weight / 2 if epoch else 0.8))
    assert history["match_weight"] == pytest.approx([0.8, 0.4, 0.2, 0.1])


def test_by_step_from_a_learning_rate_schedule():
    schedule = keras.optimizers.schedules.PolynomialDecay(1.6, decay_steps=16, end_learning_rate=0.0)
    history, seen, _ = fit(MatchWeightScheduler(schedule))
    assert seen == pytest.approx([1.6 - 0.1 * step for step in range(16)], abs=1e-6)
    assert history["match_weight"] == pytest.approx([1.45, 1.05, 0.65, 0.25])  # mean over the four steps of an epoch


def test_by_step_goes_on_where_an_earlier_fit_stopped():
    callback = MatchWeightScheduler(keras.optimizers.schedules.PolynomialDecay(1.6, 16, 0.0))
    _, _, model = fit(callback, epochs=1)
    x, y = data(80)
    history = model.fit(x, y, batch_size=20, verbose=0, callbacks=[callback]).history
    assert history["match_weight"] == pytest.approx([1.05])


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="Keras has no steps_per_execution on PyTorch")
def test_by_step_with_steps_per_execution():
    schedule = keras.optimizers.schedules.PolynomialDecay(1.6, 16, 0.0)
    _, seen, _ = fit(MatchWeightScheduler(schedule), epochs=2, steps_per_execution=2)
    assert seen == pytest.approx([1.6, 1.4, 1.2, 1.0], abs=1e-6)


def test_verbose(capsys):
    fit(MatchWeightScheduler(lambda epoch, match_weight: 0.3, verbose=1), epochs=1)
    assert "Epoch 1: MatchWeightScheduler sets match_weight to 0.3." in capsys.readouterr().out


@pytest.mark.parametrize("value", [-0.1, np.nan, np.inf])
def test_a_schedule_that_gives_no_weight_stops_training(value):
    with pytest.raises(ValueError, match="`match_weight` should be a finite number, at least 0"):
        fit(MatchWeightScheduler(lambda epoch, match_weight: value))


def test_a_plain_model_is_refused():
    model = compiled(convolutional())
    with pytest.raises(TypeError, match="sets λ of an ITDMModel"):
        model.fit(*data(), verbose=0, callbacks=[MatchWeightScheduler(lambda epoch, match_weight: 0.3)])


@keras.saving.register_keras_serializable(package="keras_itdm_tests")
def halve(epoch, match_weight):
    return match_weight / 2


@pytest.mark.parametrize("schedule", [halve, keras.optimizers.schedules.CosineDecay(0.8, 100)])
def test_serialization(schedule):
    config = keras.saving.serialize_keras_object(MatchWeightScheduler(schedule, verbose=1))
    again = keras.saving.deserialize_keras_object(config, safe_mode=True)
    assert isinstance(again, MatchWeightScheduler) and again.verbose == 1
    assert float(again.schedule(4, 0.5) if schedule is halve else again.schedule(4)) == pytest.approx(
        float(schedule(4, 0.5) if schedule is halve else schedule(4))
    )


def test_a_learning_rate_schedule_by_epoch():
    schedule = keras.optimizers.schedules.PolynomialDecay(1.6, decay_steps=4, end_learning_rate=0.0)
    callback = MatchWeightScheduler(schedule, by="epoch")
    assert MatchWeightScheduler.from_config(callback.get_config()).by == "epoch"
    history, seen, _ = fit(callback, epochs=3)
    assert seen == pytest.approx([1.6] * 4 + [1.2] * 4 + [0.8] * 4)
    assert history["match_weight"] == pytest.approx([1.6, 1.2, 0.8])
    with pytest.raises(ValueError, match='`by` should be "step" or "epoch"'):
        MatchWeightScheduler(schedule, by="hour")
