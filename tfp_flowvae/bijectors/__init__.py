"""Bijectors for any TFP code: no Keras, no training.

from tfp_flowvae import bijectors as fvb
"""

from tfp_flowvae.bijectors.householder import HouseholderFlow
from tfp_flowvae.bijectors.joint import (
    JointEvaluation,
    forward_and_log_det,
    inverse_and_log_det,
)
from tfp_flowvae.bijectors.planar import Planar, PlanarFlow
from tfp_flowvae.bijectors.radial import Radial, RadialFlow

__all__ = [
    "HouseholderFlow",
    "JointEvaluation",
    "Planar",
    "PlanarFlow",
    "Radial",
    "RadialFlow",
    "forward_and_log_det",
    "inverse_and_log_det",
]
