"""Planar flows (Rezende & Mohamed 2015), invertible by construction, with their inverse."""

from __future__ import annotations

from functools import partial
from typing import Any

import tensorflow as tf
import tensorflow_probability as tfp
from tensorflow_probability import bijectors as tfb

from tfp_flowvae._typing import TensorLike
from tfp_flowvae.bijectors import _numerics, _root, _stack, _validate
from tfp_flowvae.bijectors._activations import ACTIVATIONS, Activation
from tfp_flowvae.bijectors.joint import JointEvaluation


class _PlanarBase(JointEvaluation, tfb.AutoCompositeTensorBijector):
    _AXES: dict[str, str]

    def __init__(self, u, w, b, activation, validate_args, name, parameters):
        owner = type(self).__name__
        if activation not in ACTIVATIONS:
            known = ", ".join(repr(key) for key in ACTIVATIONS)
            raise ValueError(f"{owner} takes activation in {known}. Received: {activation!r}.")
        with tf.name_scope(name) as name:
            tensors = _validate.convert_parameters(owner, self._AXES, {"u": u, "w": w, "b": b})
            self._u, self._w, self._b = tensors.values()
            self._activation = activation
            super().__init__(
                forward_min_event_ndims=1,
                validate_args=validate_args,
                dtype=self._u.dtype,
                parameters=parameters,
                name=name,
            )

    @property
    def u(self) -> tf.Tensor:
        return self._u

    @property
    def w(self) -> tf.Tensor:
        return self._w

    @property
    def b(self) -> tf.Tensor:
        return self._b

    @property
    def activation(self) -> str:
        return self._activation

    def _parameter_control_dependencies(self, is_init: bool) -> list:
        if not self.validate_args:
            return []
        return _validate.finite_assertions(
            type(self).__name__, {"u": self.u, "w": self.w, "b": self.b}, is_init
        )

    def _constrained(self):
        u, w, b = (tf.convert_to_tensor(p) for p in (self.u, self.w, self.b))
        inner = tf.reduce_sum(u * w, axis=-1)
        slope, log_slope, excess = _numerics.unit_softplus(inner)
        length, unit = _numerics.norm_and_unit(w)
        is_zero = length == 0
        shift = tf.where(
            is_zero,
            tf.zeros_like(inner),
            (excess - inner) / tf.where(is_zero, tf.ones_like(length), length),
        )
        return u + shift[..., tf.newaxis] * unit, w, b, slope, log_slope

    def _checked(self, x):
        return _validate.check_event(type(self).__name__, x, tf.TensorShape(self.u.shape)[-1])


def _log_slope_at(h: Activation, t, slope, log_slope):
    steep, flat = h.slopes(t)
    total = slope * steep + flat
    tiny = _numerics.tiny(t.dtype)
    return tf.where(total < tiny, tf.minimum(log_slope, 0.0), tf.math.log(tf.maximum(total, tiny)))


def _forward_step(h: Activation, x, hint, u, w, b, slope, log_slope):
    t = tf.reduce_sum(w * x, axis=-1) + b
    log_det = _log_slope_at(h, t, slope, log_slope)
    return x + u * h.value(t)[..., tf.newaxis], log_det, log_det


def _inverse_step(h: Activation, y, hint, u, w, b, slope, log_slope):
    t = _root.implicit_root(h, slope, tf.reduce_sum(w * y, axis=-1) + b, hint)
    return y - u * h.value(t)[..., tf.newaxis], -_log_slope_at(h, t, slope, log_slope), t


class Planar(_PlanarBase):
    """One planar step."""

    _AXES = {"u": "D", "w": "D", "b": ""}

    def __init__(
        self,
        u: TensorLike,
        w: TensorLike,
        b: TensorLike,
        activation: str = "tanh",
        validate_args: bool = False,
        name: str = "planar",
    ) -> None:
        super().__init__(u, w, b, activation, validate_args, name, dict(locals()))

    @classmethod
    def _parameter_properties(cls, dtype: Any) -> dict:
        properties = tfp.util.ParameterProperties
        return {
            "u": properties(event_ndims=1),
            "w": properties(event_ndims=1),
            "b": properties(event_ndims=0, shape_fn=lambda shape: shape[:-1]),
        }

    def _forward_and_log_det(self, x):
        return _forward_step(
            ACTIVATIONS[self.activation], self._checked(x), None, *self._constrained()
        )[:2]

    def _inverse_and_log_det(self, y):
        return _inverse_step(
            ACTIVATIONS[self.activation], self._checked(y), None, *self._constrained()
        )[:2]


class PlanarFlow(_PlanarBase):
    """K planar steps."""

    _AXES = {"u": "KD", "w": "KD", "b": "K"}

    def __init__(
        self,
        u: TensorLike,
        w: TensorLike,
        b: TensorLike,
        activation: str = "tanh",
        validate_args: bool = False,
        name: str = "planar_flow",
    ) -> None:
        super().__init__(u, w, b, activation, validate_args, name, dict(locals()))

    @classmethod
    def _parameter_properties(cls, dtype: Any) -> dict:
        properties = tfp.util.ParameterProperties
        return {
            "u": properties(event_ndims=2, shape_fn=lambda s: tf.concat([s[:-1], [1], s[-1:]], 0)),
            "w": properties(event_ndims=2, shape_fn=lambda s: tf.concat([s[:-1], [1], s[-1:]], 0)),
            "b": properties(event_ndims=1, shape_fn=lambda s: tf.concat([s[:-1], [1]], 0)),
        }

    def _forward_and_log_det(self, x):
        step = partial(_forward_step, ACTIVATIONS[self.activation])
        return _stack.run_stack(step, self._checked(x), self._constrained(), (1, 1, 0, 0, 0))

    def _inverse_and_log_det(self, y):
        step = partial(_inverse_step, ACTIVATIONS[self.activation])
        return _stack.run_stack(
            step, self._checked(y), self._constrained(), (1, 1, 0, 0, 0), reverse=True
        )
