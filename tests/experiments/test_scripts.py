"""Every experiment as a user runs it: `--help`, and a tiny run; those that download, on stand-ins for the data."""

import importlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from experiments import paper
from tests.experiments import on_one_backend
from tests.experiments.fakes import fake_datasets

ROOT = pathlib.Path(__file__).parent.parent.parent
SWEEPS = ["digits", "qmnist", "kmnist", "fashion_mnist", "cifar10", "stl10", "table_1"]
TINY = ["--epochs", 1, "--batch-size", 20, "--match-weight", 0.8, "--milestones"]


def command(script, *arguments):
    module = ["paper", script] if script in SWEEPS else [script]
    return [sys.executable, "-m", f"experiments.{module[0]}", *module[1:], *map(str, arguments)]


def start(script, *arguments):
    """Runs a script in a process of its own, which can be killed."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command(script, *arguments), env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def run_here(script, *arguments, monkeypatch):
    """Runs a script in this process, where stand-ins for the data can be given to it."""
    _, _, module, *given = command(script, *arguments)
    monkeypatch.setattr(sys, "argv", [module, *given])
    importlib.import_module(module).main()


def results_of(folder):
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "script", [*SWEEPS, "alternatives", "combinations", "ablations", "partners", "tune", "transfer"]
)
def test_help(script, capsys, monkeypatch):
    with pytest.raises(SystemExit) as ended:
        run_here(script, "--help", monkeypatch=monkeypatch)
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for flag in ("--train-size", "--epochs", "--seeds", "--output"):
        assert flag in text
    assert "default: None" not in text
    if script in SWEEPS:
        for flag in ("--match-weight", "--matching {class_conditional,joint}", "--network", "--mixed-precision"):
            assert flag in " ".join(text.split())


@pytest.mark.parametrize("script, flag", [("alternatives", "--methods"), ("ablations", "--variants")])
def test_help_lists_names_as_they_are_typed(script, flag, capsys, monkeypatch):
    with pytest.raises(SystemExit):
        run_here(script, "--help", monkeypatch=monkeypatch)
    text = " ".join(capsys.readouterr().out.split())
    assert f"{flag} NAME" in text and "'plain SGD' " in text
    assert "all if not given" in text


def test_digits(tmp_path, monkeypatch, capsys):
    arguments = ["--epochs", 2, "--seeds", 2, "--match-weight", 0.5, "--output", tmp_path]
    run_here("digits", *arguments, monkeypatch=monkeypatch)
    printed = capsys.readouterr().out
    kept = results_of(tmp_path)
    assert [row["match_weight"] for row in kept["rows"]] == [0.0, 0.5]
    assert len(kept["runs"]) == 4
    table = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert table.strip() in printed
    assert "| 0 (plain SGD) |" in table
    for picture in ("curves.png", "match_weight.png", "tsne.png"):
        assert (tmp_path / picture).stat().st_size > 10_000
    assert "λ = 0.5 against plain SGD:" in printed


@on_one_backend
@pytest.mark.parametrize(
    "script, arguments, trained",
    [
        ("qmnist", [], [("qmnist", "cnn2")]),
        ("kmnist", [], [("kmnist", "cnn5")]),
        ("fashion_mnist", ["--matching", "joint"], [("fashion_mnist", "cnn5")]),
        ("table_1", [], [("qmnist", "cnn2"), ("kmnist", "cnn2"), ("fashion_mnist", "cnn2")]),
        ("cifar10", ["--network", "cnn5", "cnn2"], [("cifar10", "cnn5"), ("cifar10", "cnn2")]),
        ("stl10", ["--network", "mobilenet"], [("stl10", "mobilenet")]),
    ],
    ids=str,
)
def test_the_papers_experiments_on_stand_ins(script, arguments, trained, tmp_path, monkeypatch):
    with fake_datasets(tmp_path / "data", num_examples=40):
        run_here(script, *TINY, *arguments, "--output", tmp_path / "results", monkeypatch=monkeypatch)
    kept = results_of(tmp_path / "results")
    assert [(row["data"], row["network"]) for row in kept["rows"][::2]] == trained
    assert [row["match_weight"] for row in kept["rows"]] == [0.0, 0.8] * len(trained)
    assert all(np.isfinite(run["history"]["val_cross_entropy"]).all() for run in kept["runs"])
    table = (tmp_path / "results" / "table.md").read_text(encoding="utf-8")
    if script in ("qmnist", "table_1"):
        assert "| QMNIST, cnn2 | w/ ITDM-j, λ = 0.8 |" in table and "| 98.94 | 0.037 |" in table
    if script == "stl10":
        assert "| 0.6 | 62.02 | +2.93 | 1.603 | -0.541 |" in table


def test_flags_reach_every_training(tmp_path, monkeypatch):
    flags = {"batch_size": 10, "epochs": 3, "learning_rate": 0.3, "milestones": (1, 2), "decay": 0.4, "momentum": 0.6}
    flags |= {"matching": "joint", "partner": "split", "network": "cnn2"}
    trained = []

    class Stop(Exception):
        pass

    def record(recipe, data, seed, folder, **options):
        trained.append((recipe, seed, len(data.x_train)))
        raise Stop

    arguments = []
    for name, value in flags.items():
        arguments += [f"--{name.replace('_', '-')}", *(value if isinstance(value, tuple) else [value])]
    arguments += ["--match-weight", 0.7, "--mixed-precision", "--train-size", 30, "--output", tmp_path / "results"]
    monkeypatch.setattr(paper, "train", record)
    with fake_datasets(tmp_path / "data", num_examples=40), pytest.raises(Stop):
        run_here("kmnist", *arguments, monkeypatch=monkeypatch)
    recipe, seed, size = trained[0]
    assert (seed, size, recipe.dtype_policy) == (0, 30, "mixed_bfloat16")
    assert {name: getattr(recipe, name) for name in flags} == flags


@pytest.mark.parametrize(
    "flag, message",
    [
        ({"--match-weight": -0.5}, "should be a finite number of at least 0. Got: -0.5"),
        ({"--seeds": 0}, "should be at least 1. Got: 0"),
        ({"--last": 0}, "should be at least 1. Got: 0"),
    ],
    ids=str,
)
def test_numbers_that_make_no_sense(flag, message, monkeypatch, capsys):
    ((name, value),) = flag.items()
    with pytest.raises(SystemExit):
        run_here("kmnist", f"{name}={value}", monkeypatch=monkeypatch)
    assert message in capsys.readouterr().err


def test_the_defaults_are_the_papers_settings(monkeypatch):
    seen = {}
    monkeypatch.setattr(paper, "load", lambda name: name)
    monkeypatch.setattr(paper, "run", lambda names, settings: seen.update({tuple(names): settings}))
    for script in ("kmnist", "fashion_mnist", "cifar10", "stl10"):
        run_here(script, monkeypatch=monkeypatch)
    for names, settings in seen.items():
        colour = names[0] in ("cifar10", "stl10")
        assert settings.match_weight == [0, 0.2, 0.4, 0.6, 0.8, 1]
        assert (settings.momentum, settings.batch_size, settings.last) == (0.5, 150, 10)
        assert settings.epochs == (150 if colour else 50)
        assert settings.learning_rate == (0.5 if colour else 0.01)
        assert (settings.milestones, settings.decay) == (([50, 100], 0.1) if colour else ([20, 40], 0.2))
        assert settings.network == (["vgg13", "resnet18", "mobilenet"] if colour else ["cnn5"])
        assert (settings.matching, settings.partner, settings.train_size) == ("class_conditional", "stream", None)
    run_here("table_1", monkeypatch=monkeypatch)
    settings = seen["qmnist", "kmnist", "fashion_mnist"]
    assert (settings.matching, settings.network, settings.match_weight) == ("joint", ["cnn2"], [0.8])


@on_one_backend
def test_a_sweep_killed_twice_ends_like_one_that_was_not(tmp_path, monkeypatch):
    arguments = ["--epochs", 3, "--match-weight", 0.8, "--seeds", 1, "--output"]
    for stage in ("lambda0-seed0/progress/state-2.npz", "lambda0.8-seed0/progress/state-2.npz"):
        process = start("digits", *arguments, tmp_path / "killed")
        while not list((tmp_path / "killed" / "runs").glob(f"*{stage}")):
            assert process.poll() is None, process.communicate()[1][-2000:]
            time.sleep(0.001)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        process.communicate()
        assert not (tmp_path / "killed" / "table.md").exists()
    for name in ("killed", "whole"):
        run_here("digits", *arguments, tmp_path / name, monkeypatch=monkeypatch)
    killed, whole = (results_of(tmp_path / name) for name in ("killed", "whole"))
    for runs in (killed["runs"], whole["runs"]):
        assert [len(run["history"].pop("seconds")) for run in runs] == [3, 3]
    assert killed["runs"] == whole["runs"]


@on_one_backend
def test_other_settings_do_not_go_into_the_same_folder(tmp_path, monkeypatch):
    arguments = ["--epochs", 1, "--seeds", 1, "--match-weight", 0, "--output", tmp_path]
    run_here("digits", *arguments, monkeypatch=monkeypatch)
    with pytest.raises(SystemExit, match=r"batch_size: 100 before, 50 now.*--output"):
        run_here("digits", *arguments, "--batch-size", 50, monkeypatch=monkeypatch)


@on_one_backend
def test_a_training_size_that_there_is_not(tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match=r"--train-size should be in 1..500. Got: 501"):
        run_here("digits", "--train-size", 501, "--output", tmp_path, monkeypatch=monkeypatch)


@on_one_backend
def test_alternatives(tmp_path, monkeypatch, capsys):
    methods = ["plain SGD", "plain SGD, twice the batch", "ITDM-c"]
    arguments = ["--data", "digits", "--poisoned", 0.4, "--methods", *methods, "--epochs", 1, "--train-size", 250]
    run_here("alternatives", *arguments, "--seeds", 1, "--output", tmp_path, monkeypatch=monkeypatch)
    printed = capsys.readouterr().out
    assert "digits, 40% of the training labels replaced at random" in printed
    rows = results_of(tmp_path)["rows"]
    assert [row["method"] for row in rows] == methods
    assert all(0 <= row["accuracy"][0] <= 100 and np.isfinite(row["cross_entropy"][0]) for row in rows)
    assert len({row["cross_entropy"][0] for row in rows}) == len(rows)
    assert (tmp_path / "alternatives.png").stat().st_size > 10_000


@on_one_backend
def test_ablations(tmp_path, monkeypatch, capsys):
    variants = ["plain SGD", "ITDM-c", "one σ for the whole batch", "no S2: bias of the estimate"]
    arguments = ["--data", "digits", "--variants", *variants, "--epochs", 1, "--train-size", 250, "--seeds", 1]
    run_here("ablations", *arguments, "--output", tmp_path, monkeypatch=monkeypatch)
    rows = results_of(tmp_path)["rows"]
    assert [row["name"] for row in rows] == variants
    assert all(0 < row["train_share"][0] < 1 and np.isfinite(row["train_test_mmd"][0]) for row in rows)
    assert len({row["cross_entropy"][0] for row in rows}) == len(rows)
    assert (tmp_path / "table.md").read_text(encoding="utf-8").strip() in capsys.readouterr().out
    for picture in ("effects.png", "features.png"):
        assert (tmp_path / picture).stat().st_size > 10_000
    with pytest.raises(SystemExit):
        run_here("ablations", "--variants", "unheard of", "--output", tmp_path, monkeypatch=monkeypatch)
