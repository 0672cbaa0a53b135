"""Normalizing-flow variational autoencoders: TFP bijectors, Keras 3 models, SavedModels.

Importing the package loads neither TensorFlow nor Keras; its parts do when they are asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tfp_flowvae._backend import check_backend
from tfp_flowvae._version import __version__

if TYPE_CHECKING:
    from tfp_flowvae.flows import make_flow
    from tfp_flowvae.models import FlowVAE
    from tfp_flowvae.export.saved_model import export, load
    from tfp_flowvae.training import TrainConfig

check_backend()

_LAZY = {
    "FlowVAE": "tfp_flowvae.models",
    "TrainConfig": "tfp_flowvae.training",
    "export": "tfp_flowvae.export.saved_model",
    "load": "tfp_flowvae.export.saved_model",
    "make_flow": "tfp_flowvae.flows",
}

__all__ = ["FlowVAE", "TrainConfig", "__version__", "export", "load", "make_flow"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
