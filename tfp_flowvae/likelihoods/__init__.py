"""Likelihoods p(x|z): how the decoder's numbers become a distribution over images.

Importing this package loads nothing heavy: the classes come when they are asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tfp_flowvae.likelihoods.registry import LIKELIHOODS, LikelihoodEntry, make_likelihood

if TYPE_CHECKING:
    from tfp_flowvae.likelihoods.base import DensityLikelihood, Likelihood
    from tfp_flowvae.likelihoods.bernoulli import Bernoulli
    from tfp_flowvae.likelihoods.continuous_bernoulli import ContinuousBernoulli
    from tfp_flowvae.likelihoods.gaussian import Gaussian
    from tfp_flowvae.likelihoods.logistic_mixture import DiscretizedLogisticMixture

_MODULES = {
    "Bernoulli": "bernoulli",
    "ContinuousBernoulli": "continuous_bernoulli",
    "DensityLikelihood": "base",
    "DiscretizedLogisticMixture": "logistic_mixture",
    "Gaussian": "gaussian",
    "Likelihood": "base",
}

__all__ = [
    "LIKELIHOODS",
    "Bernoulli",
    "ContinuousBernoulli",
    "DensityLikelihood",
    "DiscretizedLogisticMixture",
    "Gaussian",
    "Likelihood",
    "LikelihoodEntry",
    "make_likelihood",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Keras finds a saved model's likelihood only if its module has run: one name brings them all.
    for known, module in _MODULES.items():
        globals()[known] = getattr(importlib.import_module(f"{__name__}.{module}"), known)
    return globals()[name]
