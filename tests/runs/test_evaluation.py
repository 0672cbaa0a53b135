"""The commands `evaluate`, `compare` and `score`: their tables, files and errors."""

from __future__ import annotations

import json
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml

from tfp_flowvae import FlowVAE
from tfp_flowvae.cli import main
from tfp_flowvae.evaluation.figures import Evaluation
from tfp_flowvae.runs.config import TrainConfig

SMALL = ["--samples", "20", "--quick"]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with small pictures, two runs on them, and an export without a config."""
    home = tmp_path_factory.mktemp("runs")
    rng = np.random.default_rng(0)
    np.save(home / "images.npy", rng.integers(0, 2, size=(40, 4, 4, 1)).astype(bool))
    np.save(home / "other.npy", rng.integers(0, 2, size=(40, 5, 4, 1)).astype(bool))
    for name, binarization in (("a", "dynamic"), ("b", "static"), ("c", "dynamic")):
        vae = FlowVAE(image_shape=(4, 4, 1), latent_size=2, encoder="mlp:4", decoder="mlp:4")
        (home / name).mkdir()
        vae.save(home / name / "model.keras")
        config = TrainConfig(dataset=str(home / "images.npy"), binarization=binarization, seed=1)
        (home / name / "config.json").write_text(config.to_json())
    (home / "export").mkdir()
    (home / "a" / "model.keras").rename(home / "export" / "model.keras")
    (home / "a" / "model.keras").write_bytes((home / "export" / "model.keras").read_bytes())
    (home / "density").mkdir()
    (home / "density" / "model.keras").touch()
    (home / "density" / "config.json").write_text('{"data": "table.csv"}')
    (home / "empty").mkdir()
    for name in ("older", "broken"):
        (home / name).mkdir()
        (home / name / "config.json").write_text((home / "c" / "config.json").read_text())
    (home / "broken" / "model.keras").write_text("not a zip file")
    _write_older(home / "c" / "model.keras", home / "older" / "model.keras")
    (home / "figures.json").write_text("[]")
    return home


def _write_older(file, older):
    """Writes a Keras file whose FlowVAE has an argument of another version."""
    with zipfile.ZipFile(file) as source, zipfile.ZipFile(older, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name == "config.json":
                content = content.replace(b'"latent_size"', b'"event_size_of_old"')
            target.writestr(name, content)


@pytest.fixture
def figures(home, monkeypatch, capsys):
    """What `evaluate` wrote and printed about the run `a`."""
    monkeypatch.chdir(home)
    file = Path("a.json")
    assert main(["evaluate", "a", *SMALL, "--json", str(file)]) == 0
    yield file, capsys.readouterr()
    file.unlink()


def test_each_figure_comes_with_its_protocol(figures, home):
    file, printed = figures
    found = Evaluation.from_dict(json.loads(file.read_text()))
    how = found.protocol
    assert (how.split, how.binarization, how.samples, how.seed) == ("test", "dynamic", 20, 1)
    assert how.dataset == str(home / "images.npy")
    assert len(found.nll_per_image) == how.images == 8
    assert f"a: 8 test images of {how.dataset}, binarization dynamic, seed 1" in printed.out
    assert f"{found.nll:.3f} +- {found.nll_se:.3f}" in printed.out
    for words in ("importance-weighted, 20 samples an image", "300 steps for each of 8 images"):
        assert words in printed.out
    assert printed.err == ""


def test_the_figures_are_written_into_the_model_card(home, monkeypatch, capsys):
    monkeypatch.chdir(home)
    command = ["evaluate", "export", *SMALL, "--dataset", "images.npy", "--binarization", "dynamic"]
    assert main([*command, "--card", "--json", "card.json"]) == 0
    found = Evaluation.from_dict(json.loads(Path("card.json").read_text()))
    Path("card.json").unlink()
    _, header, text = Path("export/README.md").read_text().split("---\n", 2)
    (result,) = yaml.safe_load(header)["model-index"][0]["results"]
    assert result["dataset"] == {"type": "images.npy", "name": "images.npy", "split": "test"}
    values = {metric["type"]: metric["value"] for metric in result["metrics"]}
    assert values["nll"] == found.nll
    assert values["elbo"] == found.elbo
    assert f"| -log p(x) | {found.nll:.3f} +- {found.nll_se:.3f} |" in text
    assert "20 samples an image; 8 test images of images.npy, binarization dynamic, seed 0" in text


def test_a_readme_that_is_no_card_is_not_overwritten(home, monkeypatch, refusal):
    monkeypatch.chdir(home)
    Path("a/README.md").write_text("Mine.")
    assert "'a/README.md' is no model card of this package" in refusal("evaluate", "a", "--card")
    Path("a/README.md").unlink()


def test_compare_pairs_by_image_and_refuses_other_protocols(figures, home, capsys):
    file, _ = figures
    assert main(["compare", str(file), str(file)]) == 0
    table = capsys.readouterr().out
    assert "differences paired by image" in table
    assert "+0.000 +- 0.000" in table
    assert main(["compare", str(file), "b", *SMALL]) == 2
    error = capsys.readouterr().err
    assert "binarization is 'dynamic' for 'a.json' and 'static' for 'b'" in error
    assert error.count("\n") == 1
    assert main(["compare", str(file), "c", "--quick", "--samples", "21"]) == 2
    assert "samples is 20 for 'a.json' and 21 for 'c'" in capsys.readouterr().err
    assert main(["compare", str(file), "b", *SMALL, "--across-protocols"]) == 0
    # The one draw of evaluation is the same for both.
    assert "differences paired by image" in capsys.readouterr().out


def test_scores_are_quantiles_of_the_runs_validation_images(home, monkeypatch, capsys):
    monkeypatch.chdir(home)
    file = Path("scores.json")
    assert main(["score", "a", "--samples", "20", "--json", str(file)]) == 0
    printed = capsys.readouterr()
    found = json.loads(file.read_text())
    file.unlink()
    assert (found["split"], found["samples"], found["seed"], found["valid_images"]) == (
        "test",
        20,
        1,
        4,
    )
    assert len(found["nll"]) == len(found["quantile"]) == 8
    # Shares of 4 validation images.
    assert set(found["quantile"]) <= {0.0, 0.25, 0.5, 0.75, 1.0}
    assert f"a: 8 test images of {found['dataset']}, binarization dynamic, seed 1" in printed.out
    worst = max(found["nll"])
    assert f"{found['nll'].index(worst)}      {worst:.3f}" in printed.out
    assert "a high likelihood alone does not prove that an image is typical" in printed.out
    assert printed.err == ""


def test_images_of_another_data_set_are_compared_with_those_of_the_run(home, monkeypatch, capsys):
    monkeypatch.chdir(home)
    np.save("bright.npy", np.ones((40, 4, 4, 1), bool))
    arguments = ["--dataset", "bright.npy", "--split", "valid", "--samples", "20"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the images are all alike
        assert main(["score", "a", *arguments]) == 0
    (home / "bright.npy").unlink()
    printed = capsys.readouterr().out
    assert "4 valid images of bright.npy" in printed
    assert f"validation images: 4 of {home / 'images.npy'}" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "nothing"], "'nothing' holds no model.keras; give the folder of a finished"),
        (["evaluate", "empty"], "'empty' holds no model.keras"),
        (["evaluate", "export"], "has no config.json, which names the images of a run; give --d"),
        (["evaluate", "density"], "'density' holds a density"),
        (["evaluate", "a", "--samples", "0"], "samples must be at least 1. Received: 0"),
        (["evaluate", "a", "--samples", "few"], "a whole number is expected, not 'few'"),
        (["evaluate", "a", "--features", "eyes"], "features must be pixels or encoder"),
        (["evaluate", "a", "--dataset", "digitz"], "Did you mean 'digits'"),
        (["evaluate", "a", "--dataset", "other.npy"], "needs images of shape (4, 4, 1). Received"),
        (["evaluate", "a", "--json", "no/a.json"], "The folder of --json 'no/a.json' does not"),
        (
            ["evaluate", "older"],
            "import your own layers first. Keras says: FlowVAE.__init__() missing",
        ),
        (["evaluate", "broken"], "'broken/model.keras' is not a Keras file"),
        (["evaluate", "a", "--samples", "-3"], "samples must be at least 1. Received: -3"),
        (["evaluate", "a", "--seed", "-1"], "seed must be at least 0. Received: -1"),
        (["evaluate", "a", "--split", "all"], "invalid choice: 'all'"),
        (["evaluate", "a", "--binarisation", "none"], "Did you mean '--binarization'"),
        (["score", "nothing"], "'nothing' holds no model.keras"),
        (["score", "export"], "has no config.json, which names the images of a run; give --d"),
        (["score", "density"], "'density' holds a density"),
        (["score", "older"], "cannot be read by this version of tfp_flowvae"),
        (["score", "a", "--samples", "0"], "samples must be at least 1. Received: 0"),
        (["score", "a", "--split", "valid"], "score others with --split or --dataset"),
        (["score", "a", "--dataset", "other.npy"], "needs images of shape (4, 4, 1). Received"),
        (["score", "a", "--json", "no/a.json"], "The folder of --json 'no/a.json' does not"),
        (["compare", "a", "nothing"], "'nothing' holds no model.keras"),
        (["compare", "a", "c", "--samples", "0"], "samples must be at least 1. Received: 0"),
        (["compare", "a"], "two paths or more. Received: 1"),
        (["compare", "a", "b"], "binarization is 'dynamic' for 'a' and 'static' for 'b'"),
        (["compare", "figures.json", "a"], "holds no figures of this version"),
        (["compare", "missing.json", "a"], "Cannot read 'missing.json'"),
    ],
)
def test_mistakes_get_one_sentence(arguments, message, home, monkeypatch, refusal):
    monkeypatch.chdir(home)
    assert message in refusal(*arguments)
