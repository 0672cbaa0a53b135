"""The functions of an exported distribution, for any number of samples.

Parts of joint distributions are kept by name, in dicts, or in order, in lists: a SavedModel can
hold these where TensorFlow Probability, whose joint samples are tuples of its own, is missing.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_flowvae._endpoints import Endpoint, leaves

Make = Callable[..., tfd.Distribution]


class Layout(NamedTuple):
    """What is known of points when functions are traced: nests of the same structure, plain.

    Attributes:
      dtype: A `tf.DType` for each part.
      event_shape: A `tf.TensorShape` for each part.
      batch_shape: A `tf.TensorShape` for each part, or one for all; sizes may be unknown.
    """

    dtype: Any
    event_shape: Any
    batch_shape: Any

    def specs(self, name: str) -> Any:
        """Specifications of points with any leading dimensions."""
        return named_specs(
            name, tf.nest.map_structure(lambda d: tf.TensorSpec(None, d), self.dtype)
        )


def named_specs(name: str, specs: Any) -> Any:
    """The specifications with the names that they have in signatures."""
    named = [tf.TensorSpec(s.shape, s.dtype, name=k) for k, s in leaves(name, specs).items()]
    return tf.nest.pack_sequence_as(specs, named)


def sample_layout(distribution: tfd.Distribution) -> Layout:
    """The layout of a distribution's samples."""
    parts = distribution.dtype, distribution.event_shape, distribution.batch_shape
    return Layout(*map(plain, parts))


def base_layout(distribution: tfd.TransformedDistribution) -> Layout:
    """The layout of what the bijector of a transformed distribution takes."""
    dtype = distribution.distribution.dtype
    event_shape = distribution.bijector.inverse_event_shape(distribution.event_shape)
    return Layout(*map(plain, (dtype, event_shape, distribution.batch_shape)))


def endpoints(
    make: Make, context: tuple[Any, ...], samples: Layout, base: Layout | None
) -> dict[str, Endpoint]:
    """The functions by name; of what the distribution cannot do, too: tracing those raises.

    Args:
      make: From a context, if there is one, to the distribution.
      context: The specification of the context, or none.
      samples: The layout of the samples.
      base: The layout of the base's samples for a transformed distribution; None for others.
    """
    n = tf.TensorSpec([], tf.int32, name="n")
    seed = tf.TensorSpec(None, tf.int32, name="seed")
    x = samples.specs("x")

    # TFP's vectorised joint distributions draw no 0 samples, so one is drawn and left out.
    def first(n: tf.Tensor, values: dict[str, Any]) -> dict[str, Any]:
        return tf.nest.map_structure(lambda value: value[:n], values)

    def sample(n: tf.Tensor, seed: tf.Tensor, *context: Any) -> dict[str, Any]:
        drawn = make(*context).sample(tf.maximum(n, 1), seed=_pair(seed))
        return first(n, {"x": plain(drawn)})

    def log_prob(x: Any, *context: Any) -> dict[str, Any]:
        distribution = make(*context)
        rows, restore = _as_rows("x", x, samples, distribution)
        return {"log_prob": restore(distribution.log_prob(like(distribution.dtype, rows)))}

    def sample_and_log_prob(n: tf.Tensor, seed: tf.Tensor, *context: Any) -> dict[str, Any]:
        distribution = make(*context)
        drawn, log_prob = distribution.experimental_sample_and_log_prob(
            tf.maximum(n, 1), seed=_pair(seed)
        )
        return first(n, {"x": plain(drawn), "log_prob": log_prob})

    def shapes(*context: Any) -> dict[str, Any]:
        batch_shape = plain(make(*context).batch_shape_tensor())
        return {"batch_shape": batch_shape, "event_shape": _sizes(samples.event_shape)}

    found: dict[str, Endpoint] = {
        "sample": Endpoint(sample, [n, seed, *context]),
        "log_prob": Endpoint(log_prob, [x, *context]),
        "sample_and_log_prob": Endpoint(sample_and_log_prob, [n, seed, *context]),
        "shapes": Endpoint(shapes, context),
    }
    if base is None:
        return found

    def forward(z: Any, *context: Any) -> dict[str, Any]:
        distribution = make(*context)
        rows, restore = _as_rows("z", z, base, distribution)
        moved = distribution.bijector.forward(like(distribution.distribution.dtype, rows))
        return {"x": tf.nest.map_structure(restore, plain(moved))}

    def inverse(x: Any, *context: Any) -> dict[str, Any]:
        distribution = make(*context)
        rows, restore = _as_rows("x", x, samples, distribution)
        moved = distribution.bijector.inverse(like(distribution.dtype, rows))
        return {"z": tf.nest.map_structure(restore, plain(moved))}

    found["forward"] = Endpoint(forward, [base.specs("z"), *context])
    found["inverse"] = Endpoint(inverse, [x, *context])
    return found


def plain(value: Any) -> Any:
    """A nest with dicts for mappings and named tuples, and lists for other sequences."""
    if isinstance(value, Mapping):
        return {key: plain(part) for key, part in value.items()}
    if hasattr(value, "_asdict"):
        return {key: plain(part) for key, part in value._asdict().items()}
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    return value


def like(structure: Any, value: Any) -> Any:
    """What `plain` was given, from what it returned and a nest of that structure."""
    if isinstance(structure, dict):
        return type(structure)((key, like(part, value[key])) for key, part in structure.items())
    if hasattr(structure, "_asdict"):
        parts = structure._asdict().items()
        return type(structure)(**{key: like(part, value[key]) for key, part in parts})
    if isinstance(structure, (list, tuple)):
        return type(structure)(like(*pair) for pair in zip(structure, value, strict=True))
    return value


def _pair(seed: tf.Tensor) -> tf.Tensor:
    """The stateless seed `[2]` of an integer scalar or of such a seed, whose rank is not known."""
    return tf.concat([tf.reshape(seed, [-1]), [0]], axis=0)[:2]


def _sizes(shapes: Any) -> Any:
    return tf.nest.map_structure(lambda shape: tf.constant(shape.as_list(), tf.int32), shapes)


def _for_each(batches: Any, parts: Sequence[Any]) -> list[Any]:
    """The batch shape of each part, where there is one for all or one for each."""
    return tf.nest.flatten(batches) if tf.nest.is_nested(batches) else [batches] * len(parts)


def _as_rows(
    name: str, points: Any, layout: Layout, distribution: tfd.Distribution
) -> tuple[Any, Callable[[tf.Tensor], tf.Tensor]]:
    """Points of any rank as points of a known rank: not all distributions can do without.

    Args:
      name: Of the points, for errors.
      points: `[..., *batch, *event]` or what broadcasts to that; of joint ones each part.
      layout: Of the points.
      distribution: That the points are for.

    Returns:
      `[N, *batch, *event]`, and a function from `[N, ...]` to the points' leading dimensions.
    """
    parts, events = leaves(name, points), tf.nest.flatten(layout.event_shape)
    batches = _for_each(distribution.batch_shape_tensor(), events)
    known_batches = _for_each(layout.batch_shape, events)
    leading = []
    for (path, part), batch, event in zip(parts.items(), batches, events, strict=True):
        outer = tf.broadcast_dynamic_shape(_outer_shape(path, part, event), batch)
        leading.append(outer[: tf.size(outer) - tf.size(batch)])
    shape = functools.reduce(tf.broadcast_dynamic_shape, leading)
    rows = []
    for part, batch, known, event in zip(
        parts.values(), batches, known_batches, events, strict=True
    ):
        inner = tf.concat([batch, event], axis=0)
        wide = tf.broadcast_to(part, tf.concat([shape, inner], axis=0))
        flat = tf.reshape(wide, tf.concat([[tf.reduce_prod(shape)], inner], axis=0))
        rows.append(tf.ensure_shape(flat, [None, *known, *event]))

    def restore(values: tf.Tensor) -> tf.Tensor:
        return tf.reshape(values, tf.concat([shape, tf.shape(values)[1:]], axis=0))

    return tf.nest.pack_sequence_as(points, rows), restore


def _outer_shape(name: str, part: tf.Tensor, event_shape: tf.TensorShape) -> tf.Tensor:
    """The shape of `part` without its last dimensions, which have to be those of the event."""
    shape = tf.shape(part)
    # With dimensions of -1 in front, so that a rank that is too small is a wrong shape, too.
    last = tf.concat([-tf.ones(event_shape.rank, tf.int32), shape], axis=0)[tf.size(shape) :]
    sizes = ", ".join(["...", *map(str, event_shape)])
    check = tf.debugging.assert_equal(
        last, tf.constant(event_shape.as_list(), tf.int32), f"{name} must have shape [{sizes}]."
    )
    with tf.control_dependencies([check]):
        return tf.identity(shape)[: tf.size(shape) - event_shape.rank]
