"""Training on several devices, as far as one CPU can play them. Devices must be laid out before the backend starts:
hence in processes of their own."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import keras
import numpy as np
import pytest
from mktestdocs import grab_code_blocks

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "devices.md"
PROGRAM = pathlib.Path(__file__).with_name("on_devices.py")
BOUNDED = ["class by class bounded", "joint split bounded", "class by class local bounded", "joint bounded layers"]
CASES = ["joint", "layer", *BOUNDED]
ON_TENSORFLOW = ["joint normalized", "joint normalized plain"]
BACKEND = keras.backend.backend()

pytestmark = pytest.mark.skipif(BACKEND == "torch", reason="Keras distributes `fit` on TensorFlow and JAX alone")


def start(num_devices, *cases, **environment):
    return subprocess.Popen(
        [sys.executable, PROGRAM, *cases],
        env={
            **os.environ,
            "NUM_DEVICES": str(num_devices),
            "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={num_devices}",
            "PYTHONPATH": str(PROGRAM.parents[2]),
            **environment,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def results(process):
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return json.loads(output.splitlines()[-1])


@pytest.fixture(scope="module")
def on_many():
    """Each case on one device, and on eight of JAX or two of TensorFlow, which traces each by itself."""
    return results(start(8, *CASES) if BACKEND == "jax" else start(2, *CASES, *ON_TENSORFLOW))


def check_equal(one, other):
    assert one["history"].keys() == other["history"].keys()
    for key, value in one["history"].items():
        np.testing.assert_allclose(other["history"][key], value, rtol=1e-5, err_msg=key)
    for (path, value), (_, of_other) in zip(one["variables"], other["variables"], strict=True):
        np.testing.assert_allclose(of_other, value, atol=1e-5, err_msg=path)


@pytest.mark.parametrize("case", CASES)
def test_many_devices_match_over_the_global_batch(on_many, case):
    check_equal(on_many["alone"][case], on_many["together"][case])


def test_a_flag_keeps_matching_within_the_share_of_a_device(on_many):
    cases = ("class by class local bounded", "class by class bounded")
    local, over_all = (on_many["together"][case]["history"]["match_loss"][0] for case in cases)
    assert local > 1.1 * over_all


@pytest.mark.skipif(BACKEND == "jax", reason="On JAX a step is traced for all devices at once, as for one")
def test_the_second_batch_leaves_no_trace_in_moving_averages(on_many):
    moving = [
        [value for path, value in on_many["together"][case]["variables"] if "/moving_" in path]
        for case in ON_TENSORFLOW
    ]
    assert len(moving[0]) == 2
    for matched, plain in zip(*moving, strict=True):
        np.testing.assert_allclose(matched, plain, rtol=1e-6)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="`tf.distribute` is TensorFlow's")
def test_two_replicas_and_two_workers_match_over_the_global_batch(on_many):
    ports = [free_port() for _ in range(2)]
    workers = [
        start(
            2,
            "joint",
            TF_CONFIG=json.dumps(
                {"cluster": {"worker": [f"127.0.0.1:{port}" for port in ports]}, "task": {"type": "worker", "index": i}}
            ),
        )
        for i in range(2)
    ]
    for together in (on_many, *map(results, workers)):
        check_equal(on_many["alone"]["joint"], together["together"]["joint"])


def free_port():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return unused.getsockname()[1]


def test_the_pages_block_for_this_backend_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    on_tensorflow, on_jax = grab_code_blocks(PAGE.read_text(encoding="utf-8"), lang="python")
    try:
        exec(on_jax if BACKEND == "jax" else on_tensorflow, {})
    finally:
        keras.distribution.set_distribution(None)
