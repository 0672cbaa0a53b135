"""The page of a flow of images: what it shows, and the words that follow from its numbers."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_probability import distributions as tfd

import tfp_flowvae as fv
from tfp_flowvae.evaluation.classes import labels_by_name
from tfp_flowvae.evaluation.report import DensitySubject, density, density_words, render
from tfp_flowvae.evaluation.report.nearest import Nearest

LEVELS = 5
IMAGES = np.random.default_rng(0).integers(0, LEVELS, [60, 4, 4, 1]).astype("uint8")


def subject_of(history=None, labels=None, evaluation=None, **parts):
    keras.utils.set_random_seed(0)
    given = {"flow": "glow:levels=1,steps=1,width=8", "event_shape": (4, 4, 1), "levels": LEVELS}
    model = fv.FlowDensity(**{**given, **parts})
    model.adapt(IMAGES)
    shown = IMAGES.astype(np.float32) / (LEVELS - 1)
    return DensitySubject(
        name="a <run>",
        model=model,
        test=shown[:24],
        train=shown[24:],
        labels=labels,
        dataset="pictures",
        counts={"train": 36, "valid": 0, "test": 24},
        seed=0,
        history=history or {},
        evaluation=evaluation,
        settings={"flow": given["flow"]} if history else {},
        record={"epochs": 2} if history else {},
        commands={},
        test_nll=model.nll(IMAGES[:24], 1, seed=0),
        train_nll=model.nll(IMAGES[24:48], 1, seed=0),
    )


def test_a_page_has_every_section():
    names = ["bits_per_dim", "val_bits_per_dim", "gradient_norm"]
    history = {"epoch": np.arange(1.0, 3.0), **{name: np.ones(2) for name in names}}
    found = fv.evaluate(
        subject_of().model,
        IMAGES[:24],
        IMAGES[24:],
        labels=labels_by_name(np.array(["a", "b"] * 12)),
        quick=True,
    )
    found = dataclasses.replace(found, protocol=dataclasses.replace(found.protocol, split="test"))
    page = render(subject_of(history, np.array(["a", "b"] * 12), found))
    # 4 temperatures, 5 paths, 4 rows of neighbours, 2 rows and a chart of likelihoods, 2 classes,
    # 3 charts of latents, 2 curves.
    assert page.count("<img ") == 4 + 5 + 4 + 3 + 2 + 3 + 2
    for words in ("a &lt;run&gt;", "a to b", "T = 0.75", "class b: -log P(x)", "effective draws"):
        assert words in page
    assert "<script>" not in page
    assert "nan" not in page.lower().split()


def test_a_page_of_an_export_with_a_base_without_a_mean():
    heavy = tfd.Independent(tfd.Cauchy(tf.zeros(16), 1.0), 1)
    page = render(subject_of(flow="lu", base=heavy))
    for words in (
        "Its base has no temperature.",
        "There is no history.csv",
        "There is no config.json",
        "A normalizing flow of the pixels, LU, with uniform dequantisation",
        "The bound with many draws of the noise and the sample quality take a minute or more",
    ):
        assert words in page


def said(subject, distance=0.1, median=2.0):
    z, each = np.zeros((2, 16)), np.full(16, 0.1)
    near = Nearest(subject.test, subject.test, np.zeros(2), median, 2.0, 2, "test images")
    measured = density.Measured(z, z, np.full(16, distance), each, near)
    return " ".join(density_words.summary(subject, measured))


def test_the_summary_follows_from_the_numbers():
    subject = subject_of()
    nll = subject.test_nll
    alike = dataclasses.replace(subject, train_nll=nll)
    text = said(alike)
    bits = nll.mean() / (16 * np.log(2.0))
    for words in (
        f"of 24 test images is {nll.mean():.2f} ± {nll.std(ddof=1) / np.sqrt(24):.2f} nats",
        f"{bits:.3f} bits per dimension (one draw of the noise an image",
        "of images of 5 levels. It has",
        "It is evaluated on images of pictures (4 × 4 pixels, grey).",
        "no sign of overfitting",
        "Samples do not look like copies of training images: the median distance to the nearest "
        "training image is 2.00 for samples and 2.00 for test images",
        "Each dimension of the latents z0 of test images looks like the base",
    ):
        assert words in text
    assert "  " not in text
    better = dataclasses.replace(subject, train_nll=nll - 10 * nll.std())
    assert "overfits to some degree. The difference is" in said(better)
    assert "Samples may be copies" in said(alike, median=1.0)
    assert "differ from the base in single dimensions" in said(alike, distance=0.2)


@pytest.mark.parametrize("split", ["valid", "test"])
def test_classes_are_shown_for_figures_of_test_images(split):
    found = fv.evaluate(
        subject_of().model,
        IMAGES[:24],
        labels=labels_by_name(np.array(["a", "b"] * 12)),
        quick=True,
        drawn=0,
        split=split,
    )
    subject = subject_of(labels=np.array(["a", "b"] * 12), evaluation=found)
    assert density.has_classes(subject) == (split == "test")
    assert not density.has_classes(dataclasses.replace(subject, labels=None))


def test_a_model_with_classes_shows_samples_of_each():
    names = np.array(["a", "b"] * 12)
    model = subject_of(num_classes=2).model
    found = fv.evaluate(model, IMAGES[:24], labels=labels_by_name(names), quick=True, split="test")
    page = render(subject_of(labels=names, evaluation=found, num_classes=2))
    assert "Draws from P(x|y), a class in each row." in page
    assert f"class b: -log p(x|y) {found.class_nll[1]:.3f}, accuracy" in page
    assert "The model does not know the classes" not in page
