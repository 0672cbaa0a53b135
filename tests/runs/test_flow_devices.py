"""A flow of images on several devices: the ActNorms, the training and the figures of one device."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).with_name("_flow_devices.py")
PATIENCE = 600  # seconds until a process that hangs is killed
EPS = np.finfo(np.float32).eps


def result(process, output):
    text, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, text[-3000:]
    return json.loads(output.read_text())


def assert_same(one, several):
    assert set(one["start"]) == set(several["start"])  # bit for bit, on every device
    assert len(set(several["end"])) == 1
    assert len(one["history"]) == len(several["history"]) == 3
    assert len({row["loss"] for row in one["history"]}) == 3  # it does train
    assert max(row["clipped"] for row in one["history"]) > 0
    rows = [(row[name], other[name]) for row, other in zip(one["history"], several["history"],
            strict=True) for name in row]  # fmt: skip
    figures = [(one["metrics"][name], several["metrics"][name]) for name in one["metrics"]]
    weights = list(zip(one["weights"], several["weights"], strict=True))
    for pairs in (rows, figures, weights):
        first, second = np.array(pairs).T
        # At most 43 images go into a mean, and 20 into the gradient of each of 9 steps before it;
        # each is a sum of some hundred terms, as large as the largest figure.
        rounding = (43 + 9 * 20) * EPS * np.abs(first).max()
        np.testing.assert_allclose(second, first, rtol=0, atol=rounding)


@pytest.mark.parametrize(
    "dequantize", ["variational", pytest.param("uniform", marks=pytest.mark.slow)]
)
def test_two_devices_train_as_one_does(dequantize, launch, tmp_path):
    output = tmp_path / "result.json"
    process = launch(SCRIPT, "none,mirrored", dequantize, output, TF_CPP_MIN_LOG_LEVEL="3")
    found = result(process, output)
    assert len(found["mirrored"]["start"]) == 2
    assert_same(found["none"], found["mirrored"])


@pytest.mark.slow
def test_two_workers_train_as_one_process_does(launch, loopback_cluster, tmp_path):
    outputs = [tmp_path / f"{index}.json" for index in range(2)]
    workers = [
        launch(SCRIPT, "multiworker", "variational", output, TF_CONFIG=config)
        for output, config in zip(outputs, loopback_cluster(2), strict=True)
    ]
    alone = tmp_path / "alone.json"
    one = result(launch(SCRIPT, "none", "variational", alone), alone)["none"]
    first, second = (
        result(worker, output)["multiworker"]
        for worker, output in zip(workers, outputs, strict=True)
    )
    assert first == second
    assert_same(one, first)
