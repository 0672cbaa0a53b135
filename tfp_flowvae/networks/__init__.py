"""Keras 3 networks: the conditioners of the flows, the encoders and the decoders.

Importing this package loads neither TensorFlow nor Keras; its parts do when they are asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tfp_flowvae.networks.batch_norm import BatchNormalization
    from tfp_flowvae.networks.gated_conv import GatedConvDecoder, GatedConvEncoder
    from tfp_flowvae.networks.gated_mlp import GatedMLPDecoder, GatedMLPEncoder
    from tfp_flowvae.networks.made import MADE
    from tfp_flowvae.networks.masked_dense import MaskedDense
    from tfp_flowvae.networks.mlp import MLP, MLPDecoder, MLPEncoder
    from tfp_flowvae.networks.residual_mlp import ResidualMLPDecoder, ResidualMLPEncoder
    from tfp_flowvae.networks.resnet import ResNetDecoder, ResNetEncoder

_LAZY = {
    "BatchNormalization": "batch_norm",
    "GatedConvDecoder": "gated_conv",
    "GatedConvEncoder": "gated_conv",
    "GatedMLPDecoder": "gated_mlp",
    "GatedMLPEncoder": "gated_mlp",
    "MADE": "made",
    "MLP": "mlp",
    "MLPDecoder": "mlp",
    "MLPEncoder": "mlp",
    "MaskedDense": "masked_dense",
    "ResNetDecoder": "resnet",
    "ResNetEncoder": "resnet",
    "ResidualMLPDecoder": "residual_mlp",
    "ResidualMLPEncoder": "residual_mlp",
}

__all__ = [
    "MADE",
    "MLP",
    "BatchNormalization",
    "GatedConvDecoder",
    "GatedConvEncoder",
    "GatedMLPDecoder",
    "GatedMLPEncoder",
    "MLPDecoder",
    "MLPEncoder",
    "MaskedDense",
    "ResNetDecoder",
    "ResNetEncoder",
    "ResidualMLPDecoder",
    "ResidualMLPEncoder",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
