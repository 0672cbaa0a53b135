"""`evaluate`, `compare`, `score` and `report` of a flow of images."""

from __future__ import annotations

import html
import json
import shutil

import numpy as np
import pytest

from tfp_flowvae.cli import main
from tfp_flowvae.evaluation.figures import DensityEvaluation, read_figures

FEW = ["--samples", "3"]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a run, its export without a config, its figures, and other images."""
    home = tmp_path_factory.mktemp("flows")
    run = home / "run"
    flow = ["--model", "flow", "--flow", "glow:levels=1,steps=1,width=8", "--epochs", "1"]
    data, rng = home / "images.npz", np.random.default_rng(0)
    x = rng.integers(0, 5, [60, 4, 4, 1]).astype("uint8")
    np.savez(data, images=x, labels=np.arange(60) % 2, levels=5)
    np.savez(home / "more.npz", images=60 * x)  # of 256 levels
    np.savez(home / "floats.npz", images=x / 4.0)
    np.savez(home / "other.npz", images=x[:, :2], levels=5)
    arguments = ["--dataset", str(data), "--batch-size", "20", "--verbose", "0", "--no-report"]
    assert main(["train", *flow, *arguments, "--output", str(run)]) == 0
    (home / "export").mkdir()
    shutil.copy(run / "model.keras", home / "export")
    (home / "mixed").mkdir()
    shutil.copy(run / "model.keras", home / "mixed")
    (home / "mixed" / "config.json").write_text(json.dumps({"dataset": str(data)}))
    (home / "vae").mkdir()
    (home / "vae" / "model.keras").touch()
    (home / "vae" / "config.json").write_text("{}")
    figures = str(home / "figures.json")
    assert main(["evaluate", str(run), *FEW, "--json", figures, "--card"]) == 0
    return home


@pytest.fixture
def inside(home, monkeypatch):
    monkeypatch.chdir(home)
    return home


def test_the_figures_are_in_the_file_and_the_card(inside, capsys):
    found = read_figures(json.loads((inside / "figures.json").read_text()))
    assert isinstance(found, DensityEvaluation)
    how = found.protocol
    assert (how.split, how.samples, how.binarization, how.images) == ("test", 3, "none", 12)
    assert found.class_names == ("0", "1")
    card = (inside / "run" / "README.md").read_text()
    assert f"| -log P(x), upper bound | {found.nll:.3f} +- {found.nll_se:.3f} |" in card
    assert "bits_per_dimension" in card.split("---")[1]


def test_an_export_needs_only_the_data_set(inside, capsys):
    assert main(["evaluate", "export", *FEW, "--dataset", "images.npz", "--seed", "0"]) == 0
    printed = capsys.readouterr()
    found = read_figures(json.loads((inside / "figures.json").read_text()))
    assert f"{found.nll:.3f} +- {found.nll_se:.3f}" in printed.out
    assert "the uniform dequantisation makes the figures of -log P(x) upper bounds" in printed.out
    assert printed.err == ""


def test_flows_are_compared_with_flows(inside, refusal, capsys):
    assert main(["compare", "figures.json", "run", *FEW]) == 0
    table = capsys.readouterr().out
    assert "differences paired by image" in table
    assert "+0.000 +- 0.000" in table
    refused = refusal("compare", "run", "vae")
    assert "takes models of one kind" in refused
    assert "a flow of images in 'run' and a VAE in 'vae'" in refused


def test_scores_are_bounds(inside, capsys):
    assert main(["score", "run", *FEW]) == 0
    printed = capsys.readouterr().out
    assert "mean, upper bound, 3 draws of the noise" in printed
    assert "compared with validation images: " in printed


def test_the_report_has_the_figures_that_are_of_this_model(inside, capsys):
    assert main(["report", "run", "--figures", "figures.json", "--output", "page.html"]) == 0
    text = " ".join(html.unescape((inside / "page.html").read_text()).split())
    for words in (
        "A normalizing flow of the pixels, glow:levels=1,steps=1,width=8, with uniform deq",
        "upper bound with 3 draws of the noise an image",
        "Classes</h2>",
        "class 1: -log P(x)",
        "glow: scales of ActNorm",
        "python -m tfp_flowvae report run",
    ):
        assert words in text
    assert "The map" not in text
    other = json.loads((inside / "figures.json").read_text())
    other["nll_per_image"][0] += 1.0
    (inside / "others.json").write_text(json.dumps(other))
    assert main(["report", "run", "--figures", "others.json", "--output", "no.html"]) == 2
    assert "are of another model or of other images" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "export"], "has no config.json, which names the images of a run; give --da"),
        (["evaluate", "run", "--features", "encoder"], "features must be pixels for a flow of"),
        (["evaluate", "run", "--binarization", "dynamic"], "takes the grey levels as they are"),
        (["evaluate", "run", "--dataset", "more.npz"], "of 5 grey levels, whole numbers from 0 t"),
        (["evaluate", "run", "--dataset", "floats.npz"], "'floats.npz' with float images"),
        (["evaluate", "run", "--dataset", "other.npz"], "needs images of shape (4, 4, 1). Recei"),
        (["evaluate", "run", "--samples", "0"], "samples must be at least 1. Received: 0"),
        (["evaluate", "run", "--seed", "99999999999"], "seed must be below 2147483648"),
        (["evaluate", "run", "--json", "."], "--json must name a file. Received: '.', which is"),
        (["sample", "run", "--temperature", "-1"], "--temperature must be at least 0"),
        (["evaluate", "mixed"], "must be of the kind FlowVAE. Received: ImageDensity."),
        (["report", "run", "--dataset", "floats.npz"], "'floats.npz' with float images"),
        (["report", "run", "--figures", "run/metrics.json"], "holds no figures of this version"),
        (["score", "run", "--dataset", "more.npz"], "needs images of 5 grey levels"),
    ],
)
def test_mistakes_get_one_sentence(arguments, message, inside, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.splitlines()[-1].startswith("Error: ")
