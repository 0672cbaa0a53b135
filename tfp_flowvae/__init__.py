"""Normalizing-flow variational autoencoders: TFP bijectors, Keras 3 models, SavedModels.

Importing the package loads neither TensorFlow nor Keras; its parts do when they are asked for.
"""

from __future__ import annotations

import importlib
from typing import Any

from tfp_flowvae._backend import check_backend
from tfp_flowvae._keras_objects import let_keras_find_them
from tfp_flowvae._version import __version__

check_backend()

_PACKAGES = ("bijectors", "distributions", "flows", "likelihoods", "models", "networks", "testing")
_LAZY = {
    "FlowDistribution": "tfp_flowvae.distributions",
    "FlowVAE": "tfp_flowvae.models",
    "Objective": "tfp_flowvae.models",
    "TrainConfig": "tfp_flowvae.runs",
    "export": "tfp_flowvae.saving",
    "load": "tfp_flowvae.saving",
    "make_flow": "tfp_flowvae.flows",
    "register_base": "tfp_flowvae.distributions",
    "register_flow": "tfp_flowvae.flows",
    "register_likelihood": "tfp_flowvae.likelihoods",
    "register_network": "tfp_flowvae.networks",
    "register_preset": "tfp_flowvae.runs.presets",
}

__all__ = [*_LAZY, *_PACKAGES, "__version__"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    if name in _PACKAGES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


let_keras_find_them()
