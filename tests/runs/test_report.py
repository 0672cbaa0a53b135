"""The report: at the end of a run, by the command, its errors, and in a browser."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from tfp_flowvae.cli import main

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


class Page(HTMLParser):
    """The images and the text of a page, and the addresses that it names."""

    def __init__(self, file):
        super().__init__()
        self.images, self.addresses, self.text = [], [], ""
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if tag == "img":
            self.images.append(values)
        self.addresses += [values[name] for name in ("src", "href") if name in values]

    def handle_data(self, data):
        self.text += re.sub(r"\s+", " ", data)


def check(page):
    """What is true of every report."""
    for image in page.images:
        assert image["alt"]
        assert int(image["width"]) > 0
        assert int(image["height"]) > 0
    assert all(address.startswith("data:") for address in page.addresses)
    assert "nan" not in page.text.lower().split()


def test_a_run_ends_with_a_report(home):
    file = home / "run" / "report.html"
    page = Page(file)
    check(page)
    # 4 temperatures, 2 x 2 rows of reconstructions, 5 paths, 3 traversals, the map, 4 rows of
    # neighbours, 3 pairs of dimensions, 5 curves, 4 log-densities, 2 of KLs.
    assert len(page.images) == 4 + 4 + 5 + 3 + 1 + 4 + 3 + 5 + 4 + 2
    assert file.stat().st_size < 5e6
    for words in (
        "the flow planar:2; its prior p(z) is mixture:2. It was trained for 2 epochs on 42",
        "Colours are labels",
        "-log p(x), the gaps and the sample quality take a minute or more, and were left out",
        f"python -m tfp_flowvae report {home / 'run'}",
        "python -m tfp_flowvae train --config",
        '"flow": "planar:2"',
        "Figure 4, centre",
    ):
        assert words in page.text
    assert "Figures" not in [p.name for p in (home / "run").iterdir()]


def test_the_report_is_made_again_from_the_folder(inside, capsys):
    first = (inside / "run" / "report.html").read_bytes()
    assert main(["report", str(inside / "run"), "--no-evaluate", "--output", "again.html"]) == 0
    assert "report    again.html (" in capsys.readouterr().out
    assert Path("again.html").read_bytes() == first
    Path("again.html").unlink()


def test_no_report_where_none_is_wanted(tmp_path, home, capsys):
    data = ["--dataset", str(home / "images.npz"), "--epochs", "1", "--no-diagnostics"]
    assert main(["train", *SMALL, *data, "--no-report", "--output", str(tmp_path / "run")]) == 0
    assert not (tmp_path / "run" / "report.html").exists()
    assert "report.html" not in capsys.readouterr().out
    # Without diagnostics there are no log-densities to draw.
    assert main(["report", str(tmp_path / "run"), "--no-evaluate"]) == 0
    page = Page(tmp_path / "run" / "report.html")
    check(page)
    assert "There is no record of log-densities over epochs" in page.text


def test_a_failure_of_the_report_does_not_cost_the_run(tmp_path, home, capsys, monkeypatch):
    def fail(*_):
        raise NotImplementedError("no mean")

    monkeypatch.setattr("tfp_flowvae.runs.run.write_run_report", fail)
    data = ["--dataset", str(home / "images.npz"), "--epochs", "1", "--no-diagnostics"]
    assert main(["train", *SMALL, *data, "--output", str(tmp_path / "run")]) == 0
    assert capsys.readouterr().err == "Warning: there is no report: no mean.\n"
    assert (tmp_path / "run" / "run.json").is_file()


@pytest.fixture(scope="module")
def measured(home):
    """The report with figures, and the file that the browser was asked to open."""
    seen = home / "opened.txt"
    browser = home / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {seen}\n')
    browser.chmod(browser.stat().st_mode | stat.S_IXUSR)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BROWSER", str(browser))
        patch.chdir(home)
        arguments = ["report", "export", "--dataset", "images.npz", "--binarization", "none"]
        assert main([*arguments, "--samples", "20", "--output", "figures.html", "--open"]) == 0
    return home / "figures.html", seen


def test_the_command_measures_and_opens_the_page(measured):
    file, seen = measured
    assert seen.read_text().strip() == file.as_uri()
    page = Page(file)
    check(page)
    for words in (
        "importance-weighted, 20 samples an image",
        "approximation gap",
        "12 test images of images.npz, binarization none, seed 0",
        "There is no history.csv",
        "There is no config.json",
        "its prior p(z) is Mixture.",
    ):
        assert words in page.text


def test_figures_of_this_model_are_taken_and_others_are_not(inside, capsys, monkeypatch):
    file = inside / "run" / "evaluation.json"
    assert main(["evaluate", "run", "--quick", "--samples", "7", "--json", str(file)]) == 0
    capsys.readouterr()

    def measure(*_):
        raise AssertionError("the model was measured again")

    monkeypatch.setattr("tfp_flowvae.runs.report.measure", measure)
    assert main(["report", "run", "--output", "taken.html"]) == 0
    assert "importance-weighted, 7 samples an image" in Page(Path("taken.html")).text
    found = json.loads(file.read_text())
    found["base_kl"][0] += 0.1  # as if the model had been trained further
    file.write_text(json.dumps(found))
    assert main(["report", "run", "--figures", str(file), "--output", "no.html"]) == 2
    assert "are of another model or of other images" in capsys.readouterr().err
    with pytest.raises(AssertionError, match="measured again"):
        main(["report", "run", "--output", "no.html"])
    assert not Path("no.html").exists()
    file.unlink()
    Path("taken.html").unlink()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "'nothing' holds no model.keras; give the folder of a finished run or an"),
        (["export"], "has no config.json, which names the images of a run; give --dataset"),
        (["broken"], "is not a model that Keras can load"),
        (["newer"], "Unknown field 'wings' in the config file"),
        (["run", "--dataset", "other.npy"], "needs images of shape (8, 8, 1). Received"),
        (["run", "--samples", "0"], "samples must be at least 1. Received: 0"),
        (["run", "--seed", "-1"], "seed must be at least 0"),
        (["run", "--output", "page.pdf"], "--output must name an .html file. Received: 'page.pdf'"),
        (["run", "--output", "no/page.html"], "The folder of --output 'no/page.html' does not"),
        (["run", "--output", f"{'a' * 300}.html", "--no-evaluate"], "Cannot write"),
        (["run", "--figures", "missing.json"], "Cannot read 'missing.json'"),
        (["run", "--figures", "figures.json"], "holds no figures of this version"),
        (["run", "--open"], "needs a browser and a display, and there is none here; leave --open"),
        (["run", "--opne"], "Did you mean '--open'?"),
    ],
)
def test_mistakes_get_one_sentence(arguments, message, inside, monkeypatch, capsys):
    def no_browser():
        import webbrowser

        raise webbrowser.Error("could not locate runnable browser")

    monkeypatch.setattr("webbrowser.get", no_browser)
    before = {path: os.stat(path).st_mtime_ns for path in inside.rglob("*") if path.is_file()}
    try:
        status = main(["report", *arguments])
    except SystemExit as stop:
        status = stop.code
    printed = capsys.readouterr()
    assert status == 2
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""
    after = {path: os.stat(path).st_mtime_ns for path in inside.rglob("*") if path.is_file()}
    assert after == before
