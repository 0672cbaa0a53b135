"""The model in saved_models/: an export of version 0.1.0, which every later version must load."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import yaml
from PIL import Image

from tfp_flowvae.cli import main
from tfp_flowvae.evaluation.figures import Evaluation
from tfp_flowvae.runs.config import TrainConfig
from tfp_flowvae.runs.saved import fixed_images, load_model_and_images

FOLDER = Path(__file__).parents[2] / "saved_models" / "digits-iaf-realnvp"
PICTURE = FOLDER / "samples.png"


@pytest.fixture(scope="module")
def served():
    return tf.saved_model.load(str(FOLDER))


@pytest.fixture(scope="module")
def loaded():
    """The model and the images of its run."""
    config = TrainConfig.from_file(FOLDER / "config.json")
    model, splits = load_model_and_images(FOLDER, config)
    return model, fixed_images(splits, config, "test")


@pytest.fixture(scope="module")
def card():
    """The figures of the test images in the card, by name."""
    header = yaml.safe_load((FOLDER / "README.md").read_text().partition("\n---\n")[0])
    (model,) = header["model-index"]
    (results,) = (part for part in model["results"] if part["dataset"]["split"] == "test")
    return {metric["type"]: metric["value"] for metric in results["metrics"]}


def test_it_is_small():
    assert sum(file.stat().st_size for file in FOLDER.rglob("*")) < 3e6


def test_evaluated_again_it_has_the_figures_of_its_card(loaded, card):
    """The draws are those of the card, so what differs is rounding: 1e-4 nats of some 22.

    Where rounding decides which bin of a threshold a draw is in, an image may change its weights a
    little, and the mean of 360 images by less than the last digit of the card.
    """
    model, images = loaded
    nll = model.nll(images, num_samples=5000, seed=0)
    assert nll.mean() == pytest.approx(card["nll"], abs=5e-3)


def test_the_export_and_the_model_agree(served, loaded, rounding):
    """Within what some hundred roundings, one after the other, make of a number."""
    model, images = loaded
    x = images[:3]
    z = served.encode(x, 0)["z"]
    for found, expected in (
        (served.decode(z)["images"], model.decode(z)),
        (served.log_prior(z)["log_prior"], model.prior().log_prob(z)),
        (served.log_posterior(z, x)["log_posterior"], model.posterior(x).log_prob(z)),
        (served.sample(4, 0)["images"], model.sample(4, seed=0)),
    ):
        np.testing.assert_allclose(found, expected, **rounding(500, found, expected))


def test_every_function_runs(served):
    x = served.sample(2, 1)["images"]
    scalars = {"n": 3, "seed": 0, "steps": 4, "num_samples": 5, "temperature": 0.5}
    for name, function in served.signatures.items():
        arguments = {}
        for argument, spec in function.structured_input_signature[1].items():
            if argument in scalars:
                value = np.full([2] * spec.shape.rank, scalars[argument])
            else:
                value = tf.zeros([2, 8]) if argument == "z" else x
            arguments[argument] = tf.cast(value, spec.dtype)
        for result in function(**arguments).values():
            assert np.isfinite(result).all(), name


def test_the_readme_draws_from_it(tmp_path):
    picture = tmp_path / "samples.png"
    assert main(["sample", str(FOLDER), "--output", str(picture)]) == 0
    drawn, expected = (np.asarray(Image.open(file), int) for file in (picture, PICTURE))
    assert np.abs(drawn - expected).max() <= 1  # of 255, by rounding


def test_it_can_be_published_again(tmp_path):
    """Its config.json has fewer fields than those of later versions."""
    copy = tmp_path / "digits-iaf-realnvp"
    assert main(["export", str(FOLDER), "--output", str(copy)]) == 0
    files = {file.relative_to(FOLDER) for file in FOLDER.rglob("*")}
    assert {file.relative_to(copy) for file in copy.rglob("*")} >= files
    assert "| flow | iaf:1,hidden=48 |" in (copy / "README.md").read_text()


@pytest.mark.slow
def test_every_figure_of_the_card_comes_out_again(tmp_path, card):
    file = tmp_path / "figures.json"
    assert main(["evaluate", str(FOLDER), "--json", str(file)]) == 0
    found = Evaluation.from_dict(json.loads(file.read_text()))
    of_evaluation = {name: value for name, value in card.items() if hasattr(found, name)}
    assert len(of_evaluation) > 5
    for name, value in of_evaluation.items():
        # A Frechet distance of few draws is a difference of large numbers.
        assert getattr(found, name) == pytest.approx(value, rel=1e-2), name
