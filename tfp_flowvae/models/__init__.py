"""The flow VAE and its parts. Importing this package loads nothing heavy."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tfp_flowvae.models.adopted import AdoptedPrior
    from tfp_flowvae.likelihoods import (
        Bernoulli,
        ContinuousBernoulli,
        DiscretizedLogisticMixture,
        Gaussian,
        Likelihood,
    )
    from tfp_flowvae.models.objective import ElboTerms, Objective
    from tfp_flowvae.models.posterior import FlowPosterior
    from tfp_flowvae.models.prior import FlowPrior, make_prior
    from tfp_flowvae.models.prior_bases import GaussianMixtureBase, VampBase
    from tfp_flowvae.models.vae import FlowVAE

_LAZY = {
    "AdoptedPrior": "adopted",
    "Bernoulli": "likelihood",
    "ContinuousBernoulli": "likelihood",
    "DiscretizedLogisticMixture": "likelihood",
    "ElboTerms": "objective",
    "FlowPosterior": "posterior",
    "FlowPrior": "prior",
    "FlowVAE": "vae",
    "Gaussian": "likelihood",
    "GaussianMixtureBase": "prior_bases",
    "Likelihood": "likelihood",
    "Objective": "objective",
    "VampBase": "prior_bases",
    "make_prior": "prior",
}

__all__ = [
    "AdoptedPrior",
    "Bernoulli",
    "ContinuousBernoulli",
    "DiscretizedLogisticMixture",
    "ElboTerms",
    "FlowPosterior",
    "FlowPrior",
    "FlowVAE",
    "Gaussian",
    "GaussianMixtureBase",
    "Likelihood",
    "Objective",
    "VampBase",
    "make_prior",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
