"""The report: at the end of a run, by the command, and its errors."""

from __future__ import annotations

import html
import json
import re
import shutil
import types
from pathlib import Path

import numpy as np
import pytest

from tfp_flowvae.cli import main
from tfp_flowvae.errors import UserError
from tfp_flowvae.runs import TrainConfig, run
from tfp_flowvae.runs.output import Output

QUICK = ["--quick", "--samples", "7"]
SMALL = [
    *("--flow", "planar:2", "--prior", "mixture:2", "--hidden", "8", "--latent-dim", "3"),
    *("--batch-size", "20", "--verbose", "0", "--no-jit"),
]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with labelled pictures, a run on them with its report, and a bare export."""
    home = tmp_path_factory.mktemp("report")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 2, size=(60, 8, 8, 1)).astype(bool)
    np.savez(home / "images.npz", images=images, labels=np.arange(60) % 3)
    np.save(home / "other.npy", images[:, :6])
    data = ["--dataset", str(home / "images.npz")]
    assert main(["train", *SMALL, *data, "--epochs", "2", "--output", str(home / "run")]) == 0
    (home / "export").mkdir()
    shutil.copy(home / "run" / "model.keras", home / "export")
    (home / "broken").mkdir()
    (home / "broken" / "model.keras").write_text("something else")
    shutil.copy(home / "run" / "config.json", home / "broken")
    (home / "newer").mkdir()
    shutil.copy(home / "run" / "model.keras", home / "newer")
    config = json.loads((home / "run" / "config.json").read_text())
    (home / "newer" / "config.json").write_text(json.dumps(config | {"wings": 2}))
    (home / "figures.json").write_text("[]")
    return home


@pytest.fixture
def inside(home, monkeypatch):
    monkeypatch.chdir(home)
    return home


def text_of(file):
    return re.sub(r"\s+", " ", html.unescape(file.read_text(encoding="utf-8")))


def test_a_run_ends_with_a_report(home):
    file = home / "run" / "report.html"
    assert file.stat().st_size < 5e6
    text = text_of(file)
    for words in (
        "posterior q(z|x) is planar:2, and its prior p(z) is mixture:2. It was trained for 2 "
        "epochs on 42 images",
        "Colours are labels",
        "take a minute or more, and were left out",
        f"python -m tfp_flowvae report {home / 'run'}",
        f"python -m tfp_flowvae train --config {home / 'run' / 'config.json'}",
        '"flow": "planar:2"',
        '"epochs": 2',
        "As in figure 4 of the study, centre",
    ):
        assert words in text


def test_the_report_is_made_again_from_the_folder(inside, capsys):
    first = (inside / "run" / "report.html").read_bytes()
    assert main(["report", str(inside / "run"), "--no-evaluate", "--output", "again.html"]) == 0
    assert "report    again.html (" in capsys.readouterr().out
    assert Path("again.html").read_bytes() == first
    Path("again.html").unlink()


@pytest.fixture
def ended(tmp_path, monkeypatch):
    """A function that ends a run in a folder with an old report, whose reports are "new"."""

    def end(write=lambda folder, *_: (folder / "report.html").write_text("new"), **output):
        folder = types.SimpleNamespace(path=tmp_path / "run", staging=tmp_path / "staging")
        for part in (folder.path, folder.staging):
            part.mkdir()
        (folder.path / "report.html").write_text("old")
        monkeypatch.setattr(run, "write_run_report", write)
        one = run._Run(TrainConfig(), Output(**output), folder, None, strategy=None)
        one._report(types.SimpleNamespace(model=None), None)
        found = sorted(tmp_path.rglob("report.html"))
        return [(file.parent.name, file.read_text()) for file in found]

    return end


def test_a_report_replaces_that_of_fewer_epochs(ended):
    assert ended() == [("staging", "new")]


def test_no_report_where_none_is_wanted(ended):
    assert ended(no_report=True) == []


def test_a_failure_of_the_report_does_not_cost_the_run(ended, capsys):
    def fail(*_):
        raise NotImplementedError("no mean")

    assert ended(fail) == []
    assert capsys.readouterr().err == "Warning: there is no report: no mean.\n"


@pytest.fixture(scope="module")
def figures(home):
    """The figures of the run by evaluate, in its folder."""
    file = home / "run" / "evaluation.json"
    assert main(["evaluate", str(home / "run"), *QUICK, "--json", str(file)]) == 0
    yield file
    file.unlink()


def test_figures_of_this_model_are_taken_and_the_page_is_opened(
    figures, inside, monkeypatch, capsys
):
    seen, browser = inside / "opened.txt", inside / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {seen}\n')
    browser.chmod(0o700)
    monkeypatch.setenv("BROWSER", str(browser))
    assert main(["report", "run", "--output", "taken.html", "--open"]) == 0
    file = Path("taken.html").absolute()
    assert seen.read_text().strip() == file.as_uri()
    text = text_of(file)
    assert "importance-weighted, 7 samples an image" in text
    assert "approximation gap" in text
    assert "12 test images of" in text
    for made in (file, seen, browser):
        made.unlink()


def test_figures_of_another_model_are_not_taken(figures, inside, monkeypatch, capsys):
    found = json.loads(figures.read_text())
    found["base_kl"][0] += 0.1  # as if the model had been trained further
    other = Path("export") / "evaluation.json"
    other.write_text(json.dumps(found))
    data = ["--dataset", "images.npz", "--binarization", "dynamic", "--output", "no.html"]
    assert main(["report", "export", *data, "--figures", str(other)]) == 2
    assert "are of another model or of other images" in capsys.readouterr().err
    asked = []

    def measure(model, splits, config, how):
        asked.append(how)
        raise UserError("Measured.")

    monkeypatch.setattr("tfp_flowvae.runs.report.measure", measure)
    assert main(["report", "export", *data, "--samples", "9", "--seed", "4"]) == 2
    assert (asked[0].quick, asked[0].sizes) == (True, {"samples": 9, "seed": 4})
    assert not Path("no.html").exists()
    other.unlink()


def test_a_file_that_cannot_be_written(inside, monkeypatch, capsys):
    monkeypatch.setattr("tfp_flowvae.runs.report._page", lambda *_: "a page")
    name = f"{'a' * 300}.html"
    assert main(["report", "run", "--no-evaluate", "--output", name]) == 2
    assert capsys.readouterr().err == f"Error: Cannot write {name!r}: File name too long.\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "'nothing' holds no model.keras; give the folder of a finished run or an"),
        (["export"], "has no config.json, which names the images of a run; give --dataset"),
        (["broken"], "is not a Keras file"),
        (["newer"], "Unknown field 'wings' in the config file"),
        (["run", "--dataset", "other.npy"], "needs images of shape (8, 8, 1). Received"),
        (["run", "--samples", "0"], "samples must be at least 1. Received: 0"),
        (["run", "--seed", "-1"], "seed must be at least 0"),
        (["run", "--output", "page.pdf"], "--output must name an .html file. Received: 'page.pdf'"),
        (["run", "--output", "no/page.html"], "The folder of --output 'no/page.html' does not"),
        (["run", "--figures", "missing.json"], "Cannot read 'missing.json'"),
        (["run", "--figures", "figures.json"], "holds no figures of this version"),
        (["run", "--open"], "needs a browser and a display, and there is none here; leave --open"),
        (["run", "--opne"], "Did you mean '--open'"),
    ],
)
def test_mistakes_get_one_sentence(arguments, message, inside, monkeypatch, refusal):
    def no_browser():
        import webbrowser

        raise webbrowser.Error("could not locate runnable browser")

    monkeypatch.setattr("webbrowser.get", no_browser)
    assert message in refusal("report", *arguments)
