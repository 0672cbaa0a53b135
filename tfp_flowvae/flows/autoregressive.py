"""Autoregressive flows: an autoregressive bijector around our MADE, both ways round.

TFP computes one of the two directions in D passes; here it is one sweep over the MADE's degrees,
see `networks.made_sweep`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from tensorflow_probability import bijectors as tfb

from tfp_flowvae.bijectors import GatedUpdate, ParallelMaskedAutoregressiveFlow
from tfp_flowvae.flows.base import checked_word
from tfp_flowvae.flows.conditioner import AutoregressiveConditioner
from tfp_flowvae.flows.network_flow import NetworkFlow
from tfp_flowvae.networks import MADE

UPDATES = ("affine", "gated")

# What is added to the gate's argument. The paper has 1 to 2; 2 is nearer to the identity.
FORGET_BIAS = 2.0


class AutoregressiveFlow(NetworkFlow):
    """K autoregressive layers, whose MADEs take the entries in alternating order.

    A subclass defines `params` and `make_layer`, a layer whose inverse is the direction of one
    pass. The arguments are those of `NetworkFlow`.
    """

    def make_network(self, k: int, **shared: Any) -> MADE:
        """A MADE, whose order is reversed in every other layer."""
        reverse = bool(k % 2)
        return MADE(self.event_size, self.params, reverse=reverse, name=f"made_{k}", **shared)


@keras.saving.register_keras_serializable(package="tfp_flowvae")
class MAF(AutoregressiveFlow):
    """Masked autoregressive flow: K affine autoregressive layers with a one-pass density.

    Papamakarios, Pavlakou & Murray (2017), https://arxiv.org/abs/1705.07057: z0 = (z - m(z)) /
    exp(s(z)), with m and s from a MADE that reads z, in alternating order from layer to layer.
    Starts as the identity.

    With `update="gated"`, z0 = sigma(z) z + (1 - sigma(z)) m(z) with sigma = sigmoid(s + 2), the
    stable form of Kingma et al. (2016), equations 13 and 14. This form never expands, and starts as
    a scaling by sigmoid(2) = 0.88 a layer. In both s is kept within (-3, 3).

    The arguments are those of `NetworkFlow`, and:

    Example:
      >>> flow = MAF(2, event_size=3, hidden=(32,))
      >>> z, log_det = flow(tf.zeros([5, 3]))

    Args:
      update: "affine" or "gated".

    Raises:
      ValueError: If the length is below 1 or the update has another name.
    """

    params = 2

    def __init__(
        self,
        length: int = 2,
        hidden: Sequence[int] = (320,),
        activation: str = "elu",
        update: str = "affine",
        **kwargs: Any,
    ) -> None:
        super().__init__(length, hidden, activation, **kwargs)
        self.update = checked_word("update", update, UPDATES)

    def make_layer(self, k: int, network: MADE, context: tf.Tensor | None) -> tfb.Bijector:
        """One affine or gated layer."""
        conditioner = AutoregressiveConditioner(network, context)
        if self.update == "affine":
            return ParallelMaskedAutoregressiveFlow(conditioner)
        return ParallelMaskedAutoregressiveFlow(bijector_fn=GatedUpdate(conditioner, FORGET_BIAS))


@keras.saving.register_keras_serializable(package="tfp_flowvae")
class IAF(MAF):
    """Inverse autoregressive flow: K affine autoregressive layers with one-pass sampling.

    Kingma et al. (2016), https://arxiv.org/abs/1606.04934: z_k = (z_{k-1} - m(z_{k-1})) /
    exp(s(z_{k-1})), with m and s from a MADE that reads z_{k-1} and the context (their equation 11
    after a change of names). These are MAF's layers, inverted. Starts as the identity. With
    `update="gated"`, their equations 13 and 14: z_k = sigma z_{k-1} + (1 - sigma) m. The arguments
    are those of `MAF`.

    Example:
      >>> flow = IAF(2, event_size=3, hidden=(32,))
      >>> z, log_det = flow(tf.zeros([5, 3]))
    """

    inverted = True
