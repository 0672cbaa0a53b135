"""NICE: additive couplings and a diagonal scaling."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from tensorflow_probability import bijectors as tfb

from tfp_flowvae.bijectors import AdditiveCoupling
from tfp_flowvae.flows.base import ParametricFlow, composed
from tfp_flowvae.flows.conditioner import Conditioner
from tfp_flowvae.flows.coupling import CouplingFlow
from tfp_flowvae.networks import MLP
from tfp_flowvae.networks.building import ensure_built


@keras.saving.register_keras_serializable(package="tfp_flowvae")
class NICE(CouplingFlow):
    """K additive couplings, then a diagonal scaling (Dinh et al. 2015).

    NICE, https://arxiv.org/abs/1410.8516: each layer adds to one half of z what an MLP computes
    from the other half (and the context), which keeps volumes (their equation 7). At the end z_i is
    scaled by exp(s_i); the log-det is sum_i s_i (their section 3.3). With a context the scaling is
    amortised too. Starts as the identity. The arguments are those of `CouplingFlow`.

    Example:
      >>> flow = NICE(4, event_size=3, context_size=2)
      >>> z, log_det = flow(tf.zeros([5, 3]), tf.zeros([5, 2]))
    """

    params = 1

    def build(self, z_shape: Any = None, context_shape: Any = None) -> None:
        """Creates the MLPs and the scaling."""
        super().build(z_shape, context_shape)
        self._scaling = _DiagonalScaling(
            event_size=self.event_size,
            context_size=self.context_size,
            dtype=self.dtype_policy,
            name="scaling",
        )
        ensure_built(self._scaling)

    def make_layer(self, k: int, network: MLP, context: tf.Tensor | None) -> tfb.Bijector:
        """One additive coupling."""
        return AdditiveCoupling(
            self.kept(k), Conditioner(network, context, read=lambda out: out[..., 0])
        )

    def make_bijector(self, context: tf.Tensor | None) -> tfb.Bijector:
        """The couplings and the scaling."""
        return composed([super().make_bijector(context), self._scaling.bijector(context)])


class _DiagonalScaling(ParametricFlow):
    """z exp(s), s of `[D]`."""

    def parameter_initializers(self) -> dict[str, tuple[tuple[int, ...], Any]]:
        return {"log_scale": ((self.event_size,), "zeros")}

    def make_bijector(self, context: tf.Tensor | None) -> tfb.Bijector:
        return tfb.Scale(log_scale=self.parameters(context)["log_scale"])
