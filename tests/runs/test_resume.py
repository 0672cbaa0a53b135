"""`--resume`: what it refuses, and that a resumed run equals an uninterrupted one."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from tfp_flowvae.cli import main
from tfp_flowvae.runs import TrainConfig
from tfp_flowvae.runs.folder import RunFolder
from tfp_flowvae.runs.output import Output
from tfp_flowvae.runs.store import CheckpointStore

CONFIG = TrainConfig(flow="none", latent_dim=4, hidden=(32,), epochs=5, learning_rate=1e-3)


@pytest.fixture(autouse=True)
def _inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(tmp_path):
    """The folder of a run with three of five epochs done."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text(CONFIG.to_json())
    save(tmp_path / "run", 3)
    return tmp_path / "run"


def save(run, epoch, step=0, config=CONFIG, **state):
    state |= {"epoch": epoch, "step": step, "rows": [], "config": dataclasses.asdict(config)}
    return CheckpointStore(run / "checkpoints").save(13 * epoch + step, state, {})


def contents():
    return {p: p.read_bytes() if p.is_file() else None for p in Path.cwd().rglob("*")}


def refused(capsys, *arguments):
    """Returns the one sentence with which `train` refuses; it must have changed nothing."""
    before = contents()
    assert main(["train", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("Error: ")
    assert captured.err.count("\n") == 1
    assert contents() == before
    return captured.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--resume"], "--resume DIR, or --output DIR"),
        (["--resume", "nowhere"], "'nowhere' holds no run to resume (no config.json)"),
        (["--resume", "--output", "nowhere"], "'nowhere' holds no run to resume"),
        (["--resume", "run", "--output", "other"], "--resume 'run' --output 'other'"),
        (["--resume", "run", "--overwrite"], "give one of them"),
        (["--resume", "run", "--latent-dim", "8"], "--latent-dim is 4 there and not 8"),
        (
            ["--resume", "run", "--seed", "1", "--hidden", "32", "16"],
            "--hidden is 32 there and not 32 16; --seed is 0 there and not 1",
        ),
        (["--resume", "run", "--likelihood", "gaussian"], "--likelihood is bernoulli there"),
        (["--resume", "run", "--preset", "best"], "--dataset is digits there and not mnist"),
        (["--resume", "run", "--epochs", "2"], "has done epoch 3 already; give --epochs 3 or more"),
        (["--resume", "run", "--checkpoint-steps", "-1"], "--checkpoint-steps must be at least 0"),
        (["--output", "run"], "--resume to continue the run in it"),
    ],
)  # fmt: skip
def test_mistakes_get_one_sentence(capsys, run, arguments, message):
    assert message in refused(capsys, *arguments)


def test_differences_from_another_config_file_are_named(capsys, run):
    other = dataclasses.replace(CONFIG, ema=0.9)
    Path("other.json").write_text(other.to_json())
    message = refused(capsys, "--resume", "run", "--config", "other.json")
    assert "--ema is None there and not 0.9" in message
    # A config.json changed by hand differs from the config in the checkpoints.
    (run / "config.json").write_text(other.to_json())
    assert "--ema is None there and not 0.9" in refused(capsys, "--resume", "run")


def test_fewer_epochs_than_begun_are_refused(capsys, run):
    save(run, 3, step=7)
    message = refused(capsys, "--resume", "run", "--epochs", "3")
    assert "has begun epoch 4 already; give --epochs 4 or more" in message


def test_more_epochs_after_early_stopping_are_refused(capsys, run):
    config = dataclasses.replace(CONFIG, patience=2)
    (run / "config.json").write_text(config.to_json())
    save(run, 4, config=config, early_stopping={"stopped_epoch": 3})
    message = refused(capsys, "--resume", "run", "--epochs", "50")
    assert "stopped early, after epoch 4" in message


def test_only_damaged_checkpoints_are_an_error_of_one_sentence(capsys, run):
    for path in (run / "checkpoints").iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    assert "All checkpoints in" in refused(capsys, "--resume", "run")


def test_missing_data_leave_the_state_unchanged(capsys, run):
    config = dataclasses.replace(CONFIG, dataset="gone.npz")
    (run / "config.json").write_text(config.to_json())
    save(run, 4, config=config)
    assert "gone.npz" in refused(capsys, "--resume", "run")


def test_a_run_in_progress_cannot_be_resumed(capsys, run):
    with RunFolder(run, resume=True):
        for arguments in (["--resume", "run"], ["--output", "run"]):
            assert "Another run is writing to" in refused(capsys, *arguments)


def test_resuming_a_complete_run_changes_nothing(capsys, run):
    save(run, 5)
    (run / "run.json").write_text(json.dumps({"epochs": 5}))
    before = contents()
    for arguments in (["run"], ["run", "--epochs", "5", "--latent-dim", "4"]):
        assert main(["train", "--resume", *arguments]) == 0
        said = capsys.readouterr()
        assert said.err == ""
        assert (
            said.out
            == "The run in run/ is complete: 5 epochs; give more --epochs to continue it.\n"
        )
    assert contents() == before


@pytest.mark.parametrize(
    ("program", "command"),
    [
        ("/usr/bin/tfp-flowvae", "tfp-flowvae train"),
        ("train.py", "/usr/bin/python train.py"),
        ("/x/tfp_flowvae/__main__.py", "/usr/bin/python -m tfp_flowvae train"),
    ],
)
def test_the_resume_command_repeats_the_command_of_the_user(program, command, monkeypatch):
    monkeypatch.setattr("sys.argv", [program])
    monkeypatch.setattr("sys.executable", "/usr/bin/python")
    assert Output().resume_command(Path("my run")) == f"{command} --resume 'my run'"
    options = {"tensorboard": True, "strategy": "mirrored", "stream": Path("a b"), "verbose": 2}
    assert Output(checkpoint_steps=5, **options).resume_command(Path("run")) == (
        f"{command} --resume run --checkpoint-steps 5 --verbose 2 --tensorboard "
        "--strategy mirrored --stream 'a b'"
    )


# The tests below need TensorFlow.

SMALL = {
    "flow": "none",
    "prior": "none",
    "latent_dim": 2,
    "hidden": (8,),
    "jit": False,
    "diagnostics": False,
}


@pytest.fixture(scope="module")
def splits():
    from tfp_flowvae.data import ImageSplits, load_images

    digits = load_images("digits")
    return ImageSplits(
        "digits", digits.train[:200], digits.valid[:40], digits.test[:40], digits.levels
    )


def train(config, splits, folder, stop=lambda: False):
    """Trains, resuming from the folder; returns the session, or None if it was stopped."""
    from tfp_flowvae.runs.checkpoint import Interrupted, Saving
    from tfp_flowvae.runs.session import Session

    store, session = CheckpointStore(folder), Session(config, splits)
    facts = lambda: {"config": dataclasses.asdict(config), "images": session.images_sum}  # noqa: E731
    try:
        session.fit(0, None, Saving(store, store.newest(), 0, facts, stop))
    except Interrupted:
        return None
    return session


def same(one, two):
    """Whether two sessions ended with bit-for-bit equal numbers."""
    histories = [[{**row, "seconds": 0} for row in s.history.rows] for s in (one, two)]
    weights = [s.model.get_weights() for s in (one, two)]
    return histories[0] == histories[1] and all(map(np.array_equal, *weights))


@pytest.mark.parametrize(
    ("values", "stops"),
    [
        # With batches of 3 an epoch is two executions, and its last batch is smaller. The third
        # call of `stop` is within the second epoch, the fourth at its end.
        ({"epochs": 2, "ema": 0.9, "batch_size": 3}, (3,)),
        pytest.param(
            {
                "epochs": 9, "ema": 0.9, "batch_size": 3, "patience": 1, "seed": 1,
                "learning_rate": 0.3,
            },
            (3, 4),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"epochs": 3, "batch_size": 3, "jit": True, "schedule": "inverse-time",
             "optimizer": "adamax", "prior": "vamp:3", "diagnostics": True, "clip_norm": 1.0,
             "warmup": "linear", "warmup_epochs": 2},
            (3, 4),
            marks=pytest.mark.slow,
        ),
    ],
    ids=["averages", "early", "rest"],
)  # fmt: skip
def test_a_resumed_run_equals_an_uninterrupted_run(values, stops, splits, tmp_path):
    config = TrainConfig(**{**SMALL, **values})
    whole = train(config, splits, tmp_path / "whole")
    asked, cut, places = [], tmp_path / "cut", []

    def stop():
        asked.append(None)
        return len(asked) in stops

    for _ in stops:
        assert train(config, splits, cut, stop) is None
        state = CheckpointStore(cut).newest().state
        places.append((state["epoch"], state["step"]))
    assert places == [(1, 34), (2, 0)][: len(stops)]
    resumed = train(config, splits, cut)
    count = len(whole.history.rows)
    assert 2 < count < 9 if config.patience else count == config.epochs
    assert same(whole, resumed)
    if len(stops) > 1:
        assert whole.evaluate() == resumed.evaluate()


@pytest.fixture(scope="module")
def labelled(splits):
    """The images with their classes, of which a third are missing in training."""
    from tfp_flowvae.data import Classes, load_classes

    found = load_classes("digits")
    train = np.where(np.arange(200) % 3, found.train[:200], -1).astype(np.int32)
    classes = Classes(found.names, train, found.valid[:40], found.test[:40])
    return dataclasses.replace(splits, classes=classes)


def test_a_resumed_run_with_labels_equals_an_uninterrupted_run(labelled, tmp_path):
    more = {"labels": True, "epochs": 2, "batch_size": 3, "prior": "vamp:3", "diagnostics": True}
    config = TrainConfig(**{**SMALL, **more})
    whole = train(config, labelled, tmp_path / "whole")
    asked, cut = [], tmp_path / "cut"

    def stop():
        asked.append(None)
        return len(asked) == 3

    assert train(config, labelled, cut, stop) is None
    resumed = train(config, labelled, cut)
    assert same(whole, resumed)
    assert whole.evaluate() == resumed.evaluate()


def test_other_labels_are_refused(labelled, tmp_path):
    from tfp_flowvae.errors import UserError

    config = TrainConfig(**{**SMALL, "epochs": 1, "labels": True})
    train(config, labelled, tmp_path / "run")
    classes = dataclasses.replace(labelled.classes, train=labelled.classes.train[::-1].copy())
    other = dataclasses.replace(labelled, classes=classes)
    with pytest.raises(UserError, match="images of 'digits' are not those the run began with"):
        train(dataclasses.replace(config, epochs=2), other, tmp_path / "run")


def test_other_images_are_refused(splits, tmp_path):
    from tfp_flowvae.errors import UserError

    config = TrainConfig(**{**SMALL, "epochs": 1})
    train(config, splits, tmp_path / "run")
    other = dataclasses.replace(splits, train=splits.train[::-1])
    with pytest.raises(UserError, match="images of 'digits' are not those the run began with"):
        train(dataclasses.replace(config, epochs=2), other, tmp_path / "run")
