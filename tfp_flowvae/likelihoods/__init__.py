"""Likelihoods p(x|z): how the decoder's numbers become a distribution over images.

Importing this package loads nothing heavy: the classes come when they are asked for.
"""

from __future__ import annotations

from tfp_flowvae._lazy import lazy
from tfp_flowvae.likelihoods.registry import (
    LIKELIHOODS,
    LikelihoodEntry,
    make_likelihood,
    register_likelihood,
)

_LAZY = {
    "Bernoulli": "bernoulli",
    "ContinuousBernoulli": "continuous_bernoulli",
    "DensityLikelihood": "base",
    "DiscretizedLogisticMixture": "logistic_mixture",
    "Gaussian": "gaussian",
    "Likelihood": "base",
}

__all__ = [
    *_LAZY,
    "LIKELIHOODS",
    "LikelihoodEntry",
    "make_likelihood",
    "register_likelihood",
]

__getattr__ = lazy(__name__, _LAZY)
