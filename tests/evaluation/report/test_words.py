"""The sentences of the summary follow from the numbers."""

import types

import numpy as np
import pytest

from tfp_flowvae.evaluation.figures import Protocol
from tfp_flowvae.evaluation.report.latents import Latents
from tfp_flowvae.evaluation.report.nearest import Nearest
from tfp_flowvae.evaluation.report.subject import Subject
from tfp_flowvae.evaluation.report.words import summary

IMAGES = np.zeros((2, 8, 8, 1), np.float32)


def said(make_vae, active=4, median=2.0, evaluation=None, **values):
    given = {
        "name": "run",
        "model": make_vae(),
        "test": IMAGES,
        "train": IMAGES,
        "labels": None,
        "dataset": "digits",
        "binarization": "dynamic",
        "free_energy": {"free_energy": 25.0, "log_likelihood": -20.0, "kl": 5.0},
        "counts": {"train": 1257, "valid": 180, "test": 360},
        "seed": 0,
        "history": {"epoch": np.arange(1.0, 3.0), "elbo": np.array([-30.0, -24.9])},
        "evaluation": evaluation,
        "settings": {"base": "tril", "flow": "iaf:2", "prior": "vamp:100"},
        "record": {"epochs": 2},
        "commands": {},
    }
    z = np.zeros((2, 4))
    near = Nearest(IMAGES, IMAGES, np.zeros(2), median, 2.0, 2, "reconstructions of test images")
    subject = Subject(**{**given, **values})
    return " ".join(summary(subject, Latents(z, z, z, np.zeros(4), np.zeros(4)), active, near))


def figures(**values):
    zero = dict.fromkeys(
        ("bits_per_dimension", "generalization_gap", "generalization_gap_se", "label_nll"),
    )
    figures = {"nll": 22.0, "nll_se": 0.2, "few_effective": 0, "cross_entropy": False}
    protocol = Protocol(split="test", images=360, samples=5000)
    return types.SimpleNamespace(protocol=protocol, **{**zero, **figures, **values})


def test_a_good_run(make_vae):
    text = said(make_vae)
    for words in (
        "4 latent dimensions. Its posterior q(z|x) is tril+iaf:2, and its prior p(z) is vamp:100.",
        "trained for 2 epochs on 1,257 images of digits (8 × 8 pixels, grey).",
        "free energy (-ELBO, one sample an image) of the 360 test images is 25.00 nats",
        "(dynamic binarization)",
        "All 4 latent dimensions are active",
        "The posterior has not collapsed: KL(q(z|x) || p(z)) is 5.0 nats, 7.2 bits per image.",
        "no sign of overfitting",
        "Samples do not look like copies",
    ):
        assert words in text
    assert "  " not in text


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"active": 0}, "The posterior has collapsed"),
        (
            {"free_energy": {"free_energy": 25.0, "log_likelihood": -25.0, "kl": 0.05}},
            "The posterior has collapsed: KL(q(z|x) || p(z)) is 0.05 nats",
        ),
        ({"active": 3}, "though 1 dimension is unused"),
        ({"median": 1.0}, "Samples may be copies of training images"),
        (
            {"history": {"epoch": np.ones(1), "elbo": np.array([-20.0])}},
            "so the model overfits to some degree. In the last epoch the free energy of training "
            "images was 20.00 nats, 5.00 below that of test images.",
        ),
        (
            {"history": {}, "record": {}},
            "It is evaluated on images of digits (8 × 8 pixels, grey).",
        ),
        ({"settings": {}}, "its prior p(z) is Normal"),
        ({"binarization": "none"}, "Compare only values of the same likelihood and"),
    ],
)
def test_what_differs_is_said(values, words, make_vae):
    assert words in said(make_vae, **values)


def test_figures_of_evaluate_are_quoted_with_their_protocol(make_vae):
    text = said(make_vae, evaluation=figures())
    assert (
        "On 360 test images, -log p(x) is 22.00 ± 0.20 nats per image (importance-weighted "
        "estimate with 5,000 samples an image"
    ) in text
    gap = figures(generalization_gap=1.0, generalization_gap_se=0.1, few_effective=3)
    text = said(make_vae, evaluation=gap)
    assert "overfits to some degree. The difference is 1.00 ± 0.10 nats per image." in text
    assert "For 3 of 360 images the estimate is unreliable" in text
    classes = figures(label_nll=20.0, label_nll_se=0.3, accuracy=0.875)
    text = said(make_vae, model=make_vae(num_classes=2), evaluation=classes)
    assert "20.00 ± 0.30 given the labels, from which Bayes' rule finds 87.5% of the labels" in text
    assert "of the 360 test images is 25.00 nats per image, given their labels" in text
    assert "upper bound of -log p(x|y)" in said(make_vae, model=make_vae(num_classes=2))
    grey = figures(cross_entropy=True)
    assert "this is a cross entropy" in said(make_vae, evaluation=grey, binarization="none")
