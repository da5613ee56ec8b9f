"""Every example as a user runs it: `--help`, which trains nothing, and a short run; data that is downloaded is
faked."""

import importlib
import pathlib
import runpy
import sys

import keras
import pytest

from tests.experiments.fakes import fake_datasets

FOLDER = pathlib.Path(__file__).parents[2] / "examples"
PAGES = sorted(path.stem for path in FOLDER.glob("*.py"))
DOWNLOADED = ["qmnist", "kmnist", "fashion_mnist", "cifar10", "stl10"]
SHORT = {
    "breast_cancer": ["--epochs", "1", "--seeds", "1"],
    "data_loader": ["--epochs", "1"],
    "text_classifier": ["--epochs", "1", "--seeds", "1"],
    "tune": ["--epochs", "1", "--seeds", "1", "--trials", "1"],
}
WITH_OUTPUT = {"digits": ["--epochs", "2", "--seeds", "1"], "diagnostics": ["--epochs", "2"]}
BACKEND = keras.backend.backend()


def run(page, *arguments, monkeypatch):
    monkeypatch.setattr(sys, "argv", [f"{page}.py", *arguments])
    runpy.run_path(str(FOLDER / f"{page}.py"), run_name="__main__")


@pytest.mark.parametrize("page", PAGES)
def test_help(page, monkeypatch, capsys):
    monkeypatch.setattr(keras.Model, "fit", lambda *args, **kwargs: pytest.fail("it trains"))
    with pytest.raises(SystemExit) as ended:
        run(page, "--help", monkeypatch=monkeypatch)
    assert ended.value.code == 0
    assert "--epochs" in capsys.readouterr().out


@pytest.mark.parametrize("page", SHORT)
def test_pages_that_print(page, monkeypatch, capsys):
    if page == "data_loader" and BACKEND != "torch":
        pytest.skip("It is PyTorch's")
    run(page, *SHORT[page], monkeypatch=monkeypatch)
    assert "plain" in (printed := capsys.readouterr().out) or "λ = 0.8" in printed


@pytest.mark.parametrize("page", WITH_OUTPUT)
def test_pages_that_draw(page, tmp_path, monkeypatch, capsys):
    run(page, *WITH_OUTPUT[page], "--output", str(tmp_path), monkeypatch=monkeypatch)
    assert [path for path in tmp_path.rglob("*.png") if path.stat().st_size > 10_000]


@pytest.mark.skipif(BACKEND != "torch", reason="Files and arguments are the same on every backend")
@pytest.mark.parametrize("page", DOWNLOADED)
def test_pages_that_download(page, tmp_path, monkeypatch, capsys):
    importlib.import_module("experiments.qmnist")
    with fake_datasets(tmp_path, num_examples=40):
        run(page, "--epochs", "1", "--batch-size", "20", monkeypatch=monkeypatch)
    assert "λ = 0.8: test accuracy" in capsys.readouterr().out
