"""Keras 3 networks: the conditioners of the flows, the encoders and the decoders.

Importing this package loads neither TensorFlow nor Keras; its parts do when they are asked for.
"""

from __future__ import annotations

from tfp_flowvae._lazy import lazy
from tfp_flowvae.networks.registry import NETWORKS, NetworkEntry, register_network

_LAZY = {
    "AutoregressiveNetwork": "autoregressive_network",
    "BatchNormalization": "batch_norm",
    "CouplingNetwork": "glow",
    "GatedConvDecoder": "gated_conv",
    "GatedConvEncoder": "gated_conv",
    "GatedMLPDecoder": "gated_mlp",
    "GatedMLPEncoder": "gated_mlp",
    "GlowDefaultExitNetwork": "glow",
    "GlowDefaultNetwork": "glow",
    "MADE": "made",
    "MLP": "mlp",
    "MLPDecoder": "mlp",
    "MLPEncoder": "mlp",
    "MaskedDense": "masked_dense",
    "RealNVPTemplate": "real_nvp_template",
    "ResNetDecoder": "resnet",
    "ResNetEncoder": "resnet",
    "ResidualMLPDecoder": "residual_mlp",
    "ResidualMLPEncoder": "residual_mlp",
    "real_nvp_default_template": "real_nvp_template",
}

__all__ = [*_LAZY, "NETWORKS", "NetworkEntry", "register_network"]

__getattr__ = lazy(__name__, _LAZY)
