"""Coupling flows: what they share, and the affine one of Real NVP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import bijectors as tfb

from tfp_flowvae.bijectors import Coupling, alternating_mask, half_mask
from tfp_flowvae.flows.amortised import amortised
from tfp_flowvae.flows.base import Flow, checked_length, checked_word, composed
from tfp_flowvae.flows.conditioner import Conditioner
from tfp_flowvae.networks import MLP
from tfp_flowvae.networks.building import ensure_built

MASKS = ("half", "alternating")


class CouplingFlow(Flow):
    """K couplings: the base class of those in the registry.

    Each layer keeps some entries of z and moves the others by parameters that an MLP computes from
    the kept ones (and the context). The kept entries alternate from layer to layer. Both directions
    are one pass. A subclass defines `make_layer` and `params`, how many numbers each MLP puts out
    for an entry that moves.

    Args:
      length: K.
      hidden: Sizes of each MLP's hidden layers.
      activation: Of the hidden layers.
      mask: "half": the first half of the entries, then the second, in turn; or "alternating": the
        even places, then the odd ones.
      **kwargs: See `Flow`; an event_size of at least 2.

    Raises:
      ValueError: If the length is below 1 or the mask has another name.
    """

    def __init__(
        self,
        length: int = 4,
        hidden: Sequence[int] = (256, 256),
        activation: str = "elu",
        mask: str = "half",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.length = checked_length(length)
        self.hidden, self.activation = tuple(hidden), activation
        self.mask = checked_word("mask", mask, MASKS)

    @property
    def params(self) -> int:
        """How many numbers each MLP puts out for an entry that moves."""
        raise NotImplementedError

    def build(self, z_shape: Any = None, context_shape: Any = None) -> None:
        """Creates the MLPs."""
        super().build(z_shape, context_shape)
        if self.event_size < 2:
            raise ValueError(
                "A coupling splits its vector, so event_size must be at least 2. "
                f"Received: event_size={self.event_size}."
            )
        self._networks = []
        for k in range(self.length):
            kept = int(self._kept(k).sum())
            self._networks.append(
                MLP(
                    input_size=kept,
                    hidden=self.hidden,
                    output_size=(self.event_size - kept, self.params),
                    context_size=self.context_size,
                    activation=self.activation,
                    dtype=self.dtype_policy,
                    name=f"mlp_{k}",
                )
            )
        for network in self._networks:
            ensure_built(network)

    def _kept(self, k: int) -> np.ndarray:
        """Which entries layer k leaves alone, `[D]`."""
        make = half_mask if self.mask == "half" else alternating_mask
        return make(self.event_size, reverse=bool(k % 2))

    def make_layer(self, kept: np.ndarray, network: MLP, context: tf.Tensor | None) -> tfb.Bijector:
        """One coupling that keeps the entries `kept` `[D]`."""
        raise NotImplementedError

    def make_bijector(self, context: tf.Tensor | None) -> tfb.Bijector:
        """The couplings, one after the other."""
        return amortised(context, self._composed)

    def _composed(self, context: tf.Tensor | None) -> tfb.Bijector:
        layers = enumerate(self._networks)
        return composed([self.make_layer(self._kept(k), network, context) for k, network in layers])

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
class RealNVP(CouplingFlow):
    """K affine couplings, one pass both ways (Dinh et al. 2017, https://arxiv.org/abs/1605.08803).

    Each layer moves half of z by a shift and a scale that an MLP computes from the other half (and
    the context), and the halves take turns. Starts as the identity. The arguments are those of
    `CouplingFlow`.
    """

    params = 2

    def make_layer(self, kept: np.ndarray, network: MLP, context: tf.Tensor | None) -> tfb.Bijector:
        """One affine coupling."""
        return Coupling(kept, Conditioner(network, context))
