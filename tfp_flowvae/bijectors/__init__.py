"""Bijectors for any TFP code: no training, and no Keras but in `BatchNormalization`.

from tfp_flowvae import bijectors as fvb
"""

from tfp_flowvae.bijectors.actnorm import ActNorm, initialize_act_norms
from tfp_flowvae.bijectors.autoregressive import (
    GatedUpdate,
    ParallelMaskedAutoregressiveFlow,
    SolvesInOrder,
)
from tfp_flowvae.bijectors.batch_normalization import BatchNormalization
from tfp_flowvae.bijectors.contractive_residual import ContractiveResidual
from tfp_flowvae.bijectors.coupling import (
    AdditiveCoupling,
    Coupling,
    alternating_mask,
    half_mask,
)
from tfp_flowvae.bijectors.householder import HouseholderFlow
from tfp_flowvae.bijectors.image_coupling import ChannelCoupling, CheckerboardCoupling
from tfp_flowvae.bijectors.invertible_convolution import Invertible1x1Convolution
from tfp_flowvae.bijectors.joint import (
    JointEvaluation,
    forward_and_log_det,
    inverse_and_log_det,
)
from tfp_flowvae.bijectors.logistic_mixture import (
    LogisticMixtureLogit,
    LogisticMixtureTransform,
    logistic_mixture_from_raw,
)
from tfp_flowvae.bijectors.logit import Logit
from tfp_flowvae.bijectors.lu_linear import LULinear
from tfp_flowvae.bijectors.marginal import MarginalInverseCDF, fit_marginals
from tfp_flowvae.bijectors.multi_scale import MultiScale
from tfp_flowvae.bijectors.permutation import (
    alternating_permutation,
    checkerboard_permutation,
    random_permutation,
    reverse_permutation,
)
from tfp_flowvae.bijectors.planar import Planar, PlanarFlow
from tfp_flowvae.bijectors.radial import Radial, RadialFlow
from tfp_flowvae.bijectors.rbig import fit_rbig
from tfp_flowvae.bijectors.rotation import Rotation
from tfp_flowvae.bijectors.spline import RationalQuadraticSpline
from tfp_flowvae.bijectors.spline_transform import SplineTransform, spline_from_raw
from tfp_flowvae.bijectors.squeeze import Squeeze
from tfp_flowvae.bijectors.sylvester import (
    HouseholderSylvester,
    HouseholderSylvesterFlow,
    OrthogonalSylvester,
    OrthogonalSylvesterFlow,
    TriangularSylvester,
)

__all__ = [
    "ActNorm",
    "AdditiveCoupling",
    "BatchNormalization",
    "ChannelCoupling",
    "CheckerboardCoupling",
    "ContractiveResidual",
    "Coupling",
    "GatedUpdate",
    "HouseholderFlow",
    "HouseholderSylvester",
    "HouseholderSylvesterFlow",
    "Invertible1x1Convolution",
    "JointEvaluation",
    "LULinear",
    "LogisticMixtureLogit",
    "LogisticMixtureTransform",
    "Logit",
    "MarginalInverseCDF",
    "MultiScale",
    "OrthogonalSylvester",
    "OrthogonalSylvesterFlow",
    "ParallelMaskedAutoregressiveFlow",
    "Planar",
    "PlanarFlow",
    "Radial",
    "RadialFlow",
    "RationalQuadraticSpline",
    "Rotation",
    "SolvesInOrder",
    "SplineTransform",
    "Squeeze",
    "TriangularSylvester",
    "alternating_mask",
    "alternating_permutation",
    "checkerboard_permutation",
    "fit_marginals",
    "fit_rbig",
    "forward_and_log_det",
    "half_mask",
    "initialize_act_norms",
    "inverse_and_log_det",
    "logistic_mixture_from_raw",
    "random_permutation",
    "reverse_permutation",
    "spline_from_raw",
]
