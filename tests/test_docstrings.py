"""The examples in the docstrings of public names run and give what they show."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import itertools
import re
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_probability import bijectors as tfb
from tensorflow_probability import distributions as tfd

import tfp_flowvae as fv
from tfp_flowvae.distributions import BASES
from tfp_flowvae.flows import FLOWS
from tfp_flowvae.likelihoods import LIKELIHOODS
from tfp_flowvae.networks import NETWORKS
from tfp_flowvae.runs.presets import PRESETS

PAGES = sorted((Path(__file__).parents[1] / "docs" / "api").glob("*.md"))
USUAL = {"fv": fv, "keras": keras, "np": np, "tf": tf, "tfb": tfb, "tfd": tfd}
NUMBER = re.compile(r"-?\d+\.\d+(?:e[+-]?\d+)?")


class ShownDigits(doctest.OutputChecker):
    """Compares decimal numbers to as many digits as the docstring shows."""

    def check_output(self, want, got, optionflags):
        shown, found = NUMBER.findall(want), NUMBER.findall(got)
        for wanted, number in zip(shown, found, strict=False):
            unit = 10.0 ** -len(wanted.partition(".")[2])
            if abs(float(wanted) - float(number)) <= unit:
                got = got.replace(number, wanted, 1)
        return super().check_output(want, got, optionflags)


def documented(page):
    """The public names on a page of the documentation, as `module.name`."""
    return re.findall(r"^::: ([\w.]+)$", page.read_text(encoding="utf-8"), re.M)


def docstring(module, name):
    """A name's docstring: that of a constant is the string below it, as in the documentation."""
    value = getattr(module, name)
    if inspect.isclass(value) or inspect.isfunction(value):
        return value.__doc__ or ""
    for node, below in itertools.pairwise(ast.parse(inspect.getsource(module)).body):
        if ast.unparse(node).startswith((f"{name} = ", f"{name}: ")):
            return below.value.value if isinstance(below, ast.Expr) else ""
    return ""


def examples(path):
    """The doctest of a name's own docstring."""
    name, _, attribute = path.rpartition(".")
    module = importlib.import_module(name)
    package = importlib.import_module(name.rpartition(".")[0])
    public = {public: getattr(package, public) for public in getattr(package, "__all__", ())}
    names = {**USUAL, **public, **vars(module)}
    text = docstring(module, attribute)
    return doctest.DocTestParser().get_doctest(text, names, path, module.__file__, 0)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_examples(page, tmp_path, monkeypatch):
    for registry in (BASES, FLOWS, LIKELIHOODS, NETWORKS, PRESETS):  # examples register parts
        monkeypatch.setattr(registry, "_entries", dict(registry))
    flags, said = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS, []
    runner = doctest.DocTestRunner(ShownDigits(), optionflags=flags)
    for path in documented(page):
        (tmp_path / path).mkdir()
        monkeypatch.chdir(tmp_path / path)
        runner.run(examples(path), out=said.append)
    assert not runner.failures, "".join(said)


def test_every_public_name_has_an_example():
    names = [path for page in PAGES for path in documented(page)]
    assert [path for path in names if not examples(path).examples] == []
