"""The documentation: its code runs, its commands parse, and its lists and figures are complete."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import json
import re
import shlex
import warnings
from pathlib import Path
from types import SimpleNamespace

import keras
import pytest
import tensorflow_probability as tfp

import tfp_flowvae as fv
from tfp_flowvae import bijectors as fvb
from tfp_flowvae.cli import _make_parser
from tfp_flowvae.errors import UserError
from tfp_flowvae.flows import FLOWS
from tfp_flowvae.runs.config import TrainConfig
from tfp_flowvae.runs.start import choose_config
from tfp_flowvae.training import xla

ROOT = Path(__file__).parents[1]


def pages():
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def text_of(page):
    return (ROOT / page).read_text(encoding="utf-8")


def blocks_of(page, language):
    """Each block, with as many blank lines before it as there are lines of the page.

    Blocks in HTML comments, which readers do not see, are among them.
    """
    text = text_of(page)
    for found in re.finditer(rf"^```{language}\n(.*?)^```$", text, re.M | re.S):
        yield "\n" * text.count("\n", 0, found.start(1)) + found.group(1)


def with_blocks(language):
    names = (str(page.relative_to(ROOT)) for page in pages())
    return [name for name in names if any(blocks_of(name, language))]


@pytest.fixture
def registered_for_now(monkeypatch):
    """Flows that a page registers are known until the end of the test."""
    monkeypatch.setattr(FLOWS, "_entries", dict(FLOWS))


@pytest.fixture
def without_xla(monkeypatch):
    """XLA would compile for most of the time; that models train with it is tested elsewhere."""
    monkeypatch.setattr(xla, "layers_within", lambda model: [SimpleNamespace(supports_jit=False)])


# They need packages of extras; tests/test_tracking.py runs the first.
OF_EXTRAS = {"docs/tracking.md", "docs/devices.md", "docs/hub.md"}


@pytest.mark.parametrize("page", sorted({*with_blocks("python")} - OF_EXTRAS))
def test_the_blocks_run(page, tmp_path, monkeypatch, registered_for_now, without_xla):
    """Top to bottom, in one namespace and an empty folder, as they stand."""
    monkeypatch.chdir(tmp_path)
    keras.utils.set_random_seed(0)
    namespace = {"__name__": "page"}
    with warnings.catch_warnings():
        # docs/from-tfp.md shows both.
        warnings.filterwarnings("ignore", "`tf.layers.dense` is deprecated", UserWarning)
        warnings.filterwarnings("ignore", "The model does not have any trainable", UserWarning)
        for block in blocks_of(page, "python"):
            exec(compile(block, str(ROOT / page), "exec"), namespace)
    keras.backend.clear_session()


def commands_of(page):
    """The commands of the shell blocks that run Python, each as a list of words."""
    for block in blocks_of(page, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            for command in line.partition("  #")[0].split("&&"):
                words = shlex.split(command)
                if words and re.fullmatch(r"(\.venv/bin/)?python", words[0]):
                    yield words[1:]


# The scripts of docs/distributed.md are run in tests/training/test_strategy.py.
@pytest.mark.parametrize("page", sorted({*with_blocks("sh")} - {"docs/distributed.md"}))
def test_the_commands_parse(page):
    for words in commands_of(page):
        if words[0] == "train.py":
            check_train(words[1:])
        elif words[:2] == ["-m", "tfp_flowvae"]:
            _make_parser(None).parse_args(words[2:])
        elif words[0] == "-m":
            assert importlib.util.find_spec(words[1]), words
        else:
            assert (ROOT / words[0]).is_file(), words


def check_train(options):
    """Parses the options and, where they do not name files, checks the settings."""
    arguments = _make_parser("train.py").parse_args(["train", *options])
    names = {field.name for field in dataclasses.fields(TrainConfig)}
    given = {name: value for name, value in vars(arguments).items() if name in names}
    if not (arguments.resume or arguments.config or "--plugin" in options):
        choose_config(given, arguments.preset, None, None)


@pytest.mark.parametrize("options", ["--flow iaff", "--flow maf", "--no-such-option"])
def test_a_wrong_command_is_found(options):
    with pytest.raises((UserError, SystemExit)):
        check_train(options.split())


def test_the_errors_that_the_page_on_tfp_quotes():
    tfb, tfd = tfp.bijectors, tfp.distributions
    made = tfb.AutoregressiveNetwork(params=2, hidden_units=[4])
    flow = tfb.MaskedAutoregressiveFlow(made)
    maf = tfd.TransformedDistribution(tfd.Sample(tfd.Normal(0.0, 1.0), [2]), flow)
    names = {"keras": keras, "tfb": tfb, "made": made, "maf": maf}
    rows = re.findall(r"^\| `(.+?)` \| `(.+?)\.` \|$", text_of("docs/from-tfp.md"), re.M)
    assert len(rows) == 3
    for code, message in rows:
        with pytest.raises(ValueError) as caught:  # noqa: PT011
            eval(code, names)
        assert message in str(caught.value).replace("`", "")


def test_the_page_of_the_bijectors_lists_them_all():
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", text_of("docs/bijectors.md"), re.M)
    listed = [name for row in rows for name in re.findall(r"\w+", row)]
    assert sorted(listed) == sorted(fvb.__all__)


def test_the_pictures_of_the_readme_are_there_and_small():
    text = text_of("README.md")
    pictures = re.findall(r"!\[([^\]]+)\]\((docs/images/[^)]+)\)", text)
    assert {path for _, path in pictures} >= {f"docs/images/{n}.png" for n in ("flow", "samples")}
    assert all(len(alt) > 20 for alt, _ in pictures)
    assert sum((ROOT / path).stat().st_size for _, path in pictures) < 300_000


def test_the_mathematics_is_there_for_every_bijector():
    text = text_of("docs/mathematics.md")
    modules = re.findall(r"^::: tfp_flowvae\.bijectors\.(\w+)$", text, re.M)
    helpers = {"joint", "permutation"}
    files = {path.stem for path in (ROOT / "tfp_flowvae/bijectors").glob("*.py")}
    assert set(modules) == files - helpers - {"__init__"}


API = sorted({*(ROOT / "docs/api").glob("*.md")} - {ROOT / "docs/api/index.md"})


def test_the_api_pages_list_every_public_name():
    listed = set(re.findall(r"`fv\.(\w+)`", text_of("docs/api/index.md")))
    assert listed == {*fv.__all__} - {"__version__"}
    for page in API:
        package = importlib.import_module(f"tfp_flowvae.{page.stem}")
        paths = re.findall(r"^::: ([\w.]+)$", page.read_text(encoding="utf-8"), re.M)
        for path in paths:
            module, _, name = path.rpartition(".")
            assert hasattr(importlib.import_module(module), name), path
        names = {path.rpartition(".")[2] for path in paths}
        assert set(getattr(package, "__all__", ())) <= names, page.stem


def test_every_subpackage_has_an_api_page():
    packages = {path.parent.name for path in (ROOT / "tfp_flowvae").glob("*/__init__.py")}
    assert packages - {"cli"} == {page.stem for page in API}


def test_figures_on_the_digits_are_those_of_the_benchmark():
    rows = re.findall(r"^\| .* \| \d\d\.\d\d \|.*$", text_of("docs/flows.md"), re.M)
    assert len(rows) > 5
    assert set(rows) <= set(text_of("benchmarks/results/digits.md").splitlines())


def test_differences_on_the_digits_are_those_of_the_benchmark():
    found = {}
    for row in json.loads(text_of("benchmarks/results/digits.json"))["rows"]:
        if row["base"] == "diag":
            found[row["flow"], row["prior"]] = row["mean"]
    plain = found["none", "none"]
    gains = re.search(
        r"gains (\d\.\d\d) nats as a\s+prior, and\s+IAF (\d\.\d\d)", text_of("docs/flows.md")
    )
    assert float(gains[1]) == pytest.approx(plain - found["none", "realnvp"], abs=0.0051)
    assert float(gains[2]) == pytest.approx(plain - found["iaf", "none"], abs=0.0051)


def test_the_pictures_are_drawn(tmp_path, monkeypatch, without_xla):
    """With few steps; docs/make_figures.py draws the committed ones."""
    monkeypatch.syspath_prepend(ROOT / "docs")
    figures = importlib.import_module("make_figures")
    found = figures.draw_posterior(tmp_path / "posterior.png", steps=200)
    figures.draw_density(tmp_path / "density.png", epochs=1)
    assert {path.name for path in tmp_path.iterdir()} == {
        path.name for path in figures.FOLDER.iterdir()
    }
    assert found["planar:16"] < found["a normal"]
