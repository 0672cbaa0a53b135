"""Radial flows, invertible by construction for every parameter value, with their inverse.

The step of Rezende & Mohamed (2015, equation 14) around a center c of `[D]` is

    f(z) = z + beta^ (z - c) / (alpha + r),        r = ||z - c||,      alpha > 0,

invertible exactly when beta^ > -alpha. `beta` is a raw parameter, and what acts is

    beta^ = gamma - alpha,       gamma = softplus(beta + softplus^-1(alpha)) > 0,

so that beta = 0 gives beta^ = 0, the identity. Along each ray from c only the radius changes,

    r' = r (gamma + r) / (alpha + r),

and gamma and beta^ are both carried, for near the constraint's edge gamma is the small quantity and
near the identity beta^ is. The Jacobian has D - 1 eigenvalues (gamma + r) / (alpha + r) across the
ray and one along it, with p = alpha / (alpha + r),

    log |det df/dz| = (D - 1) log(1 + beta^ / (alpha + r)) + log(1 + p beta^ / (alpha + r)) .

The inverse radius is the positive root of r^2 + (gamma - r') r - alpha r' = 0, in whichever of its
two forms does not cancel.

References:
  Danilo Jimenez Rezende and Shakir Mohamed. Variational Inference with Normalizing Flows. ICML
  2015. https://arxiv.org/abs/1505.05770
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
import tensorflow as tf

from tfp_flowvae._typing import TensorLike
from tfp_flowvae.bijectors.internal import numerics, validate
from tfp_flowvae.bijectors.internal.parametric import ParametricBijector, parameter


class _Acting(NamedTuple):
    """What acts in a step: the center, alpha, gamma, beta^, and log(gamma / alpha)."""

    center: tf.Tensor
    alpha: tf.Tensor
    gamma: tf.Tensor
    excess: tf.Tensor
    log_ratio: tf.Tensor


class _RadialBase(ParametricBijector):
    """The parameters, the constraint and the step that both classes below share."""

    center = parameter("center", "The fixed point c, as it was given.")
    alpha = parameter("alpha", "The positive length scale, as it was given.")
    beta = parameter("beta", "The raw strength, as it was given.")

    def __init__(
        self,
        center: TensorLike,
        alpha: TensorLike,
        beta: TensorLike,
        validate_args: bool = False,
        name: str | None = None,
    ) -> None:
        super().__init__(dict(locals()))

    def constrained_beta(self) -> tf.Tensor:
        """Returns beta^, the strength that acts, of the shape of `beta` broadcast with `alpha`."""
        return self._constrain().excess

    @classmethod
    def _parameter_properties(cls, dtype: Any) -> dict[str, Any]:
        return validate.parameter_properties(cls._AXES, positive={"alpha": dtype})

    def _parameter_control_dependencies(self, is_init: bool) -> list:
        found = super()._parameter_control_dependencies(is_init)
        if not self.validate_args:
            return found
        return found + validate.assertions(
            self.alpha,
            is_init,
            f"{type(self).__name__} takes a positive alpha",
            lambda alpha: f"alpha with minimum {alpha.min()}" if np.any(alpha <= 0) else "",
            lambda alpha, message: tf.debugging.assert_positive(alpha, message=message),
        )

    def _constrain(self) -> _Acting:
        """Computes from the raw parameters what acts in a step."""
        center, alpha, beta = (
            tf.convert_to_tensor(p) for p in (self.center, self.alpha, self.beta)
        )
        gamma, excess, log_gamma = numerics.shifted_softplus(beta, alpha)
        return _Acting(center, alpha, gamma, excess, log_gamma - tf.math.log(alpha))

    def _forward_and_log_det(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return self._run(_forward_step, x, self._constrain(), (1, 0, 0, 0, 0))

    def _inverse_and_log_det(self, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return self._run(_inverse_step, y, self._constrain(), (1, 0, 0, 0, 0), reverse=True)


class Radial(_RadialBase):
    """One radial step, f(z) = z + beta^ (z - center) / (alpha + r), with `beta^ > -alpha`.

    The mathematics is at the head of this module. Both directions cost O(D); D may be 1.

    Example:
      >>> radial = Radial(center=tf.zeros([2]), alpha=1.0, beta=0.0)
      >>> radial.forward([1.0, 2.0])  # beta = 0 is the identity
      <tf.Tensor: shape=(2,), dtype=float32, numpy=array([1., 2.], dtype=float32)>

    Args:
      center: `[..., D]`, the point that stays. Float32 or float64, as all parameters.
      alpha: `[...]`, positive.
      beta: `[...]`, raw: any real number is valid; positive ones push outwards.
      validate_args: Whether to check that the parameters are finite and `alpha` is positive.
      name: The name of this bijector and the scope of its operations.

    Raises:
      TypeError: If the dtypes differ or are not float32 or float64.
      ValueError: If the shapes do not fit together, or `validate_args` finds a parameter that is
        not finite or an `alpha` that is not positive.
    """

    _AXES: ClassVar[Mapping[str, str]] = {"center": "D", "alpha": "", "beta": ""}


class RadialFlow(_RadialBase):
    """K radial steps in a row, as one bijector that loops: step `[..., 0, :]` acts first.

    The same map as a `tfb.Chain` of K `Radial`s, with log-dets added. Compilation takes the same
    time for every K, and a step's time, with gradients, grows linearly.

    Example:
      >>> flow = RadialFlow(tf.random.normal([10, 2]), alpha=tf.ones([10]), beta=tf.zeros([10]))
      >>> y, log_det = flow.forward_and_log_det(tf.random.normal([100, 2]))

    Args:
      center: `[..., K, D]`, as all arguments are those of `Radial` for each of K >= 1 steps.
      alpha: `[..., K]`, positive.
      beta: `[..., K]`, raw.
      validate_args: As for `Radial`.
      name: As for `Radial`.

    Raises:
      TypeError: As `Radial`.
      ValueError: As `Radial`, or if K is 0.
    """

    _AXES: ClassVar[Mapping[str, str]] = {"center": "KD", "alpha": "K", "beta": "K"}
    _IS_STACK = True


def _forward_step(
    x: tf.Tensor, hint: None, *acting: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, None]:
    p = _Acting(*acting)
    radius = numerics.norm_and_unit(x - p.center)[0]
    y = _move(x, p.center, p.alpha + radius, p.gamma + radius, p.excess)
    return y, _log_det(radius, p, x), None


def _inverse_step(
    y: tf.Tensor, hint: None, *acting: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, None]:
    p = _Acting(*acting)
    radius = _inner_radius(numerics.norm_and_unit(y - p.center)[0], p.alpha, p.gamma)
    x = _move(y, p.center, p.gamma + radius, p.alpha + radius, -p.excess)
    return x, -_log_det(radius, p, y), None


def _move(
    point: tf.Tensor,
    center: tf.Tensor,
    from_scale: tf.Tensor,
    to_scale: tf.Tensor,
    excess: tf.Tensor,
) -> tf.Tensor:
    """center + (point - center) to / from, to = from + excess, in the form that does not cancel."""
    # Above 0 also where the center's slope gamma / alpha underflows, at the center itself.
    from_scale = tf.maximum(from_scale, numerics.tiny(point.dtype) / numerics.epsilon(point.dtype))
    change = numerics.quotient(excess, from_scale)
    shrinks = change < -0.5
    ratio = numerics.quotient(to_scale, from_scale)
    start = tf.where(shrinks[..., tf.newaxis], center, point)
    return start + (point - center) * tf.where(shrinks, ratio, change)[..., tf.newaxis]


def _log_det(radius: tf.Tensor, p: _Acting, x: tf.Tensor) -> tf.Tensor:
    event_size = tf.cast(tf.shape(x)[-1] if x.shape[-1] is None else x.shape[-1], x.dtype)
    scale = p.alpha + radius
    part, change = (numerics.quotient(v, scale) for v in (p.alpha, p.excess))
    across = _log_sum(change, numerics.quotient(p.gamma + radius, scale), p.log_ratio)
    # 1 - p^2 = (r / (alpha + r)) (1 + p): the ray's own stretch as a sum of positive terms.
    total = numerics.quotient(radius, scale) * (1.0 + part)
    total += part * numerics.quotient(p.gamma, scale)
    return (event_size - 1.0) * across + _log_sum(part * change, total, p.log_ratio)


def _log_sum(excess: tf.Tensor, total: tf.Tensor, lowest: tf.Tensor) -> tf.Tensor:
    """The logarithm of `total` = 1 + `excess`, from whichever of the two is the accurate one.

    Or `lowest`, the logarithm at the center, where `total` has underflowed.
    """
    is_near = excess > -0.5
    tiny = numerics.tiny(total.dtype)
    far = tf.where(total < tiny, lowest, tf.math.log(tf.maximum(total, tiny)))
    return tf.where(is_near, tf.math.log1p(tf.where(is_near, excess, tf.zeros_like(excess))), far)


def _inner_radius(outer: tf.Tensor, alpha: tf.Tensor, gamma: tf.Tensor) -> tf.Tensor:
    """The r >= 0 with r (gamma + r) / (alpha + r) = outer."""
    # The root is homogeneous in the three lengths: scaled by the largest, no square overflows.
    scale = tf.stop_gradient(tf.maximum(tf.maximum(alpha, gamma), outer))
    outer, alpha, gamma = outer / scale, alpha / scale, gamma / scale
    middle = outer - gamma
    product = alpha * outer
    root = tf.sqrt(tf.maximum(tf.square(middle) + 4.0 * product, numerics.tiny(outer.dtype)))
    return scale * tf.where(
        middle > 0.0, 0.5 * (middle + root), 2.0 * product / (root - tf.minimum(middle, 0.0))
    )
