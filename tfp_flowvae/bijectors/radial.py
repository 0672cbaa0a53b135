"""Radial flows (Rezende & Mohamed 2015), invertible by construction, with their inverse."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
import tensorflow_probability as tfp
from tensorflow_probability import bijectors as tfb

from tfp_flowvae._typing import TensorLike
from tfp_flowvae.bijectors import _numerics, _stack, _validate
from tfp_flowvae.bijectors.joint import JointEvaluation


class _RadialBase(JointEvaluation, tfb.AutoCompositeTensorBijector):
    _AXES: dict[str, str]

    def __init__(self, center, alpha, beta, validate_args, name, parameters):
        with tf.name_scope(name) as name:
            tensors = _validate.convert_parameters(
                type(self).__name__, self._AXES, {"center": center, "alpha": alpha, "beta": beta}
            )
            self._center, self._alpha, self._beta = tensors.values()
            super().__init__(
                forward_min_event_ndims=1,
                validate_args=validate_args,
                dtype=self._center.dtype,
                parameters=parameters,
                name=name,
            )

    @property
    def center(self) -> tf.Tensor:
        return self._center

    @property
    def alpha(self) -> tf.Tensor:
        return self._alpha

    @property
    def beta(self) -> tf.Tensor:
        return self._beta

    def _parameter_control_dependencies(self, is_init: bool) -> list:
        if not self.validate_args:
            return []
        owner = type(self).__name__
        named = {"center": self.center, "alpha": self.alpha, "beta": self.beta}
        return [
            *_validate.finite_assertions(owner, named, is_init),
            *_validate.positive_assertions(owner, "alpha", self.alpha, is_init),
        ]

    def _constrained(self):
        center, alpha, beta = (
            tf.convert_to_tensor(p) for p in (self.center, self.alpha, self.beta)
        )
        at_center, excess = _numerics.shifted_softplus(beta, alpha)
        return center, alpha, at_center, excess

    def _checked(self, x):
        return _validate.check_event(type(self).__name__, x, tf.TensorShape(self.center.shape)[-1])


def _log_det(radius, alpha, at_center, excess, event_size):
    inverse = 1.0 / (alpha + radius)
    part = alpha * inverse
    stretch = _log_ratio(excess * inverse, (at_center + radius) * inverse)
    slope = _log_ratio(
        part * excess * inverse, radius * inverse * (1.0 + part) + part * at_center * inverse
    )
    return (event_size - 1.0) * stretch + slope


def _log_ratio(excess, ratio):
    is_near = excess > -0.5
    return tf.where(
        is_near,
        tf.math.log1p(tf.where(is_near, excess, tf.zeros_like(excess))),
        tf.math.log(tf.where(is_near, tf.ones_like(ratio), ratio)),
    )


def _event_size(x):
    return tf.cast(tf.shape(x)[-1] if x.shape[-1] is None else x.shape[-1], x.dtype)


def _forward_step(x, hint, center, alpha, at_center, excess):
    offset = x - center
    radius = _numerics.norm_and_unit(offset)[0]
    y = x + offset * (excess / (alpha + radius))[..., tf.newaxis]
    log_det = _log_det(radius, alpha, at_center, excess, _event_size(x))
    return y, log_det, log_det


def _inverse_step(y, hint, center, alpha, at_center, excess):
    offset = y - center
    radius = _inverse_radius(_numerics.norm_and_unit(offset)[0], alpha, at_center)
    x = y - offset * (excess / (at_center + radius))[..., tf.newaxis]
    log_det = -_log_det(radius, alpha, at_center, excess, _event_size(y))
    return x, log_det, log_det


def _inverse_radius(outer, alpha, at_center):
    scale = tf.stop_gradient(tf.maximum(tf.maximum(alpha, at_center), outer))
    outer, alpha, at_center = outer / scale, alpha / scale, at_center / scale
    middle = outer - at_center
    product = alpha * outer
    root = tf.sqrt(tf.maximum(tf.square(middle) + 4.0 * product, _numerics.tiny(outer.dtype)))
    return scale * tf.where(
        middle >= 0.0, 0.5 * (middle + root), 2.0 * product / (root - tf.minimum(middle, 0.0))
    )


class Radial(_RadialBase):
    """One radial step."""

    _AXES = {"center": "D", "alpha": "", "beta": ""}

    def __init__(
        self,
        center: TensorLike,
        alpha: TensorLike,
        beta: TensorLike,
        validate_args: bool = False,
        name: str = "radial",
    ) -> None:
        super().__init__(center, alpha, beta, validate_args, name, dict(locals()))

    @classmethod
    def _parameter_properties(cls, dtype: Any) -> dict:
        properties = tfp.util.ParameterProperties
        return {
            "center": properties(event_ndims=1),
            "alpha": properties(
                shape_fn=lambda s: s[:-1], default_constraining_bijector_fn=tfb.Softplus
            ),
            "beta": properties(shape_fn=lambda s: s[:-1]),
        }

    def _forward_and_log_det(self, x):
        return _forward_step(self._checked(x), None, *self._constrained())[:2]

    def _inverse_and_log_det(self, y):
        return _inverse_step(self._checked(y), None, *self._constrained())[:2]


class RadialFlow(_RadialBase):
    """K radial steps."""

    _AXES = {"center": "KD", "alpha": "K", "beta": "K"}

    def __init__(
        self,
        center: TensorLike,
        alpha: TensorLike,
        beta: TensorLike,
        validate_args: bool = False,
        name: str = "radial_flow",
    ) -> None:
        super().__init__(center, alpha, beta, validate_args, name, dict(locals()))

    @classmethod
    def _parameter_properties(cls, dtype: Any) -> dict:
        properties = tfp.util.ParameterProperties
        return {
            "center": properties(
                event_ndims=2, shape_fn=lambda s: tf.concat([s[:-1], [1], s[-1:]], 0)
            ),
            "alpha": properties(
                event_ndims=1,
                shape_fn=lambda s: tf.concat([s[:-1], [1]], 0),
                default_constraining_bijector_fn=tfb.Softplus,
            ),
            "beta": properties(event_ndims=1, shape_fn=lambda s: tf.concat([s[:-1], [1]], 0)),
        }

    def _forward_and_log_det(self, x):
        return _stack.run_stack(_forward_step, self._checked(x), self._constrained(), (1, 0, 0, 0))

    def _inverse_and_log_det(self, y):
        return _stack.run_stack(
            _inverse_step, self._checked(y), self._constrained(), (1, 0, 0, 0), reverse=True
        )
