"""The approximation and the amortisation gap, against a linear Gaussian model."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tfp_flowvae.evaluation.gaps import posterior_gaps

N, SAMPLES, STEPS = 20, 2000, 400
# Standard errors that a figure may be off. The optimiser's rest counts among them: it is of second
# order in its steps, far below what 2000 samples resolve.
Z = 5.0


def _error(known, shift, scale):
    """The Monte Carlo error of the mean ELBO of q = N(E[z|x] + shift, diag(scale^2)).

    log w = log p(x) + log p(z|x) - log q(z), whose spread is taken from draws of q.
    """
    e = np.random.default_rng(0).normal(size=(100_000, len(scale)))
    z = shift + scale * e
    log_ratio = 0.5 * np.sum(e**2, axis=1) - 0.5 * np.sum((z @ known.precision) * z, axis=1)
    return log_ratio.std() / math.sqrt(N * SAMPLES)


@pytest.fixture
def gaps_of():
    def gaps_of(known):
        return posterior_gaps(known.model, known.images(N), STEPS, samples=SAMPLES, seed=2)

    return gaps_of


@pytest.mark.parametrize("posterior", ["none", "planar:1", "iaf:1,hidden=8"])
def test_of_the_best_diagonal_normal(posterior, linear_gaussian, identity_flow, gaps_of):
    known = linear_gaussian(posterior)
    identity_flow(known.model)
    found = gaps_of(known)
    precision = known.precision
    exact = 0.5 * (np.sum(np.log(np.diag(precision))) - np.linalg.slogdet(precision)[1])
    assert exact == pytest.approx(known.kl(np.zeros(2), known.best_scale))
    error = _error(known, np.zeros(2), known.best_scale)
    assert exact > 20 * error  # there is something to measure
    assert abs(found.approximation.mean() - exact) < Z * error
    # The encoder has the optimum already.
    assert abs(found.amortization.mean()) < Z * error
    assert abs(found.log_marginal.mean() + known.nll(known.images(N)).mean()) < Z * error


def test_of_an_encoder_that_is_off(linear_gaussian, gaps_of):
    known = linear_gaussian()
    shift, scale = np.array([0.2, -0.3]), 1.4 * known.best_scale
    known.set_encoder(shift, scale)
    found = gaps_of(known)
    best = known.kl(np.zeros(2), known.best_scale)
    error = _error(known, np.zeros(2), known.best_scale)
    assert abs(found.approximation.mean() - best) < Z * error
    exact = known.kl(shift, scale) - best
    assert abs(found.amortization.mean() - exact) < Z * math.hypot(
        error, _error(known, shift, scale)
    )
    assert np.all(found.amortization > 0)


def test_batches_of_images_change_nothing_but_the_noise(linear_gaussian):
    known = linear_gaussian()
    x = known.images(70)
    places = []
    found = posterior_gaps(
        known.model, x, 3, samples=20, progress=lambda batches: places.extend(batches) or batches
    )
    assert places == [0, 50]
    assert all(part.shape == (70,) for part in found)
