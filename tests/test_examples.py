"""Every example with `--help`, and the main one run small, as a user would."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
EXAMPLES = ["digits.py", "fashion_mnist.py"]


def run(script, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "examples" / script), *map(str, arguments)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout


@pytest.mark.parametrize("script", EXAMPLES)
def test_help(script):
    text = run(script, "--help")
    for flag in ("--train-size", "--epochs", "--match-weight", "--matching", "--seeds", "--batch-size", "--output"):
        assert flag in text


def test_digits(tmp_path):
    printed = run("digits.py", "--epochs", 2, "--seeds", 2, "--match-weight", 0.5, 1, "--output", tmp_path)
    results = json.loads((tmp_path / "results.json").read_text())
    assert [row["match_weight"] for row in results["rows"]] == [0.0, 0.5, 1.0]
    assert all(len(histories) == 2 for histories in results["histories"].values())
    table = (tmp_path / "table.md").read_text()
    assert table.strip() in printed
    assert "| 0 (plain SGD) |" in table
    assert (tmp_path / "curves.png").stat().st_size > 10_000
    assert "λ = 0.5 against plain SGD:" in printed


def test_a_training_size_that_there_is_not(tmp_path):
    with pytest.raises(AssertionError, match=r"--train-size should be in 1..500. Received: 501"):
        run("digits.py", "--train-size", 501, "--output", tmp_path)
