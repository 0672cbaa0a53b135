"""Coupling flows: what they share, and the affine one of Real NVP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import bijectors as tfb

from tfp_flowvae.bijectors import Coupling, alternating_mask, half_mask
from tfp_flowvae.flows.base import Flow, checked_length, checked_word, composed
from tfp_flowvae.flows.conditioner import Conditioner
from tfp_flowvae.networks import MLP
from tfp_flowvae.networks.building import ensure_built

MASKS = ("half", "alternating")


class CouplingFlow(Flow):
    """K couplings, whatever moves the entries; the base of those in the registry.

    Each layer keeps some entries of z and moves the others by parameters that an MLP computes from
    the kept ones (and the context); which, alternates from layer to layer. One pass both ways.

    Args:
      event_size: D, at least 2.
      context_size: Size of the context vector, or None.
      length: K.
      hidden: Sizes of each MLP's hidden layers.
      activation: Of the hidden layers.
      mask: "half": the first half of the entries, then the second, in turn; or "alternating": the
        even places, then the odd ones.
      params: How many numbers P each MLP puts out for an entry that moves.
      **kwargs: See `keras.layers.Layer`.
    """

    def __init__(
        self,
        event_size: int,
        context_size: int | None,
        length: int,
        hidden: Sequence[int],
        activation: str,
        mask: str,
        params: int,
        **kwargs: Any,
    ) -> None:
        super().__init__(event_size, context_size, **kwargs)
        if event_size < 2:
            raise ValueError(
                "A coupling splits its vector, so event_size must be at least 2. "
                f"Received: {event_size=}."
            )
        self.length = checked_length(length)
        self.hidden, self.activation = tuple(hidden), activation
        self.mask = checked_word("mask", mask, MASKS)
        self._networks = []
        for k in range(length):
            kept = int(self._kept(k).sum())
            self._networks.append(
                MLP(
                    input_size=kept,
                    hidden=self.hidden,
                    output_size=(event_size - kept, params),
                    context_size=context_size,
                    activation=activation,
                    dtype=self.dtype_policy,
                    name=f"mlp_{k}",
                )
            )

    def _kept(self, k: int) -> np.ndarray:
        """Which entries layer k leaves alone, `[D]`."""
        make = half_mask if self.mask == "half" else alternating_mask
        return make(self.event_size, reverse=bool(k % 2))

    def build(self, input_shape: Any = None) -> None:
        """Builds every MLP; the sizes are known from the constructor."""
        for network in self._networks:
            ensure_built(network)

    def _layer(self, kept: np.ndarray, network: MLP, context: tf.Tensor | None) -> tfb.Bijector:
        raise NotImplementedError

    def _bijector(self, context: tf.Tensor | None) -> tfb.Bijector:
        layers = enumerate(self._networks)
        return composed([self._layer(self._kept(k), network, context) for k, network in layers])

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "length": self.length,
            "hidden": self.hidden,
            "activation": self.activation,
            "mask": self.mask,
        }


@keras.saving.register_keras_serializable(package="tfp_flowvae")
class RealNVPFlowLayer(CouplingFlow):
    """K affine couplings, one pass both ways (Dinh et al. 2017, https://arxiv.org/abs/1605.08803).

    Each layer moves half of z by a shift and a scale that an MLP computes from the other half (and
    the context), and the halves take turns. Starts as the identity.

    Args:
      event_size: D, at least 2.
      context_size: Size of the context vector, or None.
      length: K.
      hidden: Sizes of each MLP's hidden layers.
      activation: Of the hidden layers.
      mask: Which half, see `CouplingFlow`.
      **kwargs: See `keras.layers.Layer`.
    """

    def __init__(
        self,
        event_size: int,
        context_size: int | None = None,
        length: int = 4,
        hidden: Sequence[int] = (256, 256),
        activation: str = "elu",
        mask: str = "half",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            event_size, context_size, length, hidden, activation, mask, params=2, **kwargs
        )

    def _layer(self, kept: np.ndarray, network: MLP, context: tf.Tensor | None) -> tfb.Bijector:
        return Coupling(kept, Conditioner(network, context))
