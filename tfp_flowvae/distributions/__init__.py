"""Distributions of vectors: flows over bases, as Keras layers.

Importing this package loads nothing heavy: the layers come when they are asked for.
"""

from __future__ import annotations

import importlib
from typing import Any

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
}

__all__ = [*_LAZY, "BASES", "BaseEntry", "register_base"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
