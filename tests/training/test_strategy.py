"""Training on several devices: the numbers of one device, weights equal everywhere, errors."""

from __future__ import annotations

import json
import os
import pathlib
import socket
import subprocess
import time
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from tfp_flowvae.errors import UserError
from tfp_flowvae.training.strategy import (
    check_batch,
    check_strategy,
    is_chief,
    make_strategy,
    shared_batches,
    writing_folder,
)

SCRIPT = pathlib.Path(__file__).with_name("_workers.py")
PATIENCE = 240  # seconds until a process that hangs is killed
CONFIG = {
    "cluster": {"worker": ["host1:12345", "host2:12345"]},
    "task": {"type": "worker", "index": 1},
}


@pytest.fixture(autouse=True)
def _no_cluster(monkeypatch):
    for name in [name for name in os.environ if name.startswith("SLURM") or name == "TF_CONFIG"]:
        monkeypatch.delenv(name)


@pytest.fixture
def start(launch):
    """A function that starts the script."""

    def start(strategies, case, output, config=None):
        variables = {} if config is None else {"TF_CONFIG": config}
        return launch(SCRIPT, strategies, case, output, TF_CPP_MIN_LOG_LEVEL="3", **variables)

    return start


def _result(process, output):
    text, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, text[-3000:]
    return json.loads(output.read_text())


def _start_workers(start, case, folder, configs):
    """The processes of a cluster on this machine, and the files that they write."""
    outputs = [folder / f"{index}.json" for index in range(len(configs))]
    processes = [
        start("multiworker", case, output, config)
        for config, output in zip(configs, outputs, strict=True)
    ]
    return processes, outputs


def _assert_equal_sums(several, one, name):
    """Numbers that differ by rounding: devices add their images up in another order.

    At most 45 images go into a mean, and 20 into the gradient of each of 9 steps before it.
    """
    rounding = (45 + 9 * 20) * np.finfo(np.float32).eps * np.max(np.abs(one))
    np.testing.assert_allclose(several, one, rtol=0, atol=rounding, err_msg=name)


def _assert_same_numbers(one, several):
    assert sorted(one["history"]) == sorted(several["history"])
    for name, values in one["history"].items():
        _assert_equal_sums(several["history"][name], values, name)
    for name, value in one["free_energy"].items():
        _assert_equal_sums(several["free_energy"][name], value, name)
    _assert_equal_sums(several["weights"], one["weights"], "weights")
    assert several["steps"] == one["steps"] == 9
    assert several["any"] == one["any"] == [True, False]
    assert len(set(one["history"]["loss"])) == 3  # it does train


@pytest.mark.parametrize(
    "case", ["odd", *(pytest.param(c, marks=pytest.mark.slow) for c in ("bernoulli", "norm"))]
)
def test_two_devices_train_as_one_does(case, start, tmp_path):
    output = tmp_path / "result.json"
    found = _result(start("none,mirrored", case, output), output)
    _assert_same_numbers(found["none"], found["mirrored"])
    devices = found["mirrored"]["digests"]
    assert len(devices) == 2
    assert len(set(devices)) == 1
    if case == "odd":
        assert max(found["none"]["history"]["clipped"]) > 0


def test_a_port_in_use_is_one_sentence(start, loopback_cluster, tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        config = json.loads(loopback_cluster(2)[0])
        config["cluster"]["worker"][0] = f"127.0.0.1:{other.getsockname()[1]}"
        process = start("multiworker", "odd", tmp_path / "0.json", json.dumps(config))
        text, _ = process.communicate(timeout=PATIENCE)
    assert "UserError: This worker cannot join the cluster: Could not start gRPC server; " in text


@pytest.mark.slow
@pytest.mark.parametrize("case", ["odd", "free-bits"])
def test_two_workers_train_as_one_process_does(case, start, loopback_cluster, tmp_path):
    workers, outputs = _start_workers(start, case, tmp_path, loopback_cluster(2))
    alone = tmp_path / "alone.json"
    one = _result(start("none", case, alone), alone)["none"]
    first, second = (
        _result(worker, output)["multiworker"]
        for worker, output in zip(workers, outputs, strict=True)
    )
    _assert_same_numbers(one, first)
    assert first["digests"] == second["digests"]
    assert first["history"] == second["history"]
    assert first["free_energy"] == second["free_energy"]
    assert first["any"] == second["any"]
    assert (first["chief"], second["chief"], one["chief"]) == (True, False, True)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_where_a_worker_is_killed_the_other_ends_too(victim, start, loopback_cluster, tmp_path):
    workers, outputs = _start_workers(start, "endless", tmp_path, loopback_cluster(2))
    progress = [pathlib.Path(f"{output}.epoch") for output in outputs]
    deadline = time.monotonic() + PATIENCE
    while not all(path.exists() for path in progress):
        assert all(worker.poll() is None for worker in workers)
        assert time.monotonic() < deadline
        time.sleep(0.2)
    workers[victim].kill()
    text, _ = workers[1 - victim].communicate(timeout=PATIENCE)
    assert workers[1 - victim].returncode != 0
    assert "UnavailableError" in text or "unhealthy" in text or "terminat" in text, text[-3000:]


def test_one_device_needs_no_strategy():
    assert make_strategy(None) is None
    assert make_strategy("none") is None
    check_batch(None, 7)
    assert is_chief(None)


def test_mirrored_takes_all_local_devices():
    strategy = make_strategy("mirrored")
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    assert strategy.num_replicas_in_sync == len(devices)
    assert is_chief(strategy)


def test_a_name_that_is_no_strategy():
    with pytest.raises(
        UserError, match=r"one of none, mirrored, multiworker\..*'multiworker'.*Received"
    ):
        check_strategy("multi-worker")


def _changed(**changes):
    return json.dumps({**CONFIG, **changes})


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{cluster", "TF_CONFIG is not JSON"),
        ("[1]", r"must be a JSON object, and is \[1\]"),
        ("{}", "lacks the object 'cluster'"),
        (_changed(cluster={}), "lacks the object 'cluster'"),
        (_changed(task=None), "lacks the object 'task'"),
        (_changed(cluster={"ps": ["a:1"]}), "of type 'ps'"),
        (_changed(cluster={"worker": "a:1"}), 'a list of host:port, and gives "a:1"'),
        (_changed(cluster={"worker": []}), r"a list of host:port, and gives \[\]"),
        (_changed(cluster={"worker": ["a"]}), r"a list of host:port, and gives \[\"a\"\]"),
        (_changed(task={"index": 0}), "a task of type null"),
        (_changed(task={"type": "chief", "index": 0}), 'a task of type "chief"'),
        (_changed(task={"type": "worker"}), "index from 0 to 1, and has null"),
        (_changed(task={"type": "worker", "index": 2}), "index from 0 to 1, and has 2"),
        (_changed(task={"type": "worker", "index": -1}), "index from 0 to 1, and has -1"),
        (_changed(task={"type": "worker", "index": "0"}), 'index from 0 to 1, and has "0"'),
    ],
)
def test_tf_config_that_cannot_be(text, complaint, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(UserError, match=complaint) as raised:
        make_strategy("multiworker")
    assert "\n" not in str(raised.value)


def test_no_tf_config(monkeypatch):
    with pytest.raises(
        UserError, match=r"TF_CONFIG, which is not set; set it for each worker.*cluster"
    ):
        make_strategy("multiworker")


@pytest.mark.parametrize("chief", [[], ["host0:1"]])
def test_a_good_tf_config_passes(chief, monkeypatch):
    cluster = {**CONFIG["cluster"], **({"chief": chief} if chief else {})}
    monkeypatch.setenv("TF_CONFIG", _changed(cluster=cluster))
    check_strategy("multiworker")


STUBS = {
    "scontrol": "printf 'node2\\nnode10\\n'",
    # Two tasks; the first option is srun's own.
    "srun": 'shift; for i in 0 1; do SLURM_PROCID=$i "$@" || exit; done',
    "python": 'echo "$TF_CONFIG" | tr -d "\\n"; echo "|$*"',
}


def test_the_slurm_script_of_the_docs_describes_the_cluster(tmp_path, monkeypatch):
    page = (pathlib.Path(__file__).parents[2] / "docs" / "distributed.md").read_text()
    script = next(code for code in page.split("```sh\n") if "#SBATCH" in code).split("```")[0]
    for name, body in STUBS.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    environment = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "SLURM_JOB_ID": "40077",
        "SLURM_JOB_NODELIST": "node[2,10]",
        "SLURM_SUBMIT_DIR": str(tmp_path),
    }
    done = subprocess.run(
        ["bash", "-c", script], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    for index, line in enumerate(lines):
        text, _, arguments = line.partition("|")
        monkeypatch.setenv("TF_CONFIG", text)
        check_strategy("multiworker")
        config = json.loads(text)
        assert config["cluster"] == {"worker": ["node2:12077", "node10:12077"]}
        assert config["task"] == {"type": "worker", "index": index}
        assert arguments.startswith("train.py --output ")
        assert arguments.endswith("--epochs 400 --strategy multiworker --verbose 2")


def test_a_batch_that_the_replicas_cannot_share():
    strategy = SimpleNamespace(num_replicas_in_sync=8)
    check_batch(strategy, 96)
    with pytest.raises(UserError, match=r"multiple of 8, such as 96 or 104\. Received: 100"):
        check_batch(strategy, 100)
    with pytest.raises(UserError, match=r"such as 8\. Received: 3"):
        check_batch(strategy, 3)


def test_shares_of_a_batch_are_in_the_order_of_the_replicas():
    """Of two workers with two devices each, which need more than one GPU."""
    given = []
    strategy = SimpleNamespace(
        num_replicas_in_sync=4, distribute_datasets_from_function=given.append
    )
    batches = tf.data.Dataset.range(23).batch(10)
    shared_batches(strategy, batches)
    first, second = (
        [piece.tolist() for piece in given[0](context).as_numpy_iterator()]
        for context in (tf.distribute.InputContext(2, worker, 4) for worker in range(2))
    )
    assert first == [[0, 1], [2, 3, 4], [10, 11], [12, 13, 14], [], [20]]
    assert second == [[5, 6], [7, 8, 9], [15, 16], [17, 18, 19], [21], [22]]
    assert shared_batches(None, batches) is batches


def _strategy(kind, index, **cluster):
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec(cluster), task_type=kind, task_id=index
    )
    return SimpleNamespace(cluster_resolver=resolver)


def test_one_of_the_workers_is_the_chief(tmp_path):
    hosts = ["a:1", "b:1"]
    first, second = (_strategy("worker", i, worker=hosts) for i in range(2))
    assert (is_chief(first), is_chief(second)) == (True, False)
    assert is_chief(_strategy("chief", 0, worker=hosts, chief=["c:1"]))
    assert not is_chief(_strategy("worker", 0, worker=hosts, chief=["c:1"]))
    with writing_folder(first, tmp_path) as folder:
        assert folder == tmp_path
    with writing_folder(second, tmp_path) as folder:
        assert folder != tmp_path
        (folder / "file").write_text("x")
    assert not folder.exists()
    assert not list(tmp_path.iterdir())
