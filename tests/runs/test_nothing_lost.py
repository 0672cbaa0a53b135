"""Runs that are killed, stopped, or out of room, and what `--resume` makes of them."""

import csv
import errno
import json
import os
import random
import shlex
import shutil
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
from tfp_flowvae.runs.run import Output
from tfp_flowvae.runs.store import CheckpointStore

ROOT = Path(__file__).parents[2]
TRAIN = [sys.executable, str(ROOT / "train.py")]
# 63 steps an epoch, in two executions, so that a checkpoint falls within it.
TINY = [
    *("--flow", "none", "--hidden", "16", "--latent-dim", "2", "--batch-size", "20"),
    *("--no-diagnostics", "--checkpoint-steps", "32"),
]  # fmt: skip
PATIENCE = 120.0  # Seconds for a process to come to something.


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
    """Waits until the condition holds; gives False if the process has ended before."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if process.poll() is not None:
            return False
        assert time.monotonic() < deadline
    return True


def results(run):
    """All that must be the same, bit for bit."""
    with (run / "history.csv").open() as file:
        rows = [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]
    files = {n: (run / n).read_bytes() for n in ("metrics.json", "config.json", "samples.png")}
    last = CheckpointStore(run / "checkpoints").newest()
    return rows, files, last.path.name, {k: v.tobytes() for k, v in last.arrays.items()}


@pytest.mark.slow
def test_killed_at_any_moment_and_resumed_it_is_the_run_that_was_not_killed(tmp_path):
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
        rest = [*TINY[-2:], "--verbose", "0"] if begun else settings
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
        # A result under its final name is one of a run that has come to its end.
        assert not (run / "run.json").exists()
    assert survived[0] == []
    assert all(survived[2:])
    process = start(tmp_path, "--resume", "run", *TINY[-2:])
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
def test_a_signal_saves_and_says_how_to_go_on(number, status, name, tmp_path):
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
    assert message == f"Stopped by {name}; the state is saved. Go on with:"
    state = CheckpointStore(run / "checkpoints").newest().state
    assert state["epoch"] >= 2
    # The command as it was printed, with an end in sight.
    more = ["--epochs", str(state["epoch"] + 2), "--verbose", "0"]
    done = subprocess.run(
        [*shlex.split(command), *more], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((run / "run.json").read_text())["epochs"] == state["epoch"] + 2


@pytest.mark.slow
def test_a_data_file_that_is_cut_costs_no_training(tmp_path):
    streamed = [*TINY, "--stream", "cache", "--verbose", "2"]
    process = start(tmp_path, *streamed, "--epochs", "100000", "--output", "run")
    for line in process.stdout:
        if line.startswith("Epoch 3/"):
            break
    for file in (tmp_path / "cache").glob("*/*.npy"):
        os.truncate(file, 0)
    said = process.communicate()[0]
    assert process.returncode == 2, said
    assert "is shorter than it was; the state of training is intact: " in said.splitlines()[-1]
    shutil.rmtree(tmp_path / "cache")
    assert CheckpointStore(tmp_path / "run" / "checkpoints").newest().state["epoch"] >= 2


@pytest.mark.slow
def test_a_signal_before_there_is_anything_gives_the_folder_back(tmp_path):
    process = start(tmp_path, *TINY, "--output", "run")
    assert wait_for(process, lambda: (tmp_path / "run" / ".lock").exists())
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    assert "Stopped by SIGTERM; nothing was written." in process.communicate()[0]
    assert process.returncode == 143
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_more_epochs_go_on_from_a_run_that_was_complete(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    settings = ["train", *TINY, "--schedule", "constant", "--ema", "0.9", "--verbose", "0"]
    assert main([*settings, "--epochs", "4", "--output", "whole"]) == 0
    assert main([*settings, "--epochs", "2", "--output", "run"]) == 0
    assert main([*settings, "--epochs", "4", "--output", "run", "--resume"]) == 0
    assert capsys.readouterr().err == ""
    one, two = results(tmp_path / "whole"), results(tmp_path / "run")
    assert one == two


@pytest.mark.slow
def test_a_full_disk_at_the_end_costs_no_training(tmp_path, monkeypatch, capsys):
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


@pytest.mark.parametrize("saved", [True, False])
def test_what_the_file_system_refuses_is_one_sentence(saved, tmp_path, monkeypatch):
    import tensorflow as tf

    monkeypatch.setattr("sys.argv", ["train.py"])

    def read():
        with failing("go on with training", folder, Output()):
            next(iter(tf.data.Dataset.from_tensors(str(tmp_path / "x.png")).map(tf.io.read_file)))

    with RunFolder(tmp_path / "run") as folder:
        if saved:
            state = {"epoch": 1, "step": 0, "rows": [], "config": {}}
            CheckpointStore(folder.checkpoints).save(1, state, {"a": np.zeros(2)})
        with pytest.raises(UserError, match=r"Cannot go on with training: .*x\.png") as caught:
            read()
    assert "\n" not in str(caught.value)
    assert ("train.py --resume" in str(caught.value)) is saved
    assert ("nothing was written" in str(caught.value)) is not saved
