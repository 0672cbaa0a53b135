"""Likelihoods p(x|z): how the decoder's numbers become a distribution over images.

Importing this package loads nothing heavy: the classes come when they are asked for.
"""

from __future__ import annotations

import importlib
from typing import Any

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


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
