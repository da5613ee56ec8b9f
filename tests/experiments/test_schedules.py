import pathlib
import re

import numpy as np
import pytest

from experiments import schedules

PAGE = pathlib.Path(__file__).parent.parent.parent / "docs" / "schedules.md"


def test_the_page_has_the_code_of_every_schedule_drawn():
    rows = re.findall(r"^\| ([^|]+) \| `(.+)` \|$", PAGE.read_text(encoding="utf-8"), flags=re.M)
    drawn = schedules.schedules(0.8, 100)
    assert [name for name, _ in rows] == list(drawn)
    steps = np.arange(0, 101, 20)
    for name, code in rows:
        documented = eval(code, {**vars(schedules), "λ": 0.8, "steps": 100})
        np.testing.assert_array_equal(schedules.values(documented, steps), schedules.values(drawn[name], steps))


def test_they_are_what_they_are_called():
    steps = [0, 10, 20, 50, 100]
    read = {name: schedules.values(schedule, steps) for name, schedule in schedules.schedules(0.8, 100).items()}
    assert read["constant"] == pytest.approx([0.8] * 5)
    assert read["warm-up"] == pytest.approx([0, 0.4, 0.8, 0.8, 0.8])
    assert read["linear ramp"] == pytest.approx([0, 0.08, 0.16, 0.4, 0.8])
    assert read["linear decay"] == pytest.approx([0.8, 0.72, 0.64, 0.4, 0])
    assert read["cosine decay"] == pytest.approx(0.4 * (1 + np.cos(np.pi * np.array(steps) / 100)), abs=1e-6)
    cosine = 0.4 * (1 + np.cos(np.pi * np.array([0, 30, 80]) / 80))
    assert read["warm-up, then cosine"] == pytest.approx([0, 0.4, *cosine], abs=1e-6)
    assert read["piecewise"] == pytest.approx([0.2, 0.2, 0.2, 0.4, 0.8])


def test_the_picture(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["schedules.py", "--data", "--output", str(tmp_path)])
    schedules.main()
    assert (tmp_path / "schedules.png").stat().st_size > 10_000


def test_each_schedule_is_trained_with_beside_the_bound(tmp_path, monkeypatch):
    trained = {}

    def run_trials(trials, output, measure):
        trained.update({trial.name: trial.recipe for trial in trials})
        found = {True: 15.0, False: 90.0}
        collapses = [t.recipe.match_weight == 1.6 and not t.recipe.max_share and t.seed == 1 for t in trials]
        return [{"accuracy": found[lost], "cross_entropy": 1.0, "calibration_error": 2.0} for lost in collapses]

    monkeypatch.setattr(schedules, "run_trials", run_trials)
    monkeypatch.setattr("sys.argv", ["schedules.py", "--data", "digits", "--seeds", "2", "--output", str(tmp_path)])
    schedules.main()
    table = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert '| "split" | 1.6 | constant | 52.50 ± 53.03 | 1.0000 | 2.00 | 1 of 2 seeds |' in table
    assert '| "split" | 1.6 | constant, and the bound | 90.00 |' in table
    ramp = trained["digits-DANN's ramp-stream-0.8-0"]
    assert ramp.max_share is None and [type(c).__name__ for c in ramp.callbacks()] == ["MatchWeightScheduler"]
    assert float(ramp.schedule(240)) == pytest.approx(0.8, rel=1e-3), "at the last of 60 epochs of four steps"
    assert not trained["digits-constant, and the bound-split-1.6-0"].callbacks()
