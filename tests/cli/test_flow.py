"""`train --model flow`: a run on the digits, and what it refuses."""

from __future__ import annotations

import csv
import json
import math

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tfp_flowvae.cli import main
from tfp_flowvae.data import load_images
from tfp_flowvae.errors import UserError
from tfp_flowvae.evaluation.plots import image_grid
from tfp_flowvae.runs import TrainConfig
from tfp_flowvae.saving import load

ARGUMENTS = [
    *("train", "--model", "flow", "--flow", "glow:levels=1,steps=2,width=8", "--verbose", "0"),
    *("--temperature", "0.5", "--nll-samples", "3", "--learning-rate", "1e-3"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("flow") / "first"
    assert main([*ARGUMENTS, "--epochs", "2", "--output", str(folder)]) == 0
    return folder


def _json(file):
    return json.loads(file.read_text())


def _history(folder):
    with (folder / "history.csv").open(newline="") as lines:
        return list(csv.DictReader(lines))


def test_a_run_writes_its_files(run):
    names = {path.name for path in run.iterdir()}
    assert {"samples.png", "training.png", "model.keras", "saved_model.pb", "README.md"} <= names
    assert "report.html" in names
    assert "reconstructions.png" not in names
    assert "latent_dim" not in (run / "README.md").read_text()


def test_metrics_are_those_of_the_model(run):
    metrics, test = _json(run / "metrics.json"), load_images("digits").test
    model = load(run)
    assert model.levels == 17
    nats = float(np.mean(model.nll(test, 1, seed=0)))
    # The same program on the same numbers, built anew.
    np.testing.assert_allclose(metrics["test_nll_bound"], nats, rtol=100 * np.finfo("f4").eps)
    bits = metrics["test_bits_per_dimension"]
    np.testing.assert_allclose(bits, metrics["test_nll_bound"] / (64 * math.log(2.0)), rtol=1e-12)
    assert "test_nll" in metrics
    first, last = (float(row["val_bits_per_dim"]) for row in _history(run))
    assert last < first


def test_samples_have_the_temperature(run):
    model = load(run)
    images = model.sample(64, seed=0, temperature=0.5).numpy() / 16.0
    np.testing.assert_array_equal(np.asarray(Image.open(run / "samples.png")), image_grid(images))


def test_the_export_samples_pictures(run, tmp_path):
    picture = tmp_path / "grid.png"
    assert main(["sample", str(run), "-n", "4", "--seed", "1", "--output", str(picture)]) == 0
    served = tf.saved_model.load(run)
    images = served.sample(4, 1)["images"].numpy() / 16.0
    np.testing.assert_array_equal(np.asarray(Image.open(picture)), image_grid(images))


def test_samples_of_a_run_have_the_temperature_that_is_asked_for(run, tmp_path):
    picture = tmp_path / "cold.png"
    arguments = ["sample", str(run), "-n", "4", "--seed", "1", "--output", str(picture)]
    assert main([*arguments, "--temperature", "0.5"]) == 0
    served = tf.saved_model.load(run)
    images = served.sample_at_temperature(4, 1, 0.5)["images"].numpy() / 16.0
    np.testing.assert_array_equal(np.asarray(Image.open(picture)), image_grid(images))


def test_a_resumed_run_is_the_uninterrupted_one(run, tmp_path):
    cut = tmp_path / "cut"
    # A constant schedule does not depend on the number of epochs.
    schedule = ["--schedule", "constant", "--no-report", "--output", str(cut)]
    assert main([*ARGUMENTS, *schedule, "--epochs", "1"]) == 0
    assert main([*ARGUMENTS, *schedule, "--epochs", "2", "--resume"]) == 0
    whole = tmp_path / "whole"
    assert main([*ARGUMENTS, *schedule[:3], "--epochs", "2", "--output", str(whole)]) == 0
    assert _json(cut / "metrics.json") == _json(whole / "metrics.json")
    assert len(_history(cut)) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prior", "maf"], "--prior is an option of --model vae: leave it out"),
        (["--likelihood", "gaussian"], "--likelihood is an option of --model vae"),
        (["--binarization", "dynamic"], "--model flow takes the grey levels as they are: leave"),
        (["--preset", "best"], "is an option of --model vae"),
        (["--flow", "iaf"], "use 'maf' instead"),
        (["--flow", "glow:steps=0"], "steps must be a whole number of at least 1"),
        (["--weight-decay", "0.1"], "--weight-decay needs --optimizer adamw"),
        (["--temperature", "-1"], "--temperature must be at least 0"),
        (["--flow", "mixture:3+glow"], "'glow' is a flow of images and stands alone: leave the"),
        (["--flow", "glow+maf:2"], "'glow' is a flow of images and stands alone: leave the other"),
        (["--flow", "tril+maf:1"], "The base 'tril' cannot be the base of a flow of images: choos"),
        (["--flow", "vamp:5"], "choose normal or mixture. Received: --flow vamp:5"),
        (["--flow", "none"], "The flow has no weights to train: choose another one, such as glow"),
    ],
)
def test_mistakes_get_one_sentence(refusal, monkeypatch, tmp_path, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert message in refusal("train", "--model", "flow", *arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--flow", "glow:levels=4"], "or take levels=3. Received: image_shape=(8, 8, 1)"),
        (["--flow", "realnvp-image", "--dataset", "odd.npy"], "so height and width must be mult"),
        (["--dataset", "floats.npz"], "models grey levels, which are whole numbers"),
        (["--flow", "residual", "--dataset", "odd.npy"], "takes a number of pixels of at most 64"),
        (["--flow", "realnvp", "--dataset", "pixel.npy"], "needs a number of pixels of at least 2"),
    ],
)
def test_images_that_do_not_fit_are_refused_before_they_are_loaded(
    refusal, monkeypatch, tmp_path, arguments, message
):
    monkeypatch.chdir(tmp_path)
    np.savez("floats.npz", x_train=np.zeros([300, 8, 8, 1], "f4"))
    np.save("odd.npy", np.zeros([300, 9, 9], "u1"))
    np.save("pixel.npy", np.zeros([300, 1, 1], "u1"))
    assert message in refusal("train", "--model", "flow", *arguments)
    assert {path.name for path in tmp_path.iterdir()} == {"floats.npz", "odd.npy", "pixel.npy"}


def test_a_session_refuses_images_that_were_downloaded_first(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tfp_flowvae.runs.run.check_known_images", lambda config: None)
    assert main(["train", "--model", "flow", "--flow", "glow:levels=4"]) == 2
    error = capsys.readouterr().err
    assert "or take levels=3. Received: image_shape=(8, 8, 1)" in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_vae_refuses_options_of_flows(refusal):
    assert "--temperature is an option of --model flow" in refusal("train", "--temperature", "0.5")
    assert "give --model flow" in refusal("train", "--dequantize", "variational")
    assert "is a flow of images and stands alone" in refusal("train", "--flow", "glow")


def test_the_config_of_a_flow_reads_its_own_json():
    config = TrainConfig(model="flow")
    assert (config.flow, config.binarization) == ("glow", "none")
    assert TrainConfig.from_mapping(json.loads(config.to_json()), "json") == config
    with pytest.raises(UserError, match="--samples is an option of --model vae"):
        TrainConfig(model="flow", samples=2)
