"""Coupling flows: TFP's `RealNVP` around our MLP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from tensorflow_probability import bijectors as tfb

from tfp_flowvae.flows.base import Flow, checked_length
from tfp_flowvae.flows.conditioner import Conditioner
from tfp_flowvae.networks import MLP
from tfp_flowvae.networks.building import ensure_built


@keras.saving.register_keras_serializable(package="tfp_flowvae")
class RealNVPFlowLayer(Flow):
    """K affine couplings, one pass both ways (Dinh et al. 2017, https://arxiv.org/abs/1605.08803).

    Each layer moves one half of z by a shift and a scale that an MLP computes from the other half
    (and the context), and the halves take turns. Starts as the identity.

    Args:
      event_size: D, at least 2.
      context_size: Size of the context vector, or None.
      length: K.
      hidden: Sizes of each MLP's hidden layers.
      activation: Of the hidden layers.
      **kwargs: See `keras.layers.Layer`.
    """

    def __init__(
        self,
        event_size: int,
        context_size: int | None = None,
        length: int = 4,
        hidden: Sequence[int] = (256, 256),
        activation: str = "elu",
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
        self._networks = []
        for k in range(length):
            fixed = self._fixed(k)
            self._networks.append(
                MLP(
                    input_size=fixed,
                    hidden=self.hidden,
                    output_size=(event_size - fixed, 2),
                    context_size=context_size,
                    activation=activation,
                    dtype=self.dtype_policy,
                    name=f"mlp_{k}",
                )
            )

    def _fixed(self, k: int) -> int:
        """How many dimensions layer k leaves alone: the first half, then the rest, in turn."""
        half = self.event_size // 2
        return self.event_size - half if k % 2 else half

    def build(self, input_shape: Any = None) -> None:
        """Builds every MLP; the sizes are known from the constructor."""
        for network in self._networks:
            ensure_built(network)

    def _bijector(self, context: tf.Tensor | None) -> tfb.Bijector:
        layers = []
        for k, network in enumerate(self._networks):
            fixed = self._fixed(k)
            # TFP: a negative number leaves the last dimensions alone instead of the first.
            layers.append(
                tfb.RealNVP(
                    num_masked=-fixed if k % 2 else fixed,
                    shift_and_log_scale_fn=Conditioner(network, context),
                )
            )
        return layers[0] if len(layers) == 1 else tfb.Chain(layers[::-1])

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "length": self.length,
            "hidden": self.hidden,
            "activation": self.activation,
        }
