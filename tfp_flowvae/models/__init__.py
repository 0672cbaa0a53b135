"""The flow VAE and its parts."""

from tfp_flowvae.models.likelihood import Bernoulli, Likelihood
from tfp_flowvae.models.objective import ElboTerms, Objective
from tfp_flowvae.models.posterior import FlowPosterior
from tfp_flowvae.models.prior import FlowPrior
from tfp_flowvae.models.vae import FlowVAE

__all__ = [
    "Bernoulli",
    "ElboTerms",
    "FlowPosterior",
    "FlowPrior",
    "FlowVAE",
    "Likelihood",
    "Objective",
]
