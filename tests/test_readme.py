"""What README shows works as it stands."""

import pathlib
import re

import keras

README = pathlib.Path(__file__).parent.parent / "README.md"


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.S)


def test_the_code_runs_from_top_to_bottom(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    code = blocks("python")
    assert len(code) == 3
    for block in code:
        exec(block, names)
    assert names["itdm"].history.history["match_loss"][0] > 0
    plain = keras.saving.load_model("plain.keras")
    assert type(plain) is keras.Sequential


def test_the_first_commands_are_single_lines():
    quick_start, tests, *_ = blocks("bash")
    assert "examples/digits.py" in quick_start and "pytest" in tests
    assert quick_start.count("\n") == tests.count("\n") == 1
