"""NICE: additive couplings and a diagonal scaling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import bijectors as tfb

from tfp_flowvae.bijectors import AdditiveCoupling
from tfp_flowvae.flows.base import ParametricFlow, composed
from tfp_flowvae.flows.conditioner import Conditioner
from tfp_flowvae.flows.coupling import CouplingFlow
from tfp_flowvae.networks import MLP
from tfp_flowvae.networks.building import ensure_built


@keras.saving.register_keras_serializable(package="tfp_flowvae")
class NICEFlowLayer(CouplingFlow):
    """K additive couplings, then a diagonal scaling (Dinh et al. 2015).

    NICE, https://arxiv.org/abs/1410.8516: each layer adds to one half of z what an MLP computes
    from the other half (and the context), which keeps volumes (their equation 7); at the end z_i is
    scaled by exp(s_i), which alone makes the log-det, sum_i s_i (their section 3.3). With a context
    the scaling is amortised too. Starts as the identity.

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
            event_size, context_size, length, hidden, activation, mask, params=1, **kwargs
        )
        self._scaling = _DiagonalScaling(
            event_size, context_size, dtype=self.dtype_policy, name="scaling"
        )

    def build(self, input_shape: Any = None) -> None:
        """Builds every MLP and the scaling."""
        super().build(input_shape)
        ensure_built(self._scaling)

    def _layer(self, kept: np.ndarray, network: MLP, context: tf.Tensor | None) -> tfb.Bijector:
        return AdditiveCoupling(kept, Conditioner(network, context, read=_shift))

    def _bijector(self, context: tf.Tensor | None) -> tfb.Bijector:
        return composed([super()._bijector(context), self._scaling.bijector(context)])


def _shift(out: tf.Tensor) -> tf.Tensor:
    return out[..., 0]


class _DiagonalScaling(ParametricFlow):
    """z exp(s), s of `[D]`."""

    def _parameter_initializers(self) -> dict[str, tuple[tuple[int, ...], Any]]:
        return {"log_scale": ((self.event_size,), "zeros")}

    def _bijector(self, context: tf.Tensor | None) -> tfb.Bijector:
        return tfb.Scale(log_scale=self.parameters(context)["log_scale"])
