"""Activation normalisation: a scale and a shift for each coordinate, first set from data.

The map of Kingma & Dhariwal (2018, section 3.1) on x of `[D]`, a vector or a pixel's channels, is

    y_i = exp(log_scale_i) x_i + shift_i,        log |det dy/dx| = sum_i log_scale_i .

Before training, a batch of data sets both so that each coordinate comes out with mean 0 and
variance 1. From then on they are ordinary parameters.

That first setting is a method here, `initialize`, and never a side effect of `forward`. TFP calls
`forward` and its log-det separately, from a cache, on samples of any distribution, inside
`tf.while_loop`, `tf.vectorized_map` and saved signatures; a bijector that writes its variables in
one of these calls is initialised from whichever call comes first. An explicit call names the data
and the direction, and works in `tf.function`, XLA and under `tf.distribute`, where the
statistics are those of the global batch. A flag in a variable, which is saved with the others,
makes the call do nothing once it has been made: a training step may contain it, and a restored
model keeps what it learned.

References:
  Diederik P. Kingma and Prafulla Dhariwal. Glow: Generative Flow with Invertible 1x1 Convolutions.
  NeurIPS 2018. https://arxiv.org/abs/1807.03039
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf
from tensorflow_probability import bijectors as tfb

from tfp_flowvae import _compat
from tfp_flowvae._typing import TensorLike
from tfp_flowvae.bijectors.internal import validate
from tfp_flowvae.bijectors.internal.parametric import ParametricBijector, parameter
from tfp_flowvae.bijectors.internal.statistics import log_statistics

_DIRECTIONS = ("forward", "inverse")


class ActNorm(ParametricBijector):
    """y = exp(log_scale) x + shift, with `initialize(x)` to set both from a batch of data.

    The mathematics, and why `initialize` is a method, is at the head of this module.

    Example:
      >>> act_norm = ActNorm.create(2)
      >>> act_norm.initialize([[1.0, 10.0], [3.0, 30.0]])
      >>> act_norm.forward([2.0, 20.0])  # the mean
      <tf.Tensor: shape=(2,), dtype=float32, numpy=array([0., 0.], dtype=float32)>

    Args:
      log_scale: `[..., D]`, any real vector. Float32 or float64, as `shift`.
      shift: `[..., D]`, any real vector.
      initialized: A bool `tf.Variable`, `[]`: whether `initialize` has been called. None if it is
        to act on every call. A bijector that a `tf.function`, `tf.cond` or `tf.while_loop` returns
        holds tensors in place of its variables, this one too, and cannot be initialised.
      validate_args: Whether to check that the parameters, and what `initialize` is given, are
        finite.
      name: The name of this bijector and the scope of its operations.

    Raises:
      TypeError: If the dtypes differ or are not float32 or float64, or `initialized` is neither a
        bool `tf.Variable` nor a bool tensor.
      ValueError: If the shapes do not fit together, or `validate_args` finds a parameter that is
        not finite.
    """

    _AXES: ClassVar[Mapping[str, str]] = {"log_scale": "D", "shift": "D"}
    log_scale = parameter("log_scale", "The logarithm of the scale, as it was given.")
    shift = parameter("shift", "The vector that is added, as it was given.")
    initialized = parameter("initialized", "The flag, as it was given.")

    def __init__(
        self,
        log_scale: TensorLike,
        shift: TensorLike,
        initialized: tf.Variable | None = None,
        validate_args: bool = False,
        name: str = "act_norm",
    ) -> None:
        super().__init__(dict(locals()), is_constant_jacobian=True)

    def _keep_others(self, arguments: Mapping[str, Any]) -> None:
        self._initialized = _checked_flag(type(self).__name__, arguments["initialized"])

    @classmethod
    def create(
        cls,
        event_size: int,
        dtype: tf.DType = tf.float32,
        validate_args: bool = False,
        name: str = "act_norm",
    ) -> ActNorm:
        """Returns an `ActNorm` that is the identity, around variables of its own.

        The variables are such that `initialize` works under `tf.distribute` too: created inside a
        strategy's scope, their copies are set together.

        Args:
          event_size: D, at least 1.
          dtype: tf.float32 or tf.float64.
          validate_args: As in the constructor.
          name: As in the constructor.

        Raises:
          TypeError: If the dtype is another.
          ValueError: If D < 1.
        """
        same = tf.VariableAggregation.ONLY_FIRST_REPLICA  # `initialize` computes it on all
        zeros = tf.zeros([event_size], dtype)
        return cls(
            tf.Variable(zeros, name="log_scale", aggregation=same),
            tf.Variable(zeros, name="shift", aggregation=same),
            tf.Variable(False, trainable=False, name="initialized", aggregation=same),
            validate_args=validate_args,
            name=name,
        )

    def initialize(self, x: TensorLike, direction: str = "forward") -> None:
        """Sets the variables so that the image of `x` has mean 0 and variance 1 in each coordinate.

        Does nothing where the flag `initialized` is set, and sets it. A coordinate that is constant
        in `x`, to rounding, is only shifted. In the replica context of a `tf.distribute` strategy
        the statistics are those of all replicas' `x` together, and all must make the call, not
        inside a `tf.function` or `tf.cond` of the replica's own.

        Args:
          x: `[N, ..., D]`: a batch for the whole bijector, or, right-aligned with parameters of
            `[B, D]`, for each member of it. With parameters of `[D]` all leading dimensions count
            alike: `[N, H, W, C]` gives statistics for each channel.
          direction: Which map the normalised image belongs to, "forward" or "inverse". A flow that
            is trained by the density of data needs "inverse".

        Raises:
          TypeError: If `log_scale`, `shift` or `initialized` is a tensor and not a variable.
          ValueError: If `direction` is another, the shapes of `log_scale` and `shift` differ, or
            `x` has another D, or no dimension more than the parameters.
        """
        validate.check_choice("ActNorm.initialize", "direction", direction, _DIRECTIONS)
        with tf.name_scope(f"{self.name}/initialize"):
            x = tf.convert_to_tensor(x, dtype=self.dtype)
            x = self._checked(x)
            axes = self._sample_axes(x.shape)
            if self.validate_args:
                x = tf.debugging.check_numerics(x, "ActNorm.initialize takes finite points.")
            mean, log_std = (tf.reshape(part, self.shift.shape) for part in log_statistics(x, axes))
            values = (-log_std, -mean * tf.exp(-log_std))
            if direction == "inverse":
                values = (log_std, mean)
            done = False if self.initialized is None else tf.convert_to_tensor(self.initialized)
            for variable, value in zip((self.log_scale, self.shift), values, strict=True):
                # Not tf.cond: a replica must not assign inside a graph of its own.
                variable.assign(tf.where(done, tf.convert_to_tensor(variable), value))
            if self.initialized is not None:
                self.initialized.assign(True)

    def _sample_axes(self, shape: tf.TensorShape) -> list[int]:
        """The axes of x that are no batch dimensions of the parameters."""
        given = {name: getattr(self, name) for name in (*self._AXES, "initialized")}
        for name, value in given.items():
            if value is not None and not hasattr(value, "assign"):
                raise TypeError(
                    "ActNorm.initialize needs log_scale, shift and initialized to be tf.Variables. "
                    f"Received: {name} of type {type(value).__name__}."
                )
        own = self.shift.shape
        if own.as_list() != self.log_scale.shape.as_list():
            raise ValueError(
                "ActNorm.initialize needs log_scale and shift of one shape. Received: "
                f"log_scale.shape={tuple(self.log_scale.shape)}, shift.shape={tuple(own)}."
            )
        extra = -1 if shape.rank is None else shape.rank - own.rank
        axes = [a for a in range(shape.rank or 0) if a < extra or own[a - extra] == 1]
        axes = [a for a in axes if a < (shape.rank or 0) - 1]
        if extra < 0 or not axes or 0 in shape.as_list():
            text = "unknown" if shape.rank is None else tuple(shape.as_list())
            raise ValueError(
                f"ActNorm.initialize with parameters of shape {tuple(own)} takes one point or more "
                f"along at least one dimension more. Received: x.shape={text}."
            )
        return axes

    def _forward_and_log_det(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        x = self._checked(x)
        log_scale = tf.convert_to_tensor(self.log_scale)
        y = tf.exp(log_scale) * x + self.shift
        return y, tf.reduce_sum(log_scale + tf.zeros_like(y), axis=-1)

    def _inverse_and_log_det(self, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        y = self._checked(y)
        log_scale = tf.convert_to_tensor(self.log_scale)
        x = (y - self.shift) * tf.exp(-log_scale)
        return x, -tf.reduce_sum(log_scale + tf.zeros_like(x), axis=-1)


def initialize_act_norms(
    bijector: tfb.Bijector, x: TensorLike, direction: str = "forward"
) -> tf.Tensor:
    """Initialises every `ActNorm` in a bijector, each from what reaches it of the batch `x`.

    Goes through `tfb.Chain` and `tfb.Invert`, however nested, in the order in which `x` passes.

    Example:
      >>> flow = tfb.Chain([ActNorm.create(2), tfb.Tanh(), ActNorm.create(2)])
      >>> data = 0.1 * tf.random.normal([100, 2])
      >>> z = initialize_act_norms(flow, data, "inverse")  # before training by log_prob(data)

    Args:
      bijector: An `ActNorm`, or a chain with some.
      x: `[N, ..., D]`, as `ActNorm.initialize` takes it.
      direction: Which way `x` passes, "forward" or "inverse".

    Returns:
      The image of `x`, `[N, ..., D]`, after the initialisation.

    Raises:
      ValueError: If an `ActNorm` is inside of anything but `tfb.Chain` and `tfb.Invert`, or one of
        them refuses its batch.
      TypeError: If one of them has no variables.
    """
    validate.check_choice("initialize_act_norms", "direction", direction, _DIRECTIONS)
    forward = direction == "forward"
    hint = None if hasattr(x, "dtype") else bijector.dtype or tf.float32
    x = tf.identity(tf.convert_to_tensor(x, dtype_hint=hint))  # new to TFP's cache
    if isinstance(bijector, _compat.INVERT_TYPES):
        return initialize_act_norms(bijector.bijector, x, _DIRECTIONS[forward])
    if isinstance(bijector, _compat.CHAIN_TYPES):
        for part in reversed(bijector.bijectors) if forward else bijector.bijectors:
            x = initialize_act_norms(part, x, direction)
        return x
    if isinstance(bijector, ActNorm):
        bijector.initialize(x, direction)
    elif any(isinstance(part, ActNorm) for part in bijector.submodules):
        raise ValueError(
            "initialize_act_norms reaches an ActNorm through tfb.Chain and tfb.Invert only. "
            f"Received: one inside of {type(bijector).__name__} {bijector.name!r}."
        )
    return bijector.forward(x) if forward else bijector.inverse(x)


def _checked_flag(
    owner: str, flag: tf.Tensor | tf.Variable | None
) -> tf.Tensor | tf.Variable | None:
    if flag is None:
        return None
    known = tf.is_tensor(flag) or _compat.is_ref(flag)
    if known and flag.dtype == tf.bool and flag.shape.is_compatible_with([]):
        return flag
    dtype = tf.as_dtype(flag.dtype if known else np.asarray(flag).dtype)
    shape = flag.shape if known else np.shape(flag)
    raise TypeError(
        f"{owner} takes a bool tf.Variable of shape [] as initialized. "
        f"Received: {type(flag).__name__} of dtype {dtype.name} and shape {tuple(shape)}."
    )
