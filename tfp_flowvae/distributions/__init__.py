"""Distributions of vectors: flows over bases, as Keras layers.

Importing this package loads nothing heavy: the layers come when they are asked for.
"""

from __future__ import annotations

from tfp_flowvae._lazy import lazy
from tfp_flowvae.distributions.registry import BASES, BaseEntry, register_base

_LAZY = {
    "Adopted": "adopted",
    "Base": "base",
    "Draw": "flow_distribution",
    "FlowDistribution": "flow_distribution",
    "FullCovarianceNormal": "full_covariance",
    "Mixture": "mixture",
    "Normal": "normal",
    "Tril": "normal",
    "Vamp": "mixture",
    "interpolate": "interpolation",
}

__all__ = [*_LAZY, "BASES", "BaseEntry", "register_base"]

__getattr__ = lazy(__name__, _LAZY)
