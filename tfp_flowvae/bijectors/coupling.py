"""Coupling layers over any mask: part of a vector conditions an elementwise map of the rest.

With c the entries that the mask keeps and t the others,

    y_c = x_c,     y_t = g(x_t; x_c),     log |det dy/dx| = sum_t log |dg/dx_t|,

where g(. ; c) is an elementwise bijector whose parameters a conditioner computes from c. Since c is
the same on both sides, either direction takes one call of the conditioner. In `tfb.RealNVP` c is
the first or the last entries; `Coupling` takes any mask, and returns value and log-det from one
call.

References:
  Laurent Dinh, David Krueger, and Yoshua Bengio. NICE: Non-linear Independent Components
  Estimation. 2014, section 3.2. https://arxiv.org/abs/1410.8516
  Laurent Dinh, Jascha Sohl-Dickstein, and Samy Bengio. Density Estimation using Real NVP. ICLR
  2017, equations 7 to 9. https://arxiv.org/abs/1605.08803
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_probability import bijectors as tfb

from tfp_flowvae._typing import TensorLike
from tfp_flowvae.bijectors.internal import validate
from tfp_flowvae.bijectors.joint import JointEvaluation, forward_and_log_det, inverse_and_log_det


def half_mask(event_size: int, reverse: bool = False) -> np.ndarray:
    """Returns the mask `[D]` that keeps the first D // 2 entries or, reversed, all the others.

    Example:
      >>> half_mask(4)
      array([ True,  True, False, False])

    Args:
      event_size: D, at least 2.
      reverse: Whether to return the complement, for the layer that takes its turn.

    Raises:
      ValueError: If D is less than 2.
    """
    return (np.arange(_at_least_two(event_size)) < event_size // 2) ^ reverse


def alternating_mask(event_size: int, reverse: bool = False) -> np.ndarray:
    """Returns the mask `[D]` that keeps entries 0, 2, 4, ... or, reversed, 1, 3, 5, ...

    Example:
      >>> alternating_mask(4)
      array([ True, False,  True, False])

    Args:
      event_size: D, at least 2.
      reverse: Whether to return the complement, for the layer that takes its turn.

    Raises:
      ValueError: If D is less than 2.
    """
    return (np.arange(_at_least_two(event_size)) % 2 == 0) ^ reverse


class Coupling(JointEvaluation, tfb.Bijector):
    """A coupling layer, affine or with any elementwise bijector, over any mask.

    The mathematics is at the head of this module. The affine one is y_t = x_t exp(s(x_c)) + m(x_c).

    Example:
      >>> flow = Coupling(alternating_mask(4), lambda kept, units: (kept, 0.1 * kept))
      >>> y, log_det = flow.forward_and_log_det([1.0, 2.0, 3.0, 4.0])
      >>> log_det  # 0.1 * (1 + 3)
      <tf.Tensor: shape=(), dtype=float32, numpy=0.4>

    Args:
      mask: `[D]`, boolean: True where an entry is kept, as it is, and conditions the others. At
        least one entry is kept and one is not.
      shift_and_log_scale_fn: `fn(kept, units)`, as for `tfb.RealNVP`: from the kept entries,
        `[..., C]`, and the number of the others, to the pair m and s, each `[..., units]` or None.
        A `tf.Module`'s variables are found by `trainable_variables`; a plain function's are not.
      bijector_fn: `fn(kept, units)`, instead: to a `tfb.Bijector` for the other entries,
        `[..., units]`.
      is_constant_jacobian: Whether the log-det depends neither on x nor on parameters.
      validate_args: Whether to check that points are finite.
      name: The name of this bijector and the scope of its operations.

    Raises:
      TypeError: If the mask is not boolean, a function is not callable, or a point holds integers.
      ValueError: If the mask is not a vector, keeps all entries or none, or is not known when the
        bijector is built; if not exactly one function is given; or if what it returns does not fit.
    """

    def __init__(
        self,
        mask: TensorLike,
        shift_and_log_scale_fn: Callable[..., Any] | None = None,
        bijector_fn: Callable[..., tfb.Bijector] | None = None,
        is_constant_jacobian: bool = False,
        validate_args: bool = False,
        name: str = "coupling",
    ) -> None:
        parameters = dict(locals())
        owner = type(self).__name__
        one_function(owner, "units", shift_and_log_scale_fn, bijector_fn)
        with tf.name_scope(name) as name:
            self._mask = _checked_mask(owner, mask)
            self._kept, self._moving = np.flatnonzero(self._mask), np.flatnonzero(~self._mask)
            # Attributes of their own, so that tf.Module finds the variables of either.
            self._shift_and_log_scale_fn = shift_and_log_scale_fn
            self._bijector_fn = bijector_fn
            super().__init__(
                forward_min_event_ndims=1,
                is_constant_jacobian=is_constant_jacobian,
                validate_args=validate_args,
                parameters=parameters,
                name=name,
            )

    @classmethod
    def _parameter_properties(cls, dtype: Any) -> dict[str, Any]:
        return {}

    @property
    def mask(self) -> np.ndarray:
        """The mask `[D]`, True where an entry is kept."""
        return self._mask.copy()

    def _forward_and_log_det(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return self._evaluate(x, forward_and_log_det)

    def _inverse_and_log_det(self, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return self._evaluate(y, inverse_and_log_det)

    def _evaluate(self, x: tf.Tensor, direction: Callable[..., Any]) -> tuple[tf.Tensor, tf.Tensor]:
        x = self._checked(x)
        kept, moving = _take(x, self._kept), _take(x, self._moving)
        moved, log_det = direction(self._inner(kept), moving, event_ndims=1)
        units = self._moving.size
        if moved.shape.rank is not None and moved.shape[-1] not in (None, units):
            raise ValueError(
                f"{type(self).__name__} with {units} entries to move takes a conditioner whose "
                f"last dimension is {units}. Received: a result of shape {tuple(moved.shape)}."
            )
        return self._merge(kept, moved), log_det + tf.zeros_like(moved[..., 0])

    def _inner(self, kept: tf.Tensor) -> tfb.Bijector:
        """The bijector of the entries that move."""
        if self._shift_and_log_scale_fn is not None:
            return affine(*self._shift_and_log_scale_fn(kept, self._moving.size))
        assert self._bijector_fn is not None
        inner = self._bijector_fn(kept, self._moving.size)
        ndims = (inner.forward_min_event_ndims, inner.inverse_min_event_ndims)
        if ndims not in ((0, 0), (1, 1)):
            raise ValueError(
                f"{type(self).__name__} takes a bijector_fn that returns a bijector of scalars or "
                f"vectors. Received: {inner.name!r} with min_event_ndims {ndims}."
            )
        return inner

    def _merge(self, kept: tf.Tensor, moved: tf.Tensor) -> tf.Tensor:
        batch = tf.shape(moved)[:-1]  # larger than that of kept if the conditioner brings a batch
        kept = tf.broadcast_to(kept, tf.concat([batch, tf.shape(kept)[-1:]], axis=0))
        if self._kept[-1] < self._moving[0]:
            return tf.concat([kept, moved], axis=-1)
        if self._moving[-1] < self._kept[0]:
            return tf.concat([moved, kept], axis=-1)
        places = np.argsort(np.concatenate([self._kept, self._moving]))
        return tf.gather(tf.concat([kept, moved], axis=-1), places, axis=-1)

    def _checked(self, x: tf.Tensor) -> tf.Tensor:
        owner = type(self).__name__
        x = validate.check_event(owner, _floating(owner, x), tf.TensorShape(self._mask.shape))
        if self.validate_args:
            x = tf.debugging.assert_all_finite(x, f"{owner} takes finite points.")
        return x


class AdditiveCoupling(Coupling):
    """The additive coupling of NICE, y_t = x_t + m(x_c): the log-det is exactly 0.

    Example:
      >>> flow = AdditiveCoupling(half_mask(4), lambda kept, units: 2.0 * kept)
      >>> flow.forward([1.0, 2.0, 3.0, 4.0])
      <tf.Tensor: shape=(4,), dtype=float32, numpy=array([1., 2., 5., 8.], dtype=float32)>

    Args:
      mask: `[D]`, boolean: True where an entry is kept and conditions the others.
      shift_fn: `fn(kept, units)`: from the kept entries, `[..., C]`, and the number of the others,
        to m, `[..., units]`. A `tf.Module`'s variables are found by `trainable_variables`.
      validate_args: Whether to check that points are finite.
      name: The name of this bijector and the scope of its operations.

    Raises:
      TypeError: If the mask is not boolean, `shift_fn` is not callable, or a point holds integers.
      ValueError: As `Coupling`.
    """

    def __init__(
        self,
        mask: TensorLike,
        shift_fn: Callable[..., TensorLike],
        validate_args: bool = False,
        name: str = "additive_coupling",
    ) -> None:
        parameters = dict(locals())
        super().__init__(
            mask,
            bijector_fn=shift_fn,
            is_constant_jacobian=True,
            validate_args=validate_args,
            name=name,
        )
        self._additive_parameters = {k: parameters[k] for k in ("mask", "shift_fn")}

    @property
    def parameters(self) -> dict[str, Any]:
        """The constructor's arguments."""
        kept = {k: v for k, v in super().parameters.items() if k in ("validate_args", "name")}
        return {**kept, **self._additive_parameters}

    def _inner(self, kept: tf.Tensor) -> tfb.Bijector:
        assert self._bijector_fn is not None
        return tfb.Shift(self._bijector_fn(kept, self._moving.size))

    def _forward_log_det_jacobian(self, x: tf.Tensor) -> tf.Tensor:
        return tf.zeros_like(self._checked(x)[..., 0])  # without a call of the conditioner

    def _inverse_log_det_jacobian(self, y: tf.Tensor) -> tf.Tensor:
        return self._forward_log_det_jacobian(y)


def one_function(owner: str, second: str, shift_and_log_scale_fn: Any, bijector_fn: Any) -> None:
    """Checks that a coupling was given one function of (kept, `second`).

    Raises:
      TypeError: If it is not callable.
      ValueError: If there are two functions or none.
    """
    given = [fn for fn in (shift_and_log_scale_fn, bijector_fn) if fn is not None]
    if len(given) != 1:
        raise ValueError(
            f"{owner} takes exactly one of shift_and_log_scale_fn and bijector_fn. "
            f"Received: {shift_and_log_scale_fn=}, {bijector_fn=}."
        )
    if not callable(given[0]):
        raise TypeError(f"{owner} takes a function of (kept, {second}). Received: {given[0]!r}.")


def affine(shift: TensorLike | None, log_scale: TensorLike | None) -> tfb.Bijector:
    """Returns x exp(log_scale) + shift, elementwise; None stands for 0."""
    parts: list[tfb.Bijector] = [] if shift is None else [tfb.Shift(shift)]
    if log_scale is not None:
        parts.append(tfb.Scale(log_scale=log_scale))
    return tfb.Chain(parts, validate_event_size=False)


def _take(x: tf.Tensor, places: np.ndarray) -> tf.Tensor:
    """Entries of the last dimension, as a slice where they are evenly spaced."""
    steps = np.unique(np.diff(places))
    if steps.size > 1:
        return tf.gather(x, places, axis=-1)
    step = int(steps[0]) if steps.size else 1
    return x[..., int(places[0]) : int(places[-1]) + 1 : step]


def _floating(owner: str, x: tf.Tensor) -> tf.Tensor:
    if not x.dtype.is_floating:
        raise TypeError(f"{owner} takes floating-point points. Received: dtype {x.dtype.name}.")
    return x


def _checked_mask(owner: str, mask: TensorLike) -> np.ndarray:
    value = tf.get_static_value(mask) if tf.is_tensor(mask) else np.asarray(mask)
    if value is None:
        raise ValueError(f"{owner} takes a mask that is known when it is built. Received: {mask}.")
    if value.dtype != np.bool_:
        raise TypeError(f"{owner} takes a boolean mask. Received: mask.dtype={value.dtype}.")
    if value.ndim != 1:
        raise ValueError(f"{owner} takes a mask of shape [D]. Received: mask.shape={value.shape}.")
    if value.all() or not value.any():
        raise ValueError(
            f"{owner} takes a mask that keeps at least one entry and moves at least one. "
            f"Received: {value.sum()} of {value.size} kept."
        )
    return value.copy()


def _at_least_two(event_size: int) -> int:
    if event_size < 2:
        raise ValueError(f"A coupling splits its vector, so D >= 2. Received: D={event_size}.")
    return event_size
