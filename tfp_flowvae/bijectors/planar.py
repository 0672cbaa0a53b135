"""Planar flows, invertible by construction for every parameter value, with their inverse.

The step of Rezende & Mohamed (2015, equation 10) on z of `[D]` is

    f(z) = z + u h(w.z + b),          log |det df/dz| = log(1 + w.u h'(w.z + b)),

with h smooth, increasing, and h' <= h'(0) = 1, so that f is invertible exactly when w.u > -1. As in
their appendix A.1, u is a raw parameter, and what acts is

    u^ = u + (m(w.u) - w.u) w / ||w||^2,      m(a) = softplus(a + log(e - 1)) - 1,

so that w.u^ = m(w.u) > -1. This m, unlike theirs, has m(0) = 0: u = 0 is the identity. At w = 0,
where w.u^ = 0 whatever u^ is, u^ = u by definition, and f is a shift. As w goes to 0, u^ stays
bounded but depends on the direction of w: values and gradients are finite everywhere, and the
derivative of u^ in w grows as 1 / ||w||.

What decides everything is the slope at the steepest point, s = 1 + w.u^ = softplus(w.u + log(e-1)).
It is carried itself, never as the difference 1 + w.u^, which would be lost to rounding near 0:

    log |det df/dz| = log(s h' + (1 - h')),

a sum of positive terms. For the inverse, t = w.z + b solves the scalar equation

    s h(t) + (t - h(t)) = w.y + b,            then z = y - u^ h(t),

by bracketed Newton steps, for all elements at once, and is differentiated in y, u, w and b by the
implicit function theorem. Both terms on the left have the sign of t and are computed without
cancellation, so that t has a relative error of a few eps however small s is. Rounding moves the
right side by at most c = |w|.|y| + |b| eps or so, and with f' = s h' + 1 - h' that puts into w.z

    |w|.(|z| + |u^ h|) + c |s - 1| h' / f'   by that difference, and
    |w|.|z| + |t| + |b| + c / f'             by w.z = t - b,

in eps. The first is the smaller one where w is short, the second where f expands, or u^ is long and
nearly orthogonal to w: where the second is smaller, z is moved along w until w.z is t - b. What
remains of the inverse's error is the rounding of y and of the parameters, amplified by at most
1 / s.

References:
  Danilo Jimenez Rezende and Shakir Mohamed. Variational Inference with Normalizing Flows. ICML
  2015. https://arxiv.org/abs/1505.05770
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import ClassVar, NamedTuple

import tensorflow as tf

from tfp_flowvae._typing import TensorLike
from tfp_flowvae.bijectors.internal import numerics, root
from tfp_flowvae.bijectors.internal.activations import Activation, log_derivative
from tfp_flowvae.bijectors.internal.parametric import ActivatedBijector, parameter


class _Acting(NamedTuple):
    """What acts in a step: u^, w, b, s, log s, and 1 / ||w||, which is 0 at w = 0."""

    u: tf.Tensor
    w: tf.Tensor
    b: tf.Tensor
    slope: tf.Tensor
    log_slope: tf.Tensor
    inverse_length: tf.Tensor


class _PlanarBase(ActivatedBijector):
    """The parameters, the constraint and the step that both classes below share."""

    u = parameter("u", "The raw direction of the shift, as it was given.")
    w = parameter("w", "The normal of the plane, as it was given.")
    b = parameter("b", "The offset of the plane, as it was given.")

    def __init__(
        self,
        u: TensorLike,
        w: TensorLike,
        b: TensorLike,
        activation: str = "tanh",
        validate_args: bool = False,
        name: str | None = None,
    ) -> None:
        super().__init__(dict(locals()))

    def constrained_u(self) -> tf.Tensor:
        """Returns u^, the direction that acts, of the shape of `u` broadcast with that of `w`."""
        return self._constrain().u

    def _constrain(self) -> _Acting:
        """Computes from the raw parameters what acts in a step."""
        u, w, b = (tf.convert_to_tensor(p) for p in (self.u, self.w, self.b))
        length, unit = numerics.norm_and_unit(w)
        product = tf.reduce_sum(u * w, axis=-1)
        slope, log_slope, change = numerics.unit_softplus(product)
        # u^ is put together from its part along w and the rest, so that w.u^ is m(w.u) also where
        # u is long. The rest's own part along w is 0 but for rounding: so is its derivative.
        along = tf.reduce_sum(u * unit, axis=-1)
        rest = u - along[..., tf.newaxis] * unit
        rest -= tf.stop_gradient(tf.reduce_sum(rest * unit, axis=-1, keepdims=True) * unit)
        # m(a) / ||w|| for a = w.u: near 0 without ||w||, whose square a derivative would divide by.
        is_near = tf.abs(product) < 1.0
        is_zero = tf.equal(length, 0.0)
        divisor = tf.where(is_near | is_zero, tf.ones_like(product), length)
        along = tf.where(is_near, along * (1.0 + change), (slope - 1.0) / divisor)
        safe_length = tf.where(is_zero, tf.ones_like(length), length)
        inverse_length = tf.where(is_zero, tf.zeros_like(length), 1.0 / safe_length)
        constrained = rest + along[..., tf.newaxis] * unit
        return _Acting(constrained, w, b, slope, log_slope, tf.stop_gradient(inverse_length))

    def _forward_and_log_det(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        step = partial(_forward_step, self._h())
        return self._run(step, x, self._constrain(), (1, 1, 0, 0, 0, 0))

    def _inverse_and_log_det(self, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        step = partial(_inverse_step, self._h())
        options = {"reverse": True, "keeps_hint": True}
        return self._run(step, y, self._constrain(), (1, 1, 0, 0, 0, 0), **options)


class Planar(_PlanarBase):
    """One planar step, f(z) = z + u^ h(w.z + b), with `w.u^ > -1` for every `u` and `w`.

    The mathematics is at the head of this module. Forward costs O(D); so does the inverse, beside
    the Newton steps on one scalar for each point.

    Example:
      >>> planar = Planar(u=tf.zeros([3]), w=tf.ones([3]), b=0.0)
      >>> planar.forward([1.0, 2.0, 3.0])  # u = 0 is the identity
      <tf.Tensor: shape=(3,), dtype=float32, numpy=array([1., 2., 3.], dtype=float32)>

    Args:
      u: `[..., D]`, raw: any real vector is valid. Float32 or float64, as all parameters.
      w: `[..., D]`, any real vector, 0 included.
      b: `[...]`, any real number.
      activation: The function h, "tanh" or "isru", the inverse square root unit
        t / sqrt(1 + t^2), whose tails are algebraic.
      validate_args: Whether to check that the parameters are finite.
      name: The name of this bijector and the scope of its operations.

    Raises:
      TypeError: If the dtypes differ or are not float32 or float64.
      ValueError: If the shapes do not fit together, `activation` is unknown, or `validate_args`
        finds a parameter that is not finite.
    """

    _AXES: ClassVar[Mapping[str, str]] = {"u": "D", "w": "D", "b": ""}


class PlanarFlow(_PlanarBase):
    """K planar steps in a row, as one bijector that loops: step `[..., 0, :]` acts first.

    The same map as a `tfb.Chain` of K `Planar`s, with log-dets added. Compilation takes the same
    time for every K, and a step's time, with gradients, grows linearly.

    Example:
      >>> flow = PlanarFlow(*(tf.random.normal([10, 2]) for _ in "uw"), b=tf.zeros([10]))
      >>> y, log_det = flow.forward_and_log_det(tf.random.normal([100, 2]))

    Args:
      u: `[..., K, D]`, raw, as all arguments are those of `Planar` for each of K >= 1 steps.
      w: `[..., K, D]`.
      b: `[..., K]`.
      activation: As for `Planar`.
      validate_args: As for `Planar`.
      name: As for `Planar`.

    Raises:
      TypeError: As `Planar`.
      ValueError: As `Planar`, or if K is 0.
    """

    _AXES: ClassVar[Mapping[str, str]] = {"u": "KD", "w": "KD", "b": "K"}
    _IS_STACK = True


def _forward_step(
    h: Activation, x: tf.Tensor, hint: None, *acting: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, None]:
    p = _Acting(*acting)
    t = tf.reduce_sum(p.w * x, axis=-1) + p.b
    y = x + p.u * h.value(t)[..., tf.newaxis]
    return y, log_derivative(h, t, p.slope, p.log_slope), None


def _inverse_step(
    h: Activation, y: tf.Tensor, hint: tf.Tensor | None, *acting: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    p = _Acting(*acting)
    t = root.implicit_root(h, p.slope, tf.reduce_sum(p.w * y, axis=-1) + p.b, hint)
    x = y - p.u * h.value(t)[..., tf.newaxis]
    # The correction is 0 but for rounding: so is its derivative.
    missing = t - p.b - tf.reduce_sum(p.w * x, axis=-1)
    missing = tf.where(_gains_from_correction(h, y, t, p), missing, tf.zeros_like(t))
    unit = p.inverse_length[..., tf.newaxis] * p.w
    x += tf.stop_gradient((missing * p.inverse_length)[..., tf.newaxis] * unit)
    return x, -log_derivative(h, t, p.slope, p.log_slope), t


def _gains_from_correction(h: Activation, y: tf.Tensor, t: tf.Tensor, p: _Acting) -> tf.Tensor:
    """Whether t - b has a smaller error bound than w.(y - u^ h(t)); see the module's head."""
    target = tf.reduce_sum(tf.abs(p.w * y), axis=-1) + tf.abs(p.b)
    subtracted = tf.reduce_sum(tf.abs(p.w * p.u), axis=-1) * tf.abs(h.value(t))
    steep, flat = h.slopes(t)
    # Both bounds times f', and without the |w|.|x| that they share.
    plain = subtracted * (p.slope * steep + flat) + target * tf.abs(p.slope - 1.0) * steep
    corrected = (tf.abs(t) + tf.abs(p.b)) * (p.slope * steep + flat) + target
    return corrected < plain
