"""The examples in the docstrings of public names run and give what they show."""

from __future__ import annotations

import doctest
import importlib
import re
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_probability import bijectors as tfb
from tensorflow_probability import distributions as tfd

import tfp_flowvae as fv
from tfp_flowvae.flows import FLOWS

API = Path(__file__).parents[1] / "docs" / "api"
USUAL = {"fv": fv, "keras": keras, "np": np, "tf": tf, "tfb": tfb, "tfd": tfd}
NUMBER = re.compile(r"-?\d+\.\d*(?:e[+-]?\d+)?")
LEAST = 80


class ShownDigits(doctest.OutputChecker):
    """Compares decimal numbers to as many digits as the docstring shows."""

    def check_output(self, want, got, optionflags):
        shown, found = NUMBER.findall(want), NUMBER.findall(got)
        for wanted, number in zip(shown, found, strict=False):
            unit = 10.0 ** -len(wanted.partition(".")[2])
            if abs(float(wanted) - float(number)) <= unit:
                got = got.replace(number, wanted, 1)
        return super().check_output(want, got, optionflags)


def documented():
    """The public names, as `module.name`."""
    for page in sorted(API.glob("*.md")):
        yield from re.findall(r"^::: ([\w.]+)$", page.read_text(encoding="utf-8"), re.M)


def examples(path):
    """The doctest of a name's own docstring, or None."""
    name, _, attribute = path.rpartition(".")
    module = importlib.import_module(name)
    package = importlib.import_module(name.rpartition(".")[0])
    public = {public: getattr(package, public) for public in getattr(package, "__all__", ())}
    text = getattr(module, attribute).__doc__ or ""
    names = {**USUAL, **public, **vars(module)}
    found = doctest.DocTestParser().get_doctest(text, names, path, module.__file__, 0)
    return found if found.examples else None


@pytest.mark.parametrize("package", sorted({page.stem for page in API.glob("*.md")} - {"index"}))
def test_examples(package, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(FLOWS, "_entries", dict(FLOWS))  # an example registers a flow
    flags, said = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS, []
    runner = doctest.DocTestRunner(ShownDigits(), optionflags=flags)
    for path in documented():
        found = examples(path) if path.startswith(f"tfp_flowvae.{package}.") else None
        if found is not None:
            runner.run(found, out=said.append)
    assert not runner.failures, "".join(said)


def test_most_public_names_have_an_example():
    assert sum(examples(path) is not None for path in documented()) >= LEAST
