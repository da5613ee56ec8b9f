import numpy as np
import pytest

from experiments.study import expected_calibration_error, tune


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


@pytest.mark.parametrize(
    "values, best, asked",
    [
        ([9, 9, 3, 1, 2, 0, 0], 3, [2, 3, 4]),
        ([9, 9, 3, 2, 1, 2, 0], 4, [2, 3, 4, 5]),
        ([9, 9, 4, 3, 2, 1, 0], 6, [2, 3, 4, 5, 6]),
        ([9, 0, 1, 3, 2, 1, 0], 1, [2, 3, 4, 1, 0]),
        ([9, 9, 3, np.nan, 4, 0, 0], 2, [2, 3, 4, 1]),
        ([2], 0, [0]),
    ],
    ids=str,
)
def test_values_are_tried_until_the_best_is_not_at_an_edge(values, best, asked):
    seen = []
    chosen, tried = tune(range(len(values)), lambda i: seen.append(i) or values[i])
    assert (chosen, seen) == (best, asked)
    assert [setting for setting, _ in tried] == sorted(asked) and all(value is values[i] for i, value in tried)
