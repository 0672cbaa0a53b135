"""Flows: Keras layers that own weights and hand out bijectors.

Importing this package loads nothing heavy: the layers come when they are asked for.
"""

from __future__ import annotations

from tfp_flowvae._lazy import lazy
from tfp_flowvae.flows.image_registry import IMAGE_FLOWS
from tfp_flowvae.flows.registry import FLOWS, FlowEntry, register_flow

_LAZY = {
    "Adopted": "adopted",
    "Affine": "linear",
    "Flow": "base",
    "Glow": "image",
    "Householder": "householder",
    "IAF": "autoregressive",
    "ImageFlow": "image",
    "LU": "linear",
    "MAF": "autoregressive",
    "NICE": "nice",
    "ParametricFlow": "base",
    "Permute": "linear",
    "Planar": "planar",
    "Radial": "radial",
    "RealNVP": "coupling",
    "RealNVPImage": "image",
    "RepeatedFlow": "base",
    "Residual": "residual",
    "SplineCoupling": "spline",
    "SplineIAF": "spline",
    "SplineMAF": "spline",
    "Stack": "stack",
    "Sylvester": "sylvester",
    "make_flow": "stack",
}

__all__ = [*_LAZY, "FLOWS", "IMAGE_FLOWS", "FlowEntry", "register_flow"]

__getattr__ = lazy(__name__, _LAZY)
