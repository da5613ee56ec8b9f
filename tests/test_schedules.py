import keras
import numpy as np
import pytest

from keras_itdm.schedules import DANNRamp


def test_the_ramp_is_the_papers():
    steps = np.array([0, 1, 137, 500, 999, 1000, 1001, 10**6])
    p = np.minimum(steps / 1000, 1.0)
    ramp = DANNRamp(0.8, ramp_steps=1000)
    assert [float(ramp(step)) for step in steps] == pytest.approx(0.8 * (2 / (1 + np.exp(-10 * p)) - 1), abs=1e-6)
    steeper = DANNRamp(1, ramp_steps=1000, steepness=20)
    assert float(steeper(50)) == pytest.approx(2 / (1 + np.exp(-1)) - 1, rel=1e-5)


def test_it_is_serialized():
    ramp = DANNRamp(0.7, ramp_steps=30, steepness=5.0)
    config = keras.saving.serialize_keras_object(ramp)
    again = keras.saving.deserialize_keras_object(config, safe_mode=True)
    assert type(again) is DANNRamp and again.get_config() == ramp.get_config()
    assert float(again(7)) == float(ramp(7))


def test_keras_piecewise_schedule_goes_on_one_step_beyond_each_boundary():
    """docs/schedules.md tells users so."""
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([3], [0.2, 0.8])
    assert [float(schedule(step)) for step in range(6)] == pytest.approx([0.2] * 4 + [0.8] * 2)
