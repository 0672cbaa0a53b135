"""The aggregated posterior, against quadrature over a mixture of known normals, D = 1."""

from __future__ import annotations

import math

import numpy as np
from scipy.integrate import trapezoid
from scipy.special import logsumexp
from scipy.stats import norm

from tfp_flowvae.evaluation.aggregated import aggregated_posterior

N = 300
# Standard errors that an estimate may be off.
Z = 5.0


def _quadrature(means, scale):
    """Both parts of the KL, and the standard errors of their estimates from a draw per image.

    The integrands are smooth and vanish at the ends, where the trapezoidal rule converges faster
    than any power of the step, a tenth of the narrowest scale.
    """
    z = np.arange(-15.0, 15.0, scale / 10)[:, None]
    log_densities = norm.logpdf(z, means, scale)
    densities = np.exp(log_densities)
    aggregated = logsumexp(log_densities, axis=1, keepdims=True) - math.log(N)
    own, prior = log_densities - aggregated, aggregated - norm.logpdf(z)
    found = []
    for integrand in (own, np.broadcast_to(prior, own.shape)):
        mean, square = (trapezoid(densities * integrand**k, z, axis=0) for k in (1, 2))
        found.append((mean.mean(), math.sqrt(np.mean(square - mean**2) / N)))
    return found


def test_both_parts_of_the_kl_are_those_of_the_mixture(linear_gaussian):
    known = linear_gaussian(latent_size=1)
    x = known.images(N)
    shift, scale = np.array([0.5]), np.array([0.2])
    known.set_encoder(shift, scale)
    found = aggregated_posterior(known.model, x, seed=1)
    means = known.posterior_mean(x)[:, 0] + shift
    for value, (exact, error) in zip(found[:2], _quadrature(means, scale[0]), strict=True):
        assert abs(value - exact) < Z * error
    assert found.log_images == math.log(N)


def test_a_collapsed_posterior_tells_nothing_of_the_image(linear_gaussian):
    known = linear_gaussian("iaf:1,hidden=8")
    known.set_encoder(np.zeros(2), np.ones(2))
    known.encoder.kernel.assign(np.zeros(known.encoder.kernel.shape))
    found = aggregated_posterior(known.model, known.images(40), seed=1)
    # log q(z|x) by one pass and by the sweep of the inverse, the same for every image but for the
    # rounding of its 2 dimensions and of the flow's few sums.
    z = known.model.draw(known.images(40), 1, 1)
    unit = np.finfo(np.float32).eps * max(np.abs(z.log_prob).max(), np.abs(z.z).max() ** 2)
    assert abs(found.mutual_information) < 50 * unit
