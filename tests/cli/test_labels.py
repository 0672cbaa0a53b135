"""`train --labels` and what reads its run."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml
from PIL import Image

from tfp_flowvae.cli import main
from tfp_flowvae.data import load_classes, load_images
from tfp_flowvae.evaluation.plots import image_grid
from tfp_flowvae.saving import load

SMALL = [
    "--flow", "iaf:1,hidden=8", "--prior", "vamp:4", "--hidden", "16", "--latent-dim", "3",
    "--epochs", "1", "--batch-size", "20", "--verbose", "0",
]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder with a data set of three classes, `data.npz`, and a run on it, `run`."""
    folder = tmp_path_factory.mktemp("labels")
    rng = np.random.default_rng(0)
    labels = rng.choice(["cat", "dog", "owl"], size=150)
    images = np.zeros((150, 6, 6), np.uint8)
    images[np.arange(150), :, np.searchsorted(["cat", "dog", "owl"], labels)] = 255
    images ^= (rng.uniform(size=images.shape) < 0.05).astype(np.uint8) * 255
    labels[::3] = "-1"
    arrays = {"x_train": images[:100], "x_test": images[100:]}
    np.savez(folder / "data.npz", **arrays, y_train=labels[:100], y_test=labels[100:])
    np.savez(folder / "bare.npz", **arrays)
    data, out = str(folder / "data.npz"), str(folder / "run")
    assert main(["train", "--labels", "--dataset", data, *SMALL, "--output", out]) == 0
    return folder


def test_the_run_knows_the_classes(run):
    vae = load(run / "run")
    assert vae.num_classes == 3
    assert json.loads((run / "run" / "run.json").read_text())["classes"] == ["cat", "dog", "owl"]
    card = (run / "run" / "README.md").read_text()
    assert "| classes | cat, dog, owl |" in card
    assert (
        "given their labels"
        in yaml.safe_load(card.split("---")[1])["model-index"][0]["results"][0]["metrics"][0][
            "name"
        ]
    )
    # A row of eight samples for each class.
    picture = np.asarray(Image.open(run / "run" / "samples.png"))
    cell = 72 + 4
    assert picture.shape[:2] == (3 * cell + 4, 8 * cell + 4)
    assert "class dog" in (run / "run" / "report.html").read_text("utf-8")


@pytest.fixture(scope="module")
def flow_run(run):
    """The folder of a run of `--model flow` on the same data."""
    how = ["--model", "flow", "--flow", "glow:levels=1,steps=1,width=4", "--epochs", "2"]
    how += ["--batch-size", "20", "--nll-samples", "2", "--verbose", "0"]
    data, out = str(run / "data.npz"), run / "flow"
    assert main(["train", "--labels", "--dataset", data, *how, "--output", str(out)]) == 0
    return out


def test_a_flow_of_images_knows_the_classes(flow_run, run):
    density = load(flow_run)
    assert (density.num_classes, density.label_dropout) == (3, 0.1)
    card = (flow_run / "README.md").read_text()
    assert "| classes | cat, dog, owl |" in card
    assert "given their labels" in card
    picture = np.asarray(Image.open(flow_run / "samples.png"))
    assert picture.shape[:2] == (3 * (72 + 4) + 4, 8 * (72 + 4) + 4)
    labels = np.repeat([0, 1, 2], 8)
    images = density.sample(24, seed=0, label=labels).numpy() / (density.levels - 1)
    np.testing.assert_array_equal(picture, image_grid(images, 8))
    metrics = json.loads((flow_run / "metrics.json").read_text())
    data = load_images(str(run / "data.npz"))
    classes = load_classes(str(run / "data.npz"))
    # The same program on the same numbers, built anew.
    for name, split, samples in (("valid_nll_bound", "valid", 1), ("test_nll", "test", 2)):
        images, labels = getattr(data, split), getattr(classes, split)
        nats = density.nll(images, samples, seed=0, label=labels).mean()
        np.testing.assert_allclose(metrics[name], nats, rtol=100 * np.finfo("f4").eps)


def test_samples_of_a_class_of_a_flow(flow_run, refusal, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "cat, dog, owl. Received: 'cow'" in refusal("sample", str(flow_run), "--label", "cow")
    density = load(flow_run)
    for label, number in ((["--label", "owl"], 2), ([], -1)):
        assert main(["sample", str(flow_run), "-n", "4", *label, "--output", "x.png"]) == 0
        images = density.sample(4, seed=0, label=number).numpy() / (density.levels - 1)
        picture = np.asarray(Image.open("x.png"))
        # The exported program rounds otherwise: a pixel at the border of two levels may differ.
        assert np.mean(picture == image_grid(images)) > 0.98


def test_samples_of_a_class_are_those_of_the_model(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for label in (["--label", "owl"], []):
        path = tmp_path / f"{len(label)}.png"
        assert main(["sample", str(run / "run"), "-n", "4", *label, "--output", str(path)]) == 0
    images = load(run / "run").sample(4, 0, label=2).numpy()
    picture = np.asarray(Image.open(tmp_path / "2.png")).astype(int)
    # Rounding may move a value by one of 255 grey levels.
    assert np.abs(picture - image_grid(images)).max() <= 1
    assert np.any(np.asarray(Image.open(tmp_path / "0.png")) != picture)


def test_evaluate_and_report_show_each_class(run, capsys, tmp_path):
    file = tmp_path / "figures.json"
    how = ["--samples", "5", "--quick", "--json", str(file)]
    assert main(["evaluate", str(run / "run"), *how]) == 0
    said = capsys.readouterr().out
    assert "accuracy of Bayes' rule" in said
    for name in ("cat", "dog", "owl"):
        assert f"\n{name} " in said
    page = tmp_path / "page.html"
    assert main(["report", str(run / "run"), "--figures", str(file), "--output", str(page)]) == 0
    assert "class owl: -log p(x|y) " in page.read_text("utf-8")
    # Another data set has other classes.
    other = ["--dataset", str(run / "bare.npz")]
    assert main(["evaluate", str(run / "run"), *other, *how[:3]]) == 0
    assert "accuracy" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sample", "{run}/run", "--label", "dgo"], "cat, dog, owl. Received: 'dgo'"),
        (["sample", "{run}/run", "--label", "7"], "cat, dog, owl. Received: '7'"),
        (
            ["train", "--labels", "--dataset", "{run}/bare.npz", *SMALL, "--output", "new"],
            "has no labels of its train images",
        ),
        (["train", "--labels", "--free-bits", "0.1", "--flow", "none"], "--free-bits needs"),
        (["train", "--resume", "{run}/run", "--no-labels"], "--labels is True there and not False"),
    ],
)
def test_mistakes_get_one_sentence(arguments, message, run, refusal, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in refusal(*(word.format(run=run) for word in arguments))


def test_a_model_without_classes_has_no_label(run, refusal, make_vae, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_vae().export(tmp_path / "plain")
    assert "holds a model without classes" in refusal("sample", "plain", "--label", "1")
    make_vae(num_classes=2).export(tmp_path / "classes")
    assert "whole number from 0. Received: 'cat'" in refusal("sample", "classes", "--label", "cat")
    assert "Received: 2, which is above" in refusal("sample", "classes", "--label", "2")
    assert main(["sample", "classes", "--label", "1", "-n", "1"]) == 0
