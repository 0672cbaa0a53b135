"""Planar layers as Henrion & Welleck had them, without the constraint that makes them invertible.

f(z) = z + u tanh(w.z + b) with any u is no bijection where w.u < -1: it folds space. What this
trains by, log q0(z0) - sum_k log |1 + w.u h'(w.z + b)|, is then not the density of z, which has a
term for each z0 that f maps there, and the free energy no longer bounds -log p(x).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_probability import bijectors as tfb

from tfp_flowvae.flows import FLOWS, Planar, register_flow

NAME = "unconstrained-planar"


class UnconstrainedPlanar(tfb.Bijector):
    """K planar steps in a row with parameters as they are; forward alone.

    Asked for an inverse, which there need not be, it answers NaN.

    Args:
      u: `[..., K, D]`.
      w: `[..., K, D]`.
      b: `[..., K]`.
    """

    def __init__(self, u: tf.Tensor, w: tf.Tensor, b: tf.Tensor) -> None:
        parameters = dict(locals())
        self._u, self._w, self._b = (tf.convert_to_tensor(value) for value in (u, w, b))
        super().__init__(forward_min_event_ndims=1, dtype=tf.float32, parameters=parameters)

    def _steps(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        log_det = tf.zeros_like(x[..., 0])
        for k in range(self._u.shape[-2]):
            u, w = self._u[..., k, :], self._w[..., k, :]
            h = tf.tanh(tf.reduce_sum(w * x, axis=-1) + self._b[..., k])
            slope = 1.0 + (1.0 - h * h) * tf.reduce_sum(w * u, axis=-1)
            log_det += tf.math.log(tf.abs(slope))
            x += u * h[..., tf.newaxis]
        return x, log_det

    def _forward(self, x: tf.Tensor) -> tf.Tensor:
        return self._steps(x)[0]

    def _forward_log_det_jacobian(self, x: tf.Tensor) -> tf.Tensor:
        return self._steps(x)[1]

    def _inverse(self, y: tf.Tensor) -> tf.Tensor:
        return tf.fill(tf.shape(y), np.float32(np.nan))

    def _inverse_log_det_jacobian(self, y: tf.Tensor) -> tf.Tensor:
        return tf.fill(tf.shape(y)[:-1], np.float32(np.nan))


def register() -> None:
    """Makes the flow known to specs and to what loads models."""
    if NAME in FLOWS:
        return

    @register_flow(NAME, summary="planar layers with any u", package="study", fast_density=False)
    class UnconstrainedPlanarLayer(Planar):
        """K planar layers without the constraint on u. Arguments as `Planar`."""

        def __init__(self, length: int = 10, **kwargs: Any) -> None:
            super().__init__(length, **kwargs)

        def make_bijector(self, context: tf.Tensor | None) -> Any:
            """The planar layers."""
            return UnconstrainedPlanar(**self.parameters(context))
