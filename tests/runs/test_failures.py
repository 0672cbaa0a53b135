"""Errors of a cluster: one sentence, and an exit status that tells whether to try again."""

import numpy as np
import pytest
import tensorflow as tf

from tfp_flowvae.cli import main
from tfp_flowvae.runs.failures import WorkerLostError, failing, losing_workers
from tfp_flowvae.runs.folder import RunFolder
from tfp_flowvae.runs.output import Output
from tfp_flowvae.runs.store import CheckpointStore
from tfp_flowvae.runs.worker import WorkerFolder

LOST = tf.errors.UnavailableError(
    None,
    None,
    "Graph execution error:\n\nCollective ops is aborted by: Error reported from "
    "/job:worker/task:1: The following tasks are unhealthy (stopped sending heartbeats):\n"
    "/job:worker/replica:0/task:1\n\t [[{{node CollectiveReduceV2}}]]",
)
EAGER = tf.errors.UnavailableError(
    None,
    None,
    "{{function_node __CollectiveReduceV2_device_/job:worker/replica:0/task:0/device:CPU:0}} "
    "Collective ops is aborted by: Error reported from /job:worker/task:1: The following tasks are "
    "unhealthy (stopped sending heartbeats):\n/job:worker/replica:0/task:1",
)
ABORTED = tf.errors.FailedPreconditionError(None, None, "Collective ops is aborted by: a reset")


@pytest.fixture
def strategy():
    return tf.distribute.get_strategy()


def fail(error, strategy, folder):
    with losing_workers(strategy, folder, Output()), failing("go on", folder, Output()):
        raise error


@pytest.mark.parametrize("error", [LOST, EAGER], ids=["graph", "eager"])
def test_the_error_names_the_lost_worker(error, strategy, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["train.py"])
    with RunFolder(tmp_path / "run") as folder:
        state = {"epoch": 1, "step": 0, "rows": [], "config": {}}
        CheckpointStore(folder.checkpoints).save(1, state, {"a": np.zeros(2)})
        with pytest.raises(
            WorkerLostError, match=r"^The worker 1 of the cluster is gone"
        ) as caught:
            fail(error, strategy, folder)
    assert "train.py --resume" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_worker_does_not_claim_that_a_state_is_saved(strategy, tmp_path):
    said = r"^A worker of the cluster .* with --resume if"
    with WorkerFolder(tmp_path / "run") as folder, pytest.raises(WorkerLostError, match=said):
        fail(ABORTED, strategy, folder)


def test_other_errors_and_errors_on_one_device_pass_through(strategy, tmp_path):
    other = tf.errors.InvalidArgumentError(None, None, "other")
    for error, under in ((other, strategy), (LOST, None)):
        with RunFolder(tmp_path / "run") as folder, pytest.raises(type(error)) as caught:
            fail(error, under, folder)
        assert caught.value is error


def test_a_reader_that_has_gone_is_no_failure_of_a_file(strategy, tmp_path):
    with pytest.raises(BrokenPipeError):
        fail(BrokenPipeError(), strategy, RunFolder(tmp_path / "run", "run"))


def test_a_lost_worker_has_its_own_exit_status(monkeypatch, capsys):
    def lost(*arguments):
        raise WorkerLostError("Gone.")

    monkeypatch.setattr("tfp_flowvae.runs.run.train", lost)
    assert main(["train"]) == 75
    assert capsys.readouterr().err == "Error: Gone.\n"
