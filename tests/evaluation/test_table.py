"""The tables of figures."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from tfp_flowvae.errors import UserError
from tfp_flowvae.evaluation.figures import Evaluation, Protocol
from tfp_flowvae.evaluation.table import check_alike, comparison, table

RNG = np.random.default_rng(0)
HOW = Protocol(dataset="digits", split="test", binarization="static", images=50, checksum="a")


def _found(nll, **changes):
    """An evaluation with -log p(x) of each image `[N]` and all other figures 0."""
    values = {field.name: 0.0 for field in dataclasses.fields(Evaluation)}
    values |= {
        "protocol": HOW,
        "nll": float(nll.mean()),
        "nll_per_image": nll,
        "elbo_per_image": -nll,
        "few_effective": 0,
        "cross_entropy": False,
        "base_kl": (0.5, 1.0),
    }
    return Evaluation(**(values | changes))


def test_a_figure_that_was_not_measured_has_no_line():
    text = table("run", _found(RNG.normal(size=50), precision=None))
    assert "recall" in text
    assert "precision" not in text
    assert "run: 50 test images of digits, binarization static, seed 0" in text
    assert "posterior's base: 0.50 1.00" in text
    assert "Note" not in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"few_effective": 3}, "Note: 3 of 50 images have fewer than 10 effective samples"),
        ({"cross_entropy": True}, "p(x) is no likelihood"),
    ],
)
def test_a_note_says_what_a_figure_cannot_be_used_for(changes, message):
    assert message in table("run", _found(RNG.normal(size=50), **changes))


def test_differences_are_paired_where_the_images_are_the_same():
    first = RNG.normal(size=50)
    second = first + 0.1 * RNG.normal(size=50) + 1.0
    text = comparison(["a", "b"], [_found(first), _found(second)])
    difference = second - first
    error = difference.std(ddof=1) / math.sqrt(50)
    assert "paired by image" in text
    assert f"{difference.mean():+.3f} +- {error:.3f}" in text
    other = dataclasses.replace(HOW, checksum="b")
    text = comparison(["a", "b"], [_found(first), _found(second, protocol=other)])
    error = math.hypot(first.std(ddof=1), second.std(ddof=1)) / math.sqrt(50)
    assert "of other images, not paired" in text
    assert "how [1] was measured" in text
    assert f"{difference.mean():+.3f} +- {error:.3f}" in text


def test_other_protocols_are_refused_in_one_sentence():
    check_alike(["a", "b"], [HOW, dataclasses.replace(HOW, seed=7)])
    other = dataclasses.replace(HOW, dataset="mnist", checksum="b")
    with pytest.raises(UserError) as caught:
        check_alike(["a", "b"], [HOW, other])
    assert "dataset is 'digits' for 'a' and 'mnist' for 'b'." in str(caught.value)
    assert "checksum" not in str(caught.value)
