import json
import sys

import adaptive
import numpy as np
import pytest

from tests.examples import on_one_backend


@on_one_backend
def test_a_small_study(tmp_path, monkeypatch, capsys):
    arguments = ["--data", "digits", "--epochs", "2", "--seeds", "1", "--train-size", "200", "--output", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["adaptive.py", *arguments, "--shares", "0.3"])
    adaptive.main()
    kept = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert [row["name"] for row in kept["rows"]] == ["plain SGD", "λ = 0.8", "share 0.3"]
    assert all(np.isfinite(row["cross_entropy"][0]) for row in kept["rows"])
    assert kept["paths"]["λ = 0.8"] == {"match_weight": [pytest.approx([0.8, 0.8])], "match_share": []}
    (weights,), (shares,) = kept["paths"]["share 0.3"].values()
    assert weights[0] != pytest.approx(0.8) and len(set(weights)) == len(set(shares)) == 2
    assert all(0 < share < 1 for share in shares)
    text = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert text.strip() in capsys.readouterr().out and "| λ = 0.8 |" in text
    assert (tmp_path / "adaptive.png").stat().st_size > 10_000
    monkeypatch.setattr(sys, "argv", ["adaptive.py", "--shares", "1"])
    with pytest.raises(SystemExit):
        adaptive.main()
    assert "should be below 1. Got: 1" in capsys.readouterr().err
