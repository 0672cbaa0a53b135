"""The figures of a flow of images: each against what it says it is."""

from __future__ import annotations

import json
import math

import keras
import numpy as np
import pytest
from scipy import stats

import tfp_flowvae as fv
from tfp_flowvae.errors import UserError
from tfp_flowvae.evaluation.classes import Labels, labels_by_name
from tfp_flowvae.evaluation.figures import DensityEvaluation, read_figures
from tfp_flowvae.evaluation.image_density import base_distance, same_density
from tfp_flowvae.evaluation.table import table

EPS = float(np.finfo(np.float32).eps)
SHAPE, LEVELS = (4, 4, 1), 17
RNG = np.random.default_rng(0)
IMAGES, TRAIN = (RNG.integers(0, LEVELS, [count, *SHAPE]).astype("uint8") for count in (30, 50))
SIZES = {"samples": 3, "drawn": 20, "aggregated_images": 25, "seed": 2}


def make(dequantize="uniform"):
    keras.utils.set_random_seed(0)
    density = fv.FlowDensity(
        "glow:levels=1,steps=1,width=8", event_shape=SHAPE, levels=LEVELS, dequantize=dequantize
    )
    density.adapt(TRAIN)
    return density


@pytest.fixture(scope="module")
def measured():
    density = make()
    labels = [str(i % 3 - 1) for i in range(30)]  # a third of them are missing
    return density, fv.evaluate(
        density, IMAGES, TRAIN, labels=labels_by_name(np.array(labels)), **SIZES
    )


def test_bounds_are_means_over_images_of_those_of_the_model(measured):
    density, found = measured
    nll = density.nll(IMAGES, 3, batch_size=100, seed=2)
    # The same noise; a batch of another size may round sums of some hundred terms otherwise.
    rounding = 100 * EPS * np.abs(nll).max()
    np.testing.assert_allclose(found.nll_per_image, nll, rtol=0, atol=rounding)
    assert found.nll == pytest.approx(found.nll_per_image.mean())
    assert found.nll_se == pytest.approx(found.nll_per_image.std(ddof=1) / math.sqrt(30))
    bits = 16 * math.log(2.0)
    assert found.bits_per_dimension == pytest.approx(found.nll / bits)
    assert found.bits_per_dimension_se == pytest.approx(found.nll_se / bits)
    assert found.nll_bound_bits == pytest.approx(found.nll_bound / bits)
    # A logarithm of a mean is at least the mean of the logarithms.
    assert np.all(found.nll_per_image <= found.nll_bound_per_image + rounding)
    assert found.protocol.images == 30
    assert 1.0 <= found.effective_samples <= 3.0


def test_the_gap_is_to_as_many_training_images(measured):
    density, found = measured
    both = density.nll(np.concatenate([IMAGES, TRAIN[:30]]), 3, batch_size=100, seed=2)
    gap = both[:30].mean() - both[30:].mean()
    assert found.generalization_gap == pytest.approx(gap, abs=200 * EPS * np.abs(both).max())
    assert found.generalization_gap_se == pytest.approx(
        math.hypot(*(part.std(ddof=1) / math.sqrt(30) for part in np.split(both, 2))), rel=1e-4
    )


def test_classes_are_those_of_the_labels_that_are_known(measured):
    _, found = measured
    assert found.class_names == ("0", "1")
    assert found.class_images == (10, 10)
    assert found.class_nll[1] == pytest.approx(found.nll_per_image[2::3].mean())
    assert "class  images  -log P(x)\n0      10 " in table("run", found)
    alike = fv.evaluate(
        make(), IMAGES, labels=labels_by_name(np.array(["a"] * 30)), **{**SIZES, "drawn": 0}
    )
    assert alike.class_names == ()


def test_a_model_with_classes_is_measured_given_the_labels():
    keras.utils.set_random_seed(0)
    density = fv.FlowDensity(
        "glow:levels=1,steps=1,width=8", event_shape=SHAPE, levels=LEVELS, num_classes=3
    )
    density.adapt(TRAIN)
    base = density.layer.base
    for weight in base.trainable_weights:  # classes that differ
        weight.assign(RNG.normal(scale=0.3, size=weight.shape))
    own = np.arange(30) % 4 - 1  # a quarter is missing
    labels = Labels(own, ("a", "b", "c"), np.array([0.2, 0.3, 0.5]))
    found = fv.evaluate(density, IMAGES, labels=labels, **{**SIZES, "drawn": 0})

    known = own >= 0
    nll = density.nll(IMAGES[known], 3, batch_size=100, seed=2, label=own[known])
    rounding = 100 * EPS * np.abs(nll).max()
    assert found.label_nll == pytest.approx(nll.mean(), abs=rounding)
    assert found.class_nll[2] == pytest.approx(nll[own[known] == 2].mean(), abs=rounding)
    first = IMAGES[known][: SIZES["aggregated_images"]]
    each = [density.nll(first, 3, batch_size=100, seed=2, label=k) for k in range(3)]
    posterior = np.log([0.2, 0.3, 0.5]) - np.transpose(each)
    # The noise of the classes differs, so that only images whose classes differ by more agree.
    top = np.sort(posterior, axis=1)
    right = np.argmax(posterior, axis=1) == own[known][: len(first)]
    unsure = np.mean(top[:, -1] - top[:, -2] < 1.0)
    assert abs(found.accuracy - right.mean()) <= unsure
    assert "accuracy of Bayes' rule" in table("run", found)


def test_the_distance_of_latents_is_that_of_kolmogorov_and_smirnov():
    z, base = RNG.normal(1.0, 1.0, [40, 3]), RNG.normal(size=[60, 3])
    wanted = [stats.ks_2samp(z[:, d], base[:, d]).statistic for d in range(3)]
    np.testing.assert_allclose(base_distance(z, base), wanted, rtol=1e-12)


def test_figures_are_read_again_and_known_again(measured):
    density, found = measured
    again = read_figures(json.loads(json.dumps(found.to_dict())))
    assert isinstance(again, DensityEvaluation)
    np.testing.assert_array_equal(again.nll_per_image, found.nll_per_image)
    assert again.protocol == found.protocol
    assert table("run", again) == table("run", found)
    images = IMAGES.astype("float32")
    assert same_density(density, images, again)
    assert not same_density(make("variational"), images[::-1], again)


def test_what_cannot_be_measured_is_left_out():
    found = fv.evaluate(make("variational"), IMAGES, quick=True, drawn=0)
    assert (found.protocol.samples, found.dequantization) == (5, "variational")
    assert found.generalization_gap is None
    text = table("run", found)
    for words in ("precision", "generalization", "nearest", "class "):
        assert words not in text
    assert "the variational dequantisation makes the figures of -log P(x) upper bounds" in text


@pytest.mark.parametrize(
    ("images", "sizes", "words"),
    [
        (IMAGES, {"features": "encoder"}, "features must be pixels for a flow of images"),
        (IMAGES[:1], {}, "Two or more images are needed. Received: 1."),
        (IMAGES[:, :3], {}, r"Images must be \[N, 4, 4, 1\]"),
        (IMAGES / 16.0, {}, "Pixels must be whole numbers from 0 to 16"),
        (IMAGES, {"samples": 0}, "samples must be at least 1"),
        (IMAGES, {"labels": labels_by_name(np.array(["a", "b"]))}, "one label for each example"),
    ],
)
def test_mistakes_get_one_sentence(images, sizes, words):
    with pytest.raises(UserError, match=words):
        fv.evaluate(make(), images, **sizes)
