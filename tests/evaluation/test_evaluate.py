"""The figures of an evaluation, against a linear Gaussian model, whose evidence is known."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

import tfp_flowvae as fv
from tfp_flowvae.errors import UserError
from tfp_flowvae.evaluation.figures import Evaluation, Protocol

EPS = float(np.finfo(np.float32).eps)
SIZES = {"samples": 1000, "aggregated_images": 60, "gap_images": 0, "drawn": 40, "seed": 3}
# Standard errors that a figure may be off.
Z = 5.0


def _error_of_nll(found):
    """The Monte Carlo error of the mean NLL: Var(log mean w) = 1 / ESS - 1 / S for each image."""
    variances = 1.0 / found.effective_samples_per_image - 1.0 / found.protocol.samples
    return math.sqrt(np.sum(variances)) / found.protocol.images


@pytest.mark.parametrize("posterior", ["none", "planar:2", "iaf:1,hidden=8", "tril"])
def test_nll_is_the_evidence_through_every_posterior(posterior, linear_gaussian):
    known = linear_gaussian(posterior)
    x = known.images(60)
    found = fv.evaluate(known.model, x, **SIZES)
    exact = known.nll(x)
    # One image's sum over 1000 samples rounds each term, of size |log w|, some times.
    rounding = 100 * EPS * np.abs(exact).max()
    assert abs(found.nll - exact.mean()) < Z * _error_of_nll(found) + rounding
    assert found.nll == pytest.approx(found.nll_per_image.mean())
    assert found.nll_se == pytest.approx(found.nll_per_image.std(ddof=1) / math.sqrt(60))
    assert np.all(found.nll_per_image <= -found.elbo_per_image + rounding)
    assert found.bits_per_dimension is None


def test_elbo_is_the_evidence_less_the_kl_of_the_posterior(linear_gaussian):
    known = linear_gaussian()
    shift, scale = np.array([0.3, -0.2]), 1.3 * known.best_scale
    known.set_encoder(shift, scale)
    x = known.images(60)
    found = fv.evaluate(known.model, x, **SIZES)
    exact = -known.nll(x).mean() - known.kl(shift, scale)
    log_weights = known.model.elbo_terms(x, 1000, seed=9).elbo.numpy()
    error = log_weights.std(axis=0).mean() / math.sqrt(60 * 1000)
    assert abs(found.elbo - exact) < Z * error
    one_sample = error * math.sqrt(1000)
    assert abs(found.log_likelihood - found.kl - exact) < Z * one_sample


def test_the_terms_of_the_elbo_are_those_of_known_normals(linear_gaussian):
    """q(z|x) = N(m, diag(s^2)) is the base; the flow "affine" makes it N(a + e^b m, e^2b s^2)."""
    known = linear_gaussian("affine")
    log_scale, shift = np.array([0.4, -0.3]), np.array([0.5, 1.0])
    values = {"log_scale": log_scale, "shift": shift}
    for weight in known.model.posterior_layer.flow.weights:
        # The same for every image: the kernels from the features are 0.
        weight.assign(values.get(weight.name, np.zeros(weight.shape)))
    x, count = known.images(60), 60
    found = fv.evaluate(known.model, x, **SIZES)
    mean = np.exp(log_scale) * known.posterior_mean(x) + shift
    variance = np.exp(2 * log_scale) * known.best_scale**2
    entropy = 0.5 * np.sum(np.log(2 * np.pi * np.e * known.best_scale**2))
    exact = {
        "log_base": -entropy,
        "log_det": log_scale.sum(),
        "log_posterior": -entropy - log_scale.sum(),
        "log_prior": -np.log(2 * np.pi) - 0.5 * np.mean(np.sum(mean**2 + variance, axis=1)),
    }
    # Of one sample: log q0 is -e^2/2 summed over 2 dimensions, with variance 1/2 each; z^2/2 has
    # the variance mean^2 s^2 + s^4 / 2.
    spread = np.mean(np.sum(mean**2 * variance + variance**2 / 2, axis=1))
    errors = {"log_base": 1.0, "log_det": 0.0, "log_posterior": 1.0, "log_prior": spread}
    for name, value in exact.items():
        # Sums of 2 dimensions in float32, of terms below 10.
        rounding = 20 * EPS * 10
        error = Z * math.sqrt(errors[name] / count) + rounding
        assert abs(getattr(found, name) - value) < error, name
    assert found.kl == pytest.approx(found.log_posterior - found.log_prior, abs=20 * EPS * 10)


def test_an_exact_posterior_has_all_samples_effective(linear_gaussian, identity_flow):
    known = linear_gaussian("tril+planar:1")
    identity_flow(known.model)
    base, factor = known.model.posterior_layer.base, np.linalg.cholesky(known.covariance)
    known.set_encoder(np.zeros(2), np.diag(factor))
    base._below.bias.assign([factor[1, 0]])
    x = known.images(60)
    found = fv.evaluate(known.model, x, **SIZES)
    # The weights of an image are equal but for rounding of log w, a sum of 6 + 2 + 2 squares; to
    # first order 1 - ESS / S is the variance of log w, so it is far below this.
    terms = known.model.elbo_terms(x, 5, seed=0)
    size = max(np.abs(part).max() for part in (terms.log_likelihood, terms.log_prior))
    unit = 20 * EPS * size
    assert np.all(found.effective_samples_per_image > 1000 * (1 - unit))
    assert found.few_effective == 0
    np.testing.assert_allclose(found.nll_per_image, known.nll(x), rtol=0, atol=5 * unit)
    np.testing.assert_allclose(-found.elbo_per_image, known.nll(x), rtol=0, atol=5 * unit)


def test_a_bad_posterior_is_told_by_its_few_effective_samples(linear_gaussian):
    known = linear_gaussian()
    known.set_encoder(np.full(2, 9.0), known.best_scale)
    found = fv.evaluate(known.model, known.images(20), **SIZES)
    assert found.few_effective == 20
    assert found.effective_samples < 10


def test_with_training_images_there_is_a_generalisation_gap_and_neighbours(linear_gaussian):
    known = linear_gaussian()
    x, train = known.images(60), known.images(80, seed=1)
    found = fv.evaluate(known.model, x, train, **SIZES)
    exact = known.nll(x).mean() - known.nll(train[:60]).mean()
    assert abs(found.generalization_gap - exact) < Z * math.sqrt(2) * _error_of_nll(found)
    parts = (known.nll(x), known.nll(train[:60]))
    error = math.sqrt(sum(part.var(ddof=1) / 60 for part in parts))
    # The per-image noise of the estimates is in the variances too, a few percent here.
    assert found.generalization_gap_se == pytest.approx(error, rel=0.1)
    assert len(found.nearest_places) == 40
    assert max(found.nearest_places) < 80
    # Draws are as far from the data as other data, up to the variation of 40 of them.
    assert found.frechet_distance < 3 * found.frechet_distance_of_data
    assert found.precision > 0.5


def test_takes_the_encoder_s_features_and_counts_bits_of_binary_images(make_vae, digits):
    vae = make_vae()
    sizes = {**SIZES, "samples": 20, "features": "encoder"}
    found = fv.evaluate(vae, digits[:30], digits, **sizes)
    assert found.protocol.features == "encoder"
    assert found.bits_per_dimension == pytest.approx(found.nll / (64 * math.log(2)))


def test_figures_survive_json_and_repeat(linear_gaussian):
    known = linear_gaussian()
    x = known.images(12)
    sizes = {**SIZES, "samples": 60}
    found = fv.evaluate(known.model, x, x[:8], dataset="made", split="test", **sizes)
    written = json.dumps(found.to_dict())
    assert json.dumps(Evaluation.from_dict(json.loads(written)).to_dict()) == written
    again = fv.evaluate(known.model, x, x[:8], dataset="made", split="test", **sizes)
    assert json.dumps(again.to_dict()) == written
    assert found.protocol.images == found.protocol.drawn == 12
    assert found.protocol.differences(again.protocol) == {}


@pytest.mark.parametrize(
    ("images", "sizes", "message"),
    [
        (np.zeros([5, 2, 2, 1]), {}, r"shape \[N, 2, 3, 1\]. Received: .* \[5, 2, 2, 1\]"),
        (np.zeros([1, 2, 3, 1]), {}, "two or more"),
        (np.full([5, 2, 3, 1], np.nan), {}, "finite"),
        (np.zeros([5, 2, 3, 1]), {"samples": 0}, "samples must be at least 1. Received: 0"),
        (np.zeros([5, 2, 3, 1]), {"features": "eyes"}, "pixels or encoder. Received: 'eyes'"),
    ],
)
def test_mistakes_get_one_sentence(images, sizes, message, linear_gaussian):
    with pytest.raises(UserError, match=message):
        fv.evaluate(linear_gaussian().model, images, **sizes)


def test_protocols_differ_by_all_but_the_seed():
    first, second = Protocol(binarization="static"), Protocol(binarization="dynamic", seed=4)
    assert first.differences(second) == {"binarization": ("static", "dynamic")}


def test_outlier_scores_are_quantiles_of_validation_images(linear_gaussian):
    known = linear_gaussian()
    valid, x = known.images(50), known.images(20, seed=1)
    far = x + 9.0
    scores = fv.outlier_scores(known.model, np.concatenate([x, far]), valid, num_samples=100)
    assert np.all(scores.quantile[20:] == 1.0)
    # A uniform share of 20 images has the mean 1/2 and the standard error 1 / sqrt(12 * 20); the
    # 50 validation images add 1 / sqrt(12 * 50).
    error = math.sqrt((1 / 20 + 1 / 50) / 12)
    assert abs(scores.quantile[:20].mean() - 0.5) < Z * error
