"""Keras 3 networks: the conditioners of the flows, the encoders and the decoders."""

from tfp_flowvae.networks.made import MADE
from tfp_flowvae.networks.masked_dense import MaskedDense
from tfp_flowvae.networks.mlp import MLP, MLPDecoder, MLPEncoder

__all__ = ["MADE", "MLP", "MLPDecoder", "MLPEncoder", "MaskedDense"]
