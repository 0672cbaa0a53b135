"""Models trained by Keras's `fit`. Importing this package loads nothing heavy."""

from __future__ import annotations

from tfp_flowvae._lazy import lazy

_LAZY = {
    "DataUnits": "data_units",
    "Dequantize": "dequantize",
    "ElboTerms": "objective",
    "FlowDensity": "density",
    "FlowVAE": "vae",
    "ImageDensity": "image_density",
    "Objective": "objective",
    "Pixels": "pixels",
    "VariationalDequantize": "dequantize",
}

__all__ = [*_LAZY]

__getattr__ = lazy(__name__, _LAZY)
