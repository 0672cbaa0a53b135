"""Models trained by Keras's `fit`. Importing this package loads nothing heavy."""

from __future__ import annotations

from tfp_flowvae._lazy import lazy

_LAZY = {
    "DataUnits": "data_units",
    "ElboTerms": "objective",
    "FlowDensity": "density",
    "FlowVAE": "vae",
    "Objective": "objective",
}

__all__ = [*_LAZY]

__getattr__ = lazy(__name__, _LAZY)
