import numpy as np
import pytest

from experiments.study import expected_calibration_error


def test_calibration_error_is_the_gap_between_confidence_and_accuracy():
    confidence = np.array([0.9, 0.9, 0.9, 0.9, 0.62, 0.62])
    probabilities = np.stack([confidence, 1 - confidence], axis=1)
    labels = np.array([0, 0, 0, 1, 1, 0])
    assert expected_calibration_error(probabilities, labels) == pytest.approx((4 * 0.15 + 2 * 0.12) / 6)


def test_gaps_of_either_sign_do_not_cancel_between_bins_but_do_within():
    probabilities = np.array([[0.61, 0.39], [0.61, 0.39], [0.99, 0.01], [0.99, 0.01]])
    assert expected_calibration_error(probabilities, np.array([0, 0, 0, 1])) == pytest.approx((0.39 + 0.49) / 2)
    assert expected_calibration_error(probabilities, np.array([0, 0, 0, 1]), bins=1) == pytest.approx(0.05)


def test_certainty_falls_into_the_last_bin():
    assert expected_calibration_error(np.eye(3), np.arange(3)) == 0
