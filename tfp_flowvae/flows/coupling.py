"""Coupling flows: what they share, and the affine one of Real NVP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import bijectors as tfb

from tfp_flowvae.bijectors import Coupling, alternating_mask, half_mask
from tfp_flowvae.flows.base import checked_word
from tfp_flowvae.flows.conditioner import Conditioner
from tfp_flowvae.flows.network_flow import NetworkFlow
from tfp_flowvae.networks import MLP

MASKS = ("half", "alternating")


class CouplingFlow(NetworkFlow):
    """K couplings: the base class of those in the registry.

    Each layer keeps some entries of z and moves the others by parameters that an MLP computes from
    the kept ones (and the context). The kept entries alternate from layer to layer. Both directions
    are one pass. A subclass defines `params` and `make_layer`.

    The arguments are those of `NetworkFlow`, with an event_size of at least 2, and:

    Args:
      mask: "half": the first half of the entries, then the second, in turn; or "alternating": the
        even places, then the odd ones.

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
        super().__init__(length, hidden, activation, **kwargs)
        self.mask = checked_word("mask", mask, MASKS)

    def make_network(self, k: int, **shared: Any) -> MLP:
        """An MLP from the entries that layer k keeps to the parameters of the others."""
        if self.event_size < 2:
            raise ValueError(
                "A coupling splits its vector, so event_size must be at least 2. "
                f"Received: event_size={self.event_size}."
            )
        kept = int(self.kept(k).sum())
        output_size = (self.event_size - kept, self.params)
        return MLP(kept, output_size=output_size, name=f"mlp_{k}", **shared)

    def kept(self, k: int) -> np.ndarray:
        """Which entries layer k leaves alone, `[D]`."""
        make = half_mask if self.mask == "half" else alternating_mask
        return make(self.event_size, reverse=bool(k % 2))


@keras.saving.register_keras_serializable(package="tfp_flowvae")
class RealNVP(CouplingFlow):
    """K affine couplings, one pass both ways (Dinh et al. 2017, https://arxiv.org/abs/1605.08803).

    Each layer moves half of z by a shift and a scale that an MLP computes from the other half (and
    the context), and the halves take turns. Starts as the identity. The arguments are those of
    `CouplingFlow`.

    Example:
      >>> flow = RealNVP(4, event_size=3, context_size=2)
      >>> z, log_det = flow(tf.zeros([5, 3]), tf.zeros([5, 2]))
    """

    params = 2

    def make_layer(self, k: int, network: MLP, context: tf.Tensor | None) -> tfb.Bijector:
        """One affine coupling."""
        return Coupling(self.kept(k), Conditioner(network, context))
