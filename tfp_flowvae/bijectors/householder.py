"""Products of Householder reflections (Tomczak & Welling 2016) in compact WY form."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
import tensorflow_probability as tfp
from tensorflow_probability import bijectors as tfb

from tfp_flowvae._typing import TensorLike
from tfp_flowvae.bijectors import _numerics, _validate
from tfp_flowvae.bijectors.joint import JointEvaluation


class HouseholderFlow(JointEvaluation, tfb.AutoCompositeTensorBijector):
    """K reflections."""

    def __init__(
        self, v: TensorLike, validate_args: bool = False, name: str = "householder_flow"
    ) -> None:
        parameters = dict(locals())
        with tf.name_scope(name) as name:
            (self._v,) = _validate.convert_parameters(
                type(self).__name__, {"v": "KD"}, {"v": v}
            ).values()
            super().__init__(
                forward_min_event_ndims=1,
                is_constant_jacobian=True,
                validate_args=validate_args,
                dtype=self._v.dtype,
                parameters=parameters,
                name=name,
            )

    @classmethod
    def _parameter_properties(cls, dtype: Any) -> dict:
        return {
            "v": tfp.util.ParameterProperties(
                event_ndims=2, shape_fn=lambda s: tf.concat([s[:-1], [1], s[-1:]], 0)
            )
        }

    @property
    def v(self) -> tf.Tensor:
        return self._v

    def _parameter_control_dependencies(self, is_init: bool) -> list:
        if not self.validate_args:
            return []
        return _validate.finite_assertions(type(self).__name__, {"v": self.v}, is_init)

    def _forward_and_log_det(self, x):
        return self._apply(x, reverse=False)

    def _inverse_and_log_det(self, y):
        return self._apply(y, reverse=True)

    def _apply(self, x, reverse):
        x = _validate.check_event(type(self).__name__, x, tf.TensorShape(self.v.shape)[-1])
        unit = _numerics.norm_and_unit(tf.convert_to_tensor(self.v))[1]
        gram = tf.matmul(unit, unit, transpose_b=True)
        half = tf.fill(tf.shape(gram)[:-1], tf.constant(0.5, x.dtype))
        lower = tf.linalg.set_diag(tf.linalg.band_part(gram, -1, 0), half)
        inner = tf.linalg.matvec(unit, x)
        weights = tf.linalg.triangular_solve(lower, inner[..., tf.newaxis], adjoint=reverse)
        y = x - tf.linalg.matvec(unit, weights[..., 0], transpose_a=True)
        return y, tf.zeros(tf.shape(y)[:-1], y.dtype)
