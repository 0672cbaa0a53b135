"""The figures of each class, and Bayes' rule."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tfp_flowvae.errors import UserError
from tfp_flowvae.evaluation.classes import Labels, class_figures, class_log_likelihoods
from tfp_flowvae.evaluation.evaluate import evaluate
from tfp_flowvae.evaluation.figures import Evaluation
from tfp_flowvae.evaluation.table import table

EPS = float(np.finfo(np.float32).eps)
SIZES = {"samples": 5, "aggregated_images": 20, "gap_images": 0, "drawn": 0}


@pytest.fixture(scope="module")
def labels():
    given = np.arange(30) % 4
    given[::5] = -1
    return given.astype(np.int32)


@pytest.fixture
def vae(make_vae, stir):
    return stir(make_vae("iaf", "realnvp", num_classes=4, seed=0))


def test_every_class_has_its_density(three_gaussians):
    known = three_gaussians
    labels = np.random.default_rng(1).integers(3, size=120)
    x = known.images(labels, seed=2)
    found = class_log_likelihoods(known.model, x, num_samples=3, seed=3)
    wanted = np.stack([known.log_prob(x, mean) for mean in known.means], axis=1)
    # Some 60 roundings of terms of the size of the largest square in the densities.
    np.testing.assert_allclose(found, wanted, rtol=0, atol=60 * EPS * 4 * np.abs(wanted).max())
    # Bayes' rule with the frequencies of the classes is that of the exact densities.
    given = Labels(labels, ("a", "b", "c"), np.array([0.7, 0.2, 0.1]))
    figures = class_figures(known.model, x, given, classified=100, samples=3, seed=3)
    right = np.argmax(wanted + np.log(given.frequencies), axis=1) == labels
    assert figures["accuracy"] == right[:100].mean()
    assert 0.8 < figures["accuracy"] < 1.0
    assert figures["label_nll"] == pytest.approx(
        -wanted[np.arange(120), labels].mean(), rel=60 * 4 * EPS
    )


def test_figures_of_classes_are_means_over_their_images(vae, digits, labels):
    x = digits[:30]
    how = Labels(labels, ("a", "b", "c", "d"), np.array([0.1, 0.0, 0.4, 0.5]))
    found = class_figures(vae, x, how, classified=20, samples=6, seed=2)
    known = labels >= 0
    nll = vae.nll(x[known], 6, seed=2, label=labels[known])
    assert found["label_nll"] == pytest.approx(nll.mean(), rel=30 * EPS)
    assert found["class_images"] == tuple(np.bincount(labels[known]))
    for k in range(4):
        assert found["class_nll"][k] == pytest.approx(nll[labels[known] == k].mean(), rel=30 * EPS)
    assert found["class_accuracy"][1] == 0.0  # whose frequency is 0


def test_an_evaluation_has_them_and_keeps_them_in_json(vae, digits, labels):
    names = ("a", "b", "c", "d", "e")[:4]
    own = np.where(labels == 3, -1, labels).astype(np.int32)  # a class without an image
    found = evaluate(vae, digits[:30], labels=Labels(own, names, np.full(4, 0.25)), seed=1, **SIZES)
    assert found.class_nll[3] is None
    again = Evaluation.from_dict(json.loads(json.dumps(found.to_dict())))
    assert (again.class_names, again.class_nll) == (names, found.class_nll)
    text = table("model", again)
    assert "-log p(x|y)" in text
    assert "accuracy of Bayes' rule" in text
    assert [line.split()[0] for line in text.splitlines() if line[:2] in ("a ", "b ", "c ", "d ")]
    assert "p(x) is the density of an image whose class is not known" in text


def test_without_labels_there_are_no_figures_of_classes(vae, make_vae, digits, labels):
    for model in (vae, make_vae()):
        found = evaluate(model, digits[:30], seed=1, **SIZES)
        assert found.accuracy is found.label_nll is None
        assert "p(x|y)" not in table("model", found)
    with pytest.raises(UserError, match="no classes"):
        evaluate(make_vae(), digits[:30], labels=Labels(labels, "abcd", np.ones(4)), **SIZES)
    with pytest.raises(UserError, match="30 labels for 20 examples"):
        evaluate(vae, digits[:20], labels=Labels(labels, "abcd", np.ones(4)), **SIZES)
