"""Autoregressive flows: an autoregressive bijector around our MADE, both ways round.

The direction that takes TFP D passes is one sweep over the MADE's degrees here; see
`networks.made_sweep`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from tensorflow_probability import bijectors as tfb

from tfp_flowvae.bijectors import GatedUpdate, ParallelMaskedAutoregressiveFlow
from tfp_flowvae.flows.base import Flow, checked_length, checked_word, composed
from tfp_flowvae.flows.conditioner import AutoregressiveConditioner
from tfp_flowvae.networks import MADE
from tfp_flowvae.networks.building import ensure_built

UPDATES = ("affine", "gated")

# What is added to the gate's argument: 1 to 2 in the paper, and 2 is the nearer to the identity.
FORGET_BIAS = 2.0


class AutoregressiveFlow(Flow):
    """K autoregressive layers, whatever moves the entries; the base of those in the registry.

    Args:
      event_size: D.
      context_size: Size of the context vector, or None.
      length: K.
      hidden: Sizes of each MADE's hidden layers.
      activation: Of the hidden layers.
      params: How many numbers P each MADE puts out for an entry.
      **kwargs: See `keras.layers.Layer`.
    """

    _invert = False

    def __init__(
        self,
        event_size: int,
        context_size: int | None,
        length: int,
        hidden: Sequence[int],
        activation: str,
        params: int,
        **kwargs: Any,
    ) -> None:
        super().__init__(event_size, context_size, **kwargs)
        self.length = checked_length(length)
        self.hidden, self.activation = tuple(hidden), activation
        self._networks = [
            MADE(
                event_size,
                params=params,
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

    def _layer(self, network: MADE, context: tf.Tensor | None) -> tfb.Bijector:
        """One layer, its inverse the direction of one pass."""
        raise NotImplementedError

    def _bijector(self, context: tf.Tensor | None) -> tfb.Bijector:
        layers = [self._layer(network, context) for network in self._networks]
        return composed([tfb.Invert(layer) for layer in layers] if self._invert else layers)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "length": self.length,
            "hidden": self.hidden,
            "activation": self.activation,
        }


@keras.saving.register_keras_serializable(package="tfp_flowvae")
class MaskedAutoregressiveFlowLayer(AutoregressiveFlow):
    """K affine autoregressive layers with a one-pass density (MAF).

    Papamakarios, Pavlakou & Murray (2017), https://arxiv.org/abs/1705.07057: z0 = (z - m(z)) /
    exp(s(z)), with m and s from a MADE that reads z, in alternating order from layer to layer.
    Starts as the identity.

    With `update="gated"`, z0 = sigma(z) z + (1 - sigma(z)) m(z) with sigma = sigmoid(s + 2), the
    stable form of Kingma et al. (2016), equations 13 and 14. That way it never expands, and it
    starts as a scaling by sigmoid(2) = 0.88 a layer. In both s is kept within (-3, 3).

    Args:
      event_size: D.
      context_size: Size of the context vector, or None.
      length: K.
      hidden: Sizes of each MADE's hidden layers.
      activation: Of the hidden layers.
      update: "affine" or "gated".
      **kwargs: See `keras.layers.Layer`.
    """

    def __init__(
        self,
        event_size: int,
        context_size: int | None = None,
        length: int = 2,
        hidden: Sequence[int] = (320,),
        activation: str = "elu",
        update: str = "affine",
        **kwargs: Any,
    ) -> None:
        super().__init__(event_size, context_size, length, hidden, activation, params=2, **kwargs)
        self.update = checked_word("update", update, UPDATES)

    def _layer(self, network: MADE, context: tf.Tensor | None) -> tfb.Bijector:
        conditioner = AutoregressiveConditioner(network, context)
        if self.update == "affine":
            return ParallelMaskedAutoregressiveFlow(conditioner)
        return ParallelMaskedAutoregressiveFlow(bijector_fn=GatedUpdate(conditioner, FORGET_BIAS))

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "update": self.update}


@keras.saving.register_keras_serializable(package="tfp_flowvae")
class InverseAutoregressiveFlowLayer(MaskedAutoregressiveFlowLayer):
    """K affine autoregressive layers with one-pass sampling (IAF): MAF's layers, inverted.

    Kingma et al. (2016), https://arxiv.org/abs/1606.04934: z_k = (z_{k-1} - m(z_{k-1})) /
    exp(s(z_{k-1})), with m and s from a MADE that reads z_{k-1} and the context (their equation 11
    after a change of names). Starts as the identity. With `update="gated"`, their equations 13 and
    14: z_k = sigma z_{k-1} + (1 - sigma) m. Arguments as `MaskedAutoregressiveFlowLayer`.
    """

    _invert = True
