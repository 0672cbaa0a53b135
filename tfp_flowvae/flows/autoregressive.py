"""Autoregressive flows: a `tfb.MaskedAutoregressiveFlow` around our MADE, both ways round.

The direction that takes TFP D passes is one sweep over the MADE's degrees here; see
`networks.made_sweep`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from tensorflow_probability import bijectors as tfb

from tfp_flowvae.bijectors import ParallelMaskedAutoregressiveFlow
from tfp_flowvae.flows.base import Flow, checked_length
from tfp_flowvae.flows.conditioner import AutoregressiveConditioner
from tfp_flowvae.networks import MADE
from tfp_flowvae.networks.building import ensure_built


@keras.saving.register_keras_serializable(package="tfp_flowvae")
class MaskedAutoregressiveFlowLayer(Flow):
    """K affine autoregressive layers with a one-pass density (MAF).

    Papamakarios, Pavlakou & Murray (2017), https://arxiv.org/abs/1705.07057: z0 = (z - m(z)) /
    exp(s(z)), with m and s from a MADE that reads z, in alternating order from layer to layer.
    Starts as the identity.

    Args:
      event_size: D.
      context_size: Size of the context vector, or None.
      length: K.
      hidden: Sizes of each MADE's hidden layers.
      activation: Of the hidden layers.
      **kwargs: See `keras.layers.Layer`.
    """

    _invert = False

    def __init__(
        self,
        event_size: int,
        context_size: int | None = None,
        length: int = 2,
        hidden: Sequence[int] = (320,),
        activation: str = "elu",
        **kwargs: Any,
    ) -> None:
        super().__init__(event_size, context_size, **kwargs)
        self.length = checked_length(length)
        self.hidden, self.activation = tuple(hidden), activation
        self._networks = [
            MADE(
                event_size,
                params=2,
                hidden=self.hidden,
                context_size=context_size,
                activation=activation,
                reverse=bool(k % 2),
                dtype=self.dtype_policy,
                name=f"made_{k}",
            )
            for k in range(length)
        ]

    def build(self, input_shape: Any = None) -> None:
        """Builds every MADE; the sizes are known from the constructor."""
        for network in self._networks:
            ensure_built(network)

    def _bijector(self, context: tf.Tensor | None) -> tfb.Bijector:
        layers = [
            ParallelMaskedAutoregressiveFlow(AutoregressiveConditioner(network, context))
            for network in self._networks
        ]
        if self._invert:
            layers = [tfb.Invert(layer) for layer in layers]
        # tfb.Chain applies its last part first.
        return layers[0] if len(layers) == 1 else tfb.Chain(layers[::-1])

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "length": self.length,
            "hidden": self.hidden,
            "activation": self.activation,
        }


@keras.saving.register_keras_serializable(package="tfp_flowvae")
class InverseAutoregressiveFlowLayer(MaskedAutoregressiveFlowLayer):
    """K affine autoregressive layers with one-pass sampling (IAF): MAF's layers, inverted.

    Kingma et al. (2016), https://arxiv.org/abs/1606.04934: z_k = (z_{k-1} - m(z_{k-1})) /
    exp(s(z_{k-1})), with m and s from a MADE that reads z_{k-1} and the context (their equation 11
    after a change of names). Starts as the identity. Arguments as `MaskedAutoregressiveFlowLayer`.
    """

    _invert = True
