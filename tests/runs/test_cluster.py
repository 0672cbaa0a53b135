"""A run of two workers: a signal to one of them stops both, and the run can be resumed."""

import csv
import json
import signal
from pathlib import Path

import pytest

from tfp_flowvae.runs import run
from tfp_flowvae.runs.config import TrainConfig
from tfp_flowvae.runs.folder import RunFolder
from tfp_flowvae.runs.output import Output
from tfp_flowvae.runs.signals import SignalWatch, Stopped
from tfp_flowvae.runs.store import CheckpointStore

TRAIN = Path(__file__).parents[2] / "train.py"
TINY = [
    *("--flow", "none", "--prior", "none"),
    *("--hidden", "8", "--latent-dim", "2", "--batch-size", "200"),
    *("--no-diagnostics", "--schedule", "constant", "--strategy", "multiworker"),
]  # fmt: skip
PATIENCE = 600.0  # The most seconds to wait for a process, on a busy machine too.


@pytest.fixture
def start(launch, loopback_cluster, tmp_path, monkeypatch):
    """A function that starts two workers."""
    monkeypatch.chdir(tmp_path)

    def start(*arguments):
        return [
            launch(TRAIN, *TINY, *arguments, TF_CONFIG=config) for config in loopback_cluster(2)
        ]

    return start


def finish(workers):
    """Returns the exit statuses of the workers and what they printed."""
    said = [worker.communicate(timeout=PATIENCE)[0] for worker in workers]
    return [worker.returncode for worker in workers], said


def results(folder):
    """What must be equal bit for bit."""
    with (folder / "history.csv").open() as file:
        rows = [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]
    last = CheckpointStore(folder / "checkpoints").newest()
    arrays = {name: array.tobytes() for name, array in last.arrays.items()}
    return rows, (folder / "metrics.json").read_bytes(), arrays


@pytest.mark.slow
@pytest.mark.parametrize("receiver", [0, 1])
def test_a_signal_to_one_worker_stops_all_after_the_same_step(receiver, start, tmp_path):
    folder = tmp_path / "run"
    workers = start("--epochs", "100000", "--verbose", "2", "--output", "run")
    for line in workers[0].stdout:
        if line.startswith("Epoch 3/"):
            workers[receiver].send_signal(signal.SIGTERM)
            break
    statuses, said = finish(workers)
    assert statuses == [143, 143], said
    assert "Stopped by SIGTERM; the state is saved. Resume with:" in said[0]
    assert "Stopped by SIGTERM; the chief has what is saved." in said[1]
    epochs = str(CheckpointStore(folder / "checkpoints").newest().state["epoch"] + 1)
    for arguments in (["--resume", "run"], ["--output", "whole"]):
        statuses, said = finish(start(*arguments, "--epochs", epochs, "--verbose", "0"))
        assert statuses == [0, 0], said
    assert results(folder) == results(tmp_path / "whole")
    assert json.loads((folder / "run.json").read_text())["epochs"] == int(epochs)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_when_a_worker_is_killed_the_other_reports_it_and_both_can_resume(victim, start, tmp_path):
    settings = ["--epochs", "40", "--verbose", "2", "--output", "run"]
    workers = start(*settings)
    for line in workers[0].stdout:
        if line.startswith("Epoch 3/"):
            workers[victim].kill()
            break
    statuses, said = finish(workers)
    assert statuses[victim] == -signal.SIGKILL
    assert statuses[1 - victim] == 75, said
    assert f"Error: The worker {victim} of the cluster is gone" in said[1 - victim]
    statuses, said = finish(start("--resume", "run", "--verbose", "0"))
    assert statuses == [0, 0], said
    statuses, said = finish(start(*settings[:-1], "whole"))
    assert statuses == [0, 0], said
    assert results(tmp_path / "run") == results(tmp_path / "whole")


def test_a_worker_stopped_by_another_exits_with_the_status_of_a_signal(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(run, "any_worker", lambda strategy, flag: asked.append(flag) or True)
    with SignalWatch() as signals, RunFolder(tmp_path / "run", "name") as folder:
        one = run._Run(TrainConfig(), Output(), folder, signals, strategy=None)
        with pytest.raises(Stopped) as stopped, signals.waiting():
            assert one._must_stop()
    assert asked == [False]
    assert stopped.value.status == 143
