"""The base class of couplings and autoregressive flows: K layers, each with a network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from tensorflow_probability import bijectors as tfb

from tfp_flowvae.flows.amortised import amortised
from tfp_flowvae.flows.base import Flow, checked_length, composed
from tfp_flowvae.networks.building import ensure_built


class NetworkFlow(Flow):
    """K layers, each with a network that reads z and the context.

    A subclass defines `make_network`, `make_layer` and `params`, how many numbers a network puts
    out for an entry of z that moves; and `inverted`, where the flow is made of inverted layers.

    Args:
      length: K.
      hidden: Sizes of each network's hidden layers.
      activation: Of the hidden layers.
      **kwargs: See `Flow`.

    Raises:
      ValueError: If the length is below 1.
    """

    params: Any
    inverted = False

    def __init__(self, length: int, hidden: Sequence[int], activation: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.length = checked_length(length)
        self.hidden, self.activation = tuple(hidden), activation

    def build(self, z_shape: Any = None, context_shape: Any = None) -> None:
        """Creates the networks."""
        super().build(z_shape, context_shape)
        shared = {
            "hidden": self.hidden,
            "context_size": self.context_size,
            "activation": self.activation,
            "dtype": self.dtype_policy,
        }
        self._networks = [self.make_network(k, **shared) for k in range(self.length)]
        for network in self._networks:
            ensure_built(network)

    def make_network(self, k: int, **shared: Any) -> keras.layers.Layer:
        """Layer k's network, given the arguments that all of them share."""
        raise NotImplementedError

    def make_layer(self, k: int, network: Any, context: tf.Tensor | None) -> tfb.Bijector:
        """Layer k, before it is inverted where the flow is."""
        raise NotImplementedError

    def make_bijector(self, context: tf.Tensor | None) -> tfb.Bijector:
        """The layers, one after the other."""
        return amortised(context, self._composed)

    def _composed(self, context: tf.Tensor | None) -> tfb.Bijector:
        networks = enumerate(self._networks)
        layers = [self.make_layer(k, network, context) for k, network in networks]
        return composed([tfb.Invert(layer) for layer in layers] if self.inverted else layers)
