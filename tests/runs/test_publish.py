"""`export` with the format saved_model: copies of runs to publish."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import h5py
import pytest
import tensorflow as tf
import yaml

import tfp_flowvae as fv
from tfp_flowvae.cli import main


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of one epoch."""
    folder = tmp_path_factory.mktemp("publish") / "run"
    small = ["--flow", "iaf:1,hidden=4", "--prior", "none", "--hidden", "8", "--latent-dim", "2"]
    settings = ["--epochs", "1", "--no-report", "--verbose", "0"]
    assert main(["train", *small, *settings, "--output", str(folder)]) == 0
    return folder


def header(folder):
    return yaml.safe_load((folder / "README.md").read_text().partition("\n---\n")[0])


def names_in(folder):
    return {file.name for file in folder.iterdir()}


def groups_of_weights(folder):
    with zipfile.ZipFile(folder / "model.keras") as file:
        return set(h5py.File(io.BytesIO(file.read("model.weights.h5"))))


def test_a_copy_has_what_using_the_model_needs_and_no_more(run, tmp_path, capsys):
    copy = tmp_path / "digits"
    assert main(["export", str(run), "--output", str(copy), "--license", "mit"]) == 0
    assert str(copy / "model.keras") in capsys.readouterr().out
    left_out = {"checkpoints", "history.csv", "reconstructions.png", "training.png"}
    assert names_in(copy) == names_in(run) - left_out
    served = [tf.saved_model.load(str(folder)) for folder in (copy, run)]
    tf.debugging.assert_equal(*(model.decode(tf.zeros([1, 2]))["images"] for model in served))
    assert groups_of_weights(run) - groups_of_weights(copy) == {"optimizer"}
    assert not fv.load(copy).compiled
    card = header(copy)
    assert card["license"] == "mit"
    assert card["model-index"][0]["name"] == "digits"
    assert card["model-index"][0]["results"] == header(run)["model-index"][0]["results"]


def test_a_copy_can_be_evaluated_and_keeps_its_license(run, tmp_path, capsys):
    copy, again = tmp_path / "digits", tmp_path / "again"
    main(["export", str(run), "--output", str(copy), "--license", "mit"])
    assert main(["evaluate", str(copy), "--card", "--quick", "--samples", "5"]) == 0
    card = header(copy)
    assert card["license"] == "mit"
    assert "nll" in card["metrics"]
    main(["export", str(copy), "--output", str(again)])
    assert header(again)["license"] == "mit"


def test_mistakes(run, tmp_path, refusal):
    there = str(tmp_path)
    assert "needs --output, the new folder" in refusal("export", str(run))
    assert "exists; choose another --output" in refusal("export", str(run), "--output", there)
    new = ["--output", str(tmp_path / "new")]
    assert "holds no model.keras" in refusal("export", there, *new)
    assert "a SavedModel has all functions" in refusal(
        "export", str(run), *new, "--functions", "decode"
    )
    assert "other formats have no card" in refusal(
        "export", str(run), "--format", "onnx", "--license", "mit"
    )
    assert not Path(tmp_path / "new").exists()
