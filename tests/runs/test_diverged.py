"""A run that diverges says where, keeps its last good state, and goes on from it."""

from __future__ import annotations

import json
import re

import keras
import numpy as np
import pytest

from tfp_flowvae.cli import main
from tfp_flowvae.runs.store import CheckpointStore

SMALL = """
--dataset images.npy --flow none --prior none --latent-dim 2 --hidden 8 --batch-size 20
--no-jit --no-diagnostics --schedule constant --verbose 0
"""


@pytest.fixture(autouse=True)
def _inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images = np.random.default_rng(0).random((100, 4, 4, 1)) < 0.5
    np.save("images.npy", images)


def test_a_run_goes_on_from_its_last_good_state_with_a_lower_rate(tmp_path, capsys):
    assert main(["train", *SMALL.split(), "--epochs", "1", "--output", "run"]) == 0
    store = CheckpointStore(tmp_path / "run" / "checkpoints")
    good, steps = store.newest(), 4
    capsys.readouterr()

    resume = ["train", "--resume", "run", "--verbose", "0"]
    assert main([*resume, "--epochs", "3", "--learning-rate", "1e30"]) == 1
    said = capsys.readouterr().err
    first, command = said.splitlines()
    assert re.match(
        rf"Error: training failed in epoch 2 at step {steps + 2}: the output of ", first
    )
    assert "Try --learning-rate 1e+29, --clip-norm 10, or" in first
    assert command.endswith("--resume run --verbose 0 --learning-rate 1e+29")
    assert store.newest().path == good.path
    for name, array in store.newest().arrays.items():
        np.testing.assert_array_equal(array, good.arrays[name])

    assert main([*resume, "--epochs", "2", "--learning-rate", "1e-3", "--clip-norm", "5"]) == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["learning_rate"], config["clip_norm"]) == (1e-3, 5.0)
    header, *rows = (tmp_path / "run" / "history.csv").read_text().splitlines()
    assert header.split(",")[-1] == "clipped"
    assert [row.split(",")[0] for row in rows] == ["1", "2"]
    assert rows[0].endswith(",nan")


def test_a_run_that_diverges_at_once_leaves_nothing(tmp_path, capsys):
    status = main(["train", *SMALL.split(), "--learning-rate", "1e30", "--output", "run"])
    said = capsys.readouterr().err
    assert status == 1
    assert said.startswith("Error: training failed in epoch 1 at step 2: the output of ")
    assert said.endswith("Nothing was written.\n")
    assert not (tmp_path / "run").exists()


def test_a_density_that_diverges_says_where(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(keras.optimizers.schedules, "CosineDecay", lambda *_: 1e30)
    np.save("rows.npy", np.random.default_rng(0).normal(size=(60, 2)))
    arguments = "density rows.npy --flow affine --batch-size 8 --output run --verbose 0"
    status = main(arguments.split())
    said = capsys.readouterr().err
    assert status == 1
    assert re.match(r"Error: training failed in epoch \d+ at step \d+: the output of step 1 ", said)
    assert said.endswith("Nothing was written.\n")
    assert not (tmp_path / "run").exists()
