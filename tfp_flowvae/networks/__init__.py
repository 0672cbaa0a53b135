"""Keras 3 networks: the conditioners of the flows, the encoders and the decoders.

Importing this package loads neither TensorFlow nor Keras; its parts do when they are asked for.
"""

from __future__ import annotations

from tfp_flowvae._lazy import lazy
from tfp_flowvae.networks.registry import NETWORKS, NetworkEntry, register_network

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

__all__ = [*_LAZY, "NETWORKS", "NetworkEntry", "register_network"]

__getattr__ = lazy(__name__, _LAZY)
