"""The bijector under check, the points it is checked at, and what several properties need."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf
from tensorflow_probability import bijectors as tfb
from tensorflow_probability import distributions as tfd

from tfp_flowvae.bijectors.internal.numerics import epsilon
from tfp_flowvae.testing.compare import DEFAULT_TOLERANCES, EPS_MARGIN, Tolerance


def fresh(value: tf.Tensor) -> tf.Tensor:
    """The same numbers in a tensor that no bijector has seen.

    TFP keys its cache, which all bijectors share, by the identity of the tensor: `inverse(y)` of a
    `y` that came out of `forward(x)` hands back `x` itself, and the log-det stored with the pair.
    """
    if tf.executing_eagerly():
        return tf.constant(value.numpy())
    return tf.identity(value)


class Side:
    """One direction of a bijector: f of points x, or its inverse of points y.

    Args:
      bijector: The bijector.
      event_ndims: How many of the last dimensions of x make an event.
      is_inverse: Whether this is the inverse.
    """

    def __init__(self, bijector: tfb.Bijector, event_ndims: int, is_inverse: bool) -> None:
        y_ndims = bijector.forward_event_ndims(event_ndims)
        self.in_ndims: int = y_ndims if is_inverse else event_ndims
        self.out_ndims: int = event_ndims if is_inverse else y_ndims
        self.source, self.name = ("y", "inverse") if is_inverse else ("x", "forward")
        self.log_det_name = f"{self.name}_log_det_jacobian"
        self.apply: Callable[[tf.Tensor], tf.Tensor] = getattr(bijector, self.name)
        self._log_det = getattr(bijector, self.log_det_name)

    def log_det(self, point: tf.Tensor) -> tf.Tensor:
        """log |det J| at the points, in nats."""
        return self._log_det(point, self.in_ndims)


def sides(bijector: tfb.Bijector, event_ndims: int) -> tuple[Side, Side]:
    """The forward and the inverse side, for events of `event_ndims` dimensions in the domain."""
    return Side(bijector, event_ndims, False), Side(bijector, event_ndims, True)


@dataclass(frozen=True)
class Method:
    """One of the four methods of a bijector, with the points that it is evaluated at.

    Attributes:
      name: What the bijector calls it.
      call: The method.
      point: `[..., event]`.
      batch_ndims: How many dimensions of `point` stand in front of the event.
    """

    name: str
    call: Callable[[tf.Tensor], tf.Tensor]
    point: tf.Tensor
    batch_ndims: int

    @functools.cached_property
    def traced(self) -> tf.types.experimental.PolymorphicFunction:
        """The method as a `tf.function` of points whose batch dimensions are unknown."""
        shape = [None] * self.batch_ndims + self.point.shape.as_list()[self.batch_ndims :]
        spec = tf.TensorSpec(shape, self.point.dtype)
        return tf.function(lambda point: self.call(point), input_signature=[spec])


@dataclass(frozen=True)
class Noise:
    """Rounding errors to be allowed, `[...]` over the batch.

    A map that is evaluated at a point known to `eps` cannot have a smaller error than
    `eps (||J|| ||x|| + ||y||)`, and its inverse multiplies that by `||J^-1||`.
    """

    point: np.ndarray
    value: np.ndarray
    log_det: np.ndarray


@dataclass(eq=False)
class Evaluation:
    """A side of the bijector under check, with the points that it is evaluated at.

    Attributes:
      side: The side.
      point: `[..., event]`.
      judge: The same side of the float64 reference, or `side` itself.
      judged_at: The points in the dtype of `judge`.
    """

    side: Side
    point: tf.Tensor
    judge: Side
    judged_at: tf.Tensor

    @functools.cached_property
    def jacobian(self) -> np.ndarray:
        """By automatic differentiation, `[..., m, n]`, float64 if a reference is."""
        return jacobian(self.judge, fresh(self.judged_at))

    @functools.cached_property
    def value(self) -> tf.Tensor:
        """The image of the points."""
        return self.side.apply(fresh(self.point))

    def log_det(self) -> np.ndarray:
        """The log-det at the points, `[...]`; a constant one may come with fewer dimensions."""
        batch = batch_of(self.point, self.side.in_ndims)
        return np.broadcast_to(self.side.log_det(fresh(self.point)).numpy(), batch)

    @functools.cached_property
    def noise(self) -> Noise:
        """What rounding may cost on the way from the points to their image."""
        largest, smallest = extreme_singular_values(self.jacobian)
        inward = np.where(smallest > 0, 1.0 / np.where(smallest > 0, smallest, 1.0), 0.0)
        size_in = event_norm(self.point, self.side.in_ndims)
        size_out = event_norm(self.value, self.side.out_ndims)
        unit = EPS_MARGIN * epsilon(self.point.dtype)
        at_value = unit * (size_out + largest * size_in)
        at_point = unit * (size_in * (1.0 + largest * inward) + inward * size_out)
        return Noise(at_point, at_value, unit * (1.0 + largest * inward))


@dataclass(eq=False)
class Subject:
    """What the properties share; evaluated once, on first use, in eager mode.

    Attributes:
      bijector: The bijector under check.
      x_given: `[..., event]`, as the user gave it.
      y_given: `[..., event]` in the codomain, or None for f(x).
      event_ndims: How many of the last dimensions of x make an event.
      reference: The same bijector in float64, or None.
      base: A distribution whose support lies in the domain, or None.
      seed: Of everything that is drawn.
      graphs: Whether the bijector may be traced; False where the user skips graph mode.
      overrides: Tolerances by property.
    """

    bijector: tfb.Bijector
    x_given: tf.Tensor
    y_given: tf.Tensor | None
    event_ndims: int
    reference: tfb.Bijector | None = None
    base: tfd.Distribution | None = None
    seed: int = 0
    graphs: bool = True
    overrides: Mapping[str, Tolerance] = field(default_factory=dict)

    @property
    def dtype(self) -> tf.DType:
        """The floating-point type of x, in which all is computed."""
        return self.x_given.dtype

    def tolerance(self, name: str, kind: str) -> Tolerance:
        """The user's tolerance for the property `name`, or the default one for its `kind`."""
        return self.overrides.get(name) or DEFAULT_TOLERANCES[kind][self.dtype.name]

    @functools.cached_property
    def sides(self) -> tuple[Side, Side]:
        """Forward and inverse."""
        return sides(self.bijector, self.event_ndims)

    @functools.cached_property
    def x(self) -> tf.Tensor:
        """The points x, broadcast against the bijector's batch: x and f(x) match one to one."""
        y = self.bijector.forward(fresh(self.x_given))
        batch = batch_of(y, self.sides[0].out_ndims)
        return tf.broadcast_to(self.x_given, batch + event_of(self.x_given, self.event_ndims))

    @functools.cached_property
    def y(self) -> tf.Tensor:
        """Points of the codomain: the user's, broadcast likewise, or f(x)."""
        if self.y_given is None:
            return fresh(self.bijector.forward(fresh(self.x)))
        ndims = self.sides[1].in_ndims
        x = self.bijector.inverse(fresh(self.y_given))
        batch = batch_of(x, self.event_ndims)
        return tf.broadcast_to(self.y_given, batch + event_of(self.y_given, ndims))

    @functools.cached_property
    def evaluations(self) -> tuple[Evaluation, Evaluation]:
        """Forward at x and inverse at y."""
        judges = sides(self.reference or self.bijector, self.event_ndims)
        dtype = self.dtype if self.reference is None else tf.float64
        forward, inverse = (
            Evaluation(side, point, judge, tf.cast(point, dtype))
            for side, point, judge in zip(self.sides, (self.x, self.y), judges, strict=True)
        )
        return forward, inverse

    @functools.cached_property
    def methods(self) -> list[Method]:
        """Both values and both log-dets, each with the points that it is evaluated at."""
        return [
            Method(name, call, part.point, len(batch_of(part.point, part.side.in_ndims)))
            for part in self.evaluations
            for name, call in (
                (part.side.name, part.side.apply),
                (part.side.log_det_name, part.side.log_det),
            )
        ]

    @functools.cached_property
    def batch_shape(self) -> list[int]:
        """The bijector's batch shape as seen: what one event of x's rank becomes.

        The event keeps x's rank, in dimensions of size 1, for networks that insist on one.
        """
        event = event_of(self.x_given, self.event_ndims)
        ones = [1] * (self.x_given.shape.rank - self.event_ndims)
        first = tf.reshape(self.x_given, [-1, *event])[:1]
        one = self.bijector.forward(fresh(tf.reshape(first, [*ones, *event])))
        return batch_of(one, self.sides[0].out_ndims)

    @property
    def sample_axis(self) -> bool:
        """Whether axis 0 of x counts events that all pass through the same parameters."""
        batch = batch_of(self.x, self.event_ndims)
        return bool(batch) and batch[0] > 1 and self.batch_shape[0] == 1

    def samples_shape(self, count: int) -> list[int]:
        """The batch dimensions of `count` events for every member of the bijector's batch."""
        members = self.batch_shape
        return [count, *(members[1:] if members[:1] == [1] else members)]


def batch_of(value: tf.Tensor, ndims: int) -> list[int]:
    """The dimensions in front of the last `ndims`."""
    return value.shape.as_list()[: value.shape.rank - ndims]


def event_of(value: tf.Tensor, ndims: int) -> list[int]:
    """The last `ndims` dimensions."""
    return value.shape.as_list()[value.shape.rank - ndims :]


def over_event(per_batch: np.ndarray, ndims: int) -> np.ndarray:
    """`[...]` as `[..., 1, ..., 1]`, to broadcast over events of `ndims` dimensions."""
    return per_batch.reshape(per_batch.shape + (1,) * ndims)


def event_norm(value: tf.Tensor, ndims: int) -> np.ndarray:
    """The Euclidean norm of every event, `[...]`, in float64."""
    flat = value.numpy().astype(np.float64).reshape([*batch_of(value, ndims), -1])
    return np.linalg.norm(flat, axis=-1)


def jacobian(side: Side, point: tf.Tensor) -> np.ndarray:
    """The Jacobian of every event by reverse-mode differentiation, a row at a time.

    Rows are summed over the batch before they are differentiated: events do not act on each other.

    Args:
      side: The map.
      point: `[..., event]`, broadcast against the bijector's batch.

    Returns:
      `[..., m, n]` in float64, for events of n numbers that become m.
    """
    batch = batch_of(point, side.in_ndims)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(point)
        flat = tf.reshape(side.apply(tf.identity(point)), [*batch, -1])
        rows = tf.unstack(flat, axis=-1)
    zero = tf.UnconnectedGradients.ZERO
    gradients = [tape.gradient(row, point, unconnected_gradients=zero) for row in rows]
    return np.stack([g.numpy().reshape([*batch, -1]) for g in gradients], -2).astype(np.float64)


def extreme_singular_values(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The largest and the smallest, `[...]`; zero where the matrix is not finite."""
    finite = np.isfinite(matrix).all(axis=(-2, -1))
    values = np.linalg.svd(np.where(finite[..., None, None], matrix, 0.0), compute_uv=False)
    return values[..., 0], values[..., -1]
