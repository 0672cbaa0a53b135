"""Runs that are killed, stopped, or out of disk space can be resumed."""

import csv
import errno
import json
import os
import random
import resource
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tfp_flowvae.cli import main
from tfp_flowvae.errors import UserError
from tfp_flowvae.runs.failures import failing
from tfp_flowvae.runs.folder import RunFolder
from tfp_flowvae.runs.output import Output
from tfp_flowvae.runs.store import CheckpointStore

ROOT = Path(__file__).parents[2]
TRAIN = [sys.executable, str(ROOT / "train.py")]
# An epoch has 63 steps in two executions, so a checkpoint falls within it.
TINY = [
    *("--flow", "none", "--prior", "none"),
    *("--hidden", "16", "--latent-dim", "2", "--batch-size", "20"),
    *("--no-diagnostics", "--no-report", "--checkpoint-steps", "32"),
]  # fmt: skip
PATIENCE = 600.0  # The most seconds to wait for a process, on a busy machine too.


def start(folder, *arguments):
    return subprocess.Popen(
        [*TRAIN, *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )


def wait_for(process, condition):
    """Waits until the condition holds; returns False if the process ends before."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if process.poll() is not None:
            return False
        assert time.monotonic() < deadline
    return True


def results(run):
    """What must be equal bit for bit."""
    with (run / "history.csv").open() as file:
        rows = [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]
    files = {n: (run / n).read_bytes() for n in ("metrics.json", "config.json", "samples.png")}
    last = CheckpointStore(run / "checkpoints").newest()
    return rows, files, last.path.name, {k: v.tobytes() for k, v in last.arrays.items()}


@pytest.mark.slow
def test_a_run_killed_at_any_moment_and_resumed_equals_an_uninterrupted_run(tmp_path):
    settings = [*TINY, "--epochs", "25", "--ema", "0.9", "--patience", "20", "--verbose", "0"]
    whole = start(tmp_path, *settings, "--output", "whole")
    assert whole.communicate()[0] is not None
    assert whole.returncode == 0
    chance, run = random.Random(0), tmp_path / "run"
    checkpoints = run / "checkpoints"

    def moved_on(before):
        return lambda: {p.name for p in checkpoints.glob("step-*")} - before

    moments = {
        "before the first checkpoint": lambda: (run / "config.json").exists(),
        "while one is written": lambda: bool(list(checkpoints.glob(".step-*"))),
        "at random": None,
        "at random again": None,
        "while the results are written": lambda: (run / ".partial" / "saved_model.pb").exists(),
    }
    survived = []
    for moment, condition in moments.items():
        begun = (run / "config.json").exists()
        place = ["--resume", "run"] if begun else ["--output", "run"]
        rest = [*TINY[-3:], "--verbose", "0"] if begun else settings
        process = start(tmp_path, *rest, *place)
        if condition is None:
            before = {p.name for p in checkpoints.glob("step-*")}
            alive = wait_for(process, moved_on(before))
            time.sleep(chance.uniform(0.0, 0.3))
        else:
            alive = wait_for(process, condition)
        process.send_signal(signal.SIGKILL)
        said = process.communicate()[0]
        assert alive, f"{moment}: it had ended: {said}"
        survived.append(sorted(p.name for p in checkpoints.glob("step-*")))
        # Results get their final names only when the run is complete.
        assert not (run / "run.json").exists()
    assert survived[0] == []
    assert all(survived[2:])
    process = start(tmp_path, "--resume", "run", *TINY[-3:])
    said = process.communicate()[0]
    assert process.returncode == 0, said
    assert "Warning" not in said  # nothing that was written is damaged
    one, two = results(tmp_path / "whole"), results(run)
    assert one[0] == two[0]
    assert len(one[0]) == 25
    assert one[1:] == two[1:]
    assert sorted(p.name for p in (tmp_path / "whole").iterdir()) == sorted(
        p.name for p in run.iterdir()
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "status", "name"),
    [(signal.SIGINT, 130, "Ctrl-C"), (signal.SIGTERM, 143, "SIGTERM")],
)
def test_a_signal_saves_the_state_and_prints_the_resume_command(number, status, name, tmp_path):
    process = start(
        tmp_path, *TINY, "--schedule", "constant", "--epochs", "100000", "--output", "my run"
    )
    for line in process.stdout:
        if line.startswith("Epoch 3/"):
            process.send_signal(number)
            break
    rest = process.stdout.read()
    assert process.wait(timeout=PATIENCE) == status
    run = tmp_path / "my run"
    assert {p.name for p in run.iterdir()} == {"config.json", "checkpoints"}
    message, command = rest.rstrip().splitlines()[-2:]
    assert message == f"Stopped by {name}; the state is saved. Resume with:"
    state = CheckpointStore(run / "checkpoints").newest().state
    assert state["epoch"] >= 2
    # The printed command, with fewer epochs.
    more = ["--epochs", str(state["epoch"] + 2), "--verbose", "0"]
    done = subprocess.run(
        [*shlex.split(command), *more], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((run / "run.json").read_text())["epochs"] == state["epoch"] + 2


@pytest.mark.slow
def test_a_signal_before_the_first_checkpoint_removes_the_folder(tmp_path):
    process = start(tmp_path, *TINY, "--output", "run")
    assert wait_for(process, lambda: (tmp_path / "run" / ".lock").exists())
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    assert "Stopped by SIGTERM; nothing was written." in process.communicate()[0]
    assert process.returncode == 143
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_complete_run_can_be_resumed_with_more_epochs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    settings = ["train", *TINY, "--schedule", "constant", "--ema", "0.9", "--verbose", "0"]
    assert main([*settings, "--epochs", "4", "--output", "whole"]) == 0
    assert main([*settings, "--epochs", "2", "--output", "run"]) == 0
    assert main([*settings, "--epochs", "4", "--output", "run", "--resume"]) == 0
    assert capsys.readouterr().err == ""
    one, two = results(tmp_path / "whole"), results(tmp_path / "run")
    assert one == two


@pytest.mark.slow
def test_a_full_disk_at_the_end_loses_no_training(tmp_path, monkeypatch, capsys):
    from tfp_flowvae.runs.session import Session

    monkeypatch.chdir(tmp_path)

    def full(self, folder):
        (folder / "saved_model.pb").write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    settings = ["train", *TINY, "--verbose", "0", "--epochs", "2", "--output", "run"]
    with monkeypatch.context() as patch:
        patch.setattr(Session, "write", full)
        assert main(settings) == 2
    said = capsys.readouterr().err
    assert "Cannot write the results: No space left on device; the state of training is" in said
    assert {p.name for p in (tmp_path / "run").iterdir()} == {"config.json", "checkpoints"}
    before = sorted((tmp_path / "run" / "checkpoints").iterdir())
    written = [path.stat().st_mtime_ns for path in before]
    assert main([*settings, "--resume"]) == 0
    assert [path.stat().st_mtime_ns for path in before] == written  # nothing was left to train
    assert json.loads((tmp_path / "run" / "run.json").read_text())["epochs"] == 2


def read_a_missing_file(folder):
    import tensorflow as tf

    next(iter(tf.data.Dataset.from_tensors(str(folder / "x.png")).map(tf.io.read_file)))


def write_to_a_full_disk(folder):
    import tensorflow as tf

    tf.io.write_file("/dev/full", "x")


def export_beyond_the_largest_file(folder):
    """The kernel refuses files of more than 500 bytes while the model is exported."""
    import tensorflow as tf

    module = tf.Module()
    module.weights = tf.Variable(tf.zeros([1000]))
    limit, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, hard))
    try:
        tf.saved_model.save(module, str(folder / "model"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))


@pytest.mark.parametrize("saved", [True, False], ids=["saved", "new"])
@pytest.mark.parametrize(
    ("work", "reason"),
    [
        (read_a_missing_file, r"x\.png; No such file"),
        (write_to_a_full_disk, "/dev/full; No space left on device"),
        (export_beyond_the_largest_file, "variables.*File too large"),
    ],
)
def test_an_error_of_the_file_system_is_one_sentence(work, reason, saved, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["train.py"])
    with RunFolder(tmp_path / "run") as folder:
        if saved:
            state = {"epoch": 1, "step": 0, "rows": [], "config": {}}
            CheckpointStore(folder.checkpoints).save(1, state, {"a": np.zeros(2)})
        with (
            pytest.raises(UserError, match=f"^Cannot do the work: .*{reason}") as caught,
            failing("do the work", folder, Output()),
        ):
            work(tmp_path)
    assert "\n" not in str(caught.value)
    assert ("train.py --resume" in str(caught.value)) is saved
    assert ("nothing was written" in str(caught.value)) is not saved
