"""Gradients against central differences."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from tensorflow_probability import bijectors as tfb

from tfp_flowvae.bijectors.internal.numerics import epsilon
from tfp_flowvae.errors import UserError
from tfp_flowvae.testing.compare import EPS_MARGIN, Tolerance, index_text
from tfp_flowvae.testing.subject import Evaluation, Side, Subject, sides

MAX_ELEMENTS = 6
"""Elements of each tensor that are moved one at a time; one random direction covers the rest."""

STEPS = {
    "float32": (2.0**-7, 2.0**-9, 2.0**-11, 2.0**-13),
    "float64": (2.0**-14, 2.0**-17, 2.0**-20),
}
"""Tried in turn: a step over a kink, or too long for the curvature, is no proof of an error."""

Numbers = list[np.ndarray]


@dataclass(frozen=True)
class Parameters:
    """The tensors, apart from variables, that a bijector was built from, and how to change them."""

    names: list[str]
    values: list[tf.Tensor]
    rebuild: Callable[[Sequence[tf.Tensor]], tfb.Bijector]


def tensor_parameters(bijector: tfb.Bijector) -> Parameters:
    """Finds the floating-point tensors that can be replaced in `bijector`.

    Arguments of the constructor that `_parameter_properties` names are replaced by `copy`; what a
    composite tensor (a Chain, an Invert) holds deeper down, by packing its components anew.
    """
    try:
        known = bijector.parameter_properties()
    except NotImplementedError:
        known = {}
    named = {n: bijector.parameters.get(n) for n, p in known.items() if p.is_tensor}
    # Variables are moved where they are; anything else that converts may hold one.
    plain = (tf.Tensor, np.ndarray, np.generic, float, list, tuple)
    named = {n: v for n, v in named.items() if isinstance(v, plain)}
    tensors = {n: tf.convert_to_tensor(v, dtype_hint=bijector.dtype) for n, v in named.items()}
    tensors = {n: t for n, t in tensors.items() if t.dtype.is_floating}
    if tensors:
        names = [f"parameter {n!r}" for n in tensors]
        return Parameters(
            names,
            list(tensors.values()),
            lambda new: bijector.copy(**dict(zip(tensors, new, strict=True))),
        )
    flat = tf.nest.flatten(bijector, expand_composites=True)
    free = [i for i, part in enumerate(flat) if isinstance(part, tf.Tensor)]
    free = [i for i in free if flat[i].dtype.is_floating]

    def rebuild(new: Sequence[tf.Tensor]) -> tfb.Bijector:
        if not free:
            return bijector
        parts = list(flat)
        for i, tensor in zip(free, new, strict=True):
            parts[i] = tensor
        return tf.nest.pack_sequence_as(bijector, parts, expand_composites=True)

    return Parameters([f"component {i}" for i in free], [flat[i] for i in free], rebuild)


class Differences:
    """One side of a bijector as a function of its point, its tensors and its variables.

    Args:
      bijector: Whose side is evaluated; in float64 the differences are far sharper.
      event_ndims: Of the domain.
      which: 0 for forward, 1 for inverse.
      point: `[..., event]`.
      compiled: Whether evaluations may run as a graph.
    """

    def __init__(
        self,
        bijector: tfb.Bijector,
        event_ndims: int,
        which: int,
        point: tf.Tensor,
        compiled: bool,
    ) -> None:
        self.parameters = tensor_parameters(bijector)
        self.variables = list(bijector.trainable_variables)
        self.names = [
            "xy"[which],
            *self.parameters.names,
            *(f"variable {v.name!r}" for v in self.variables),
        ]
        self.values = [point, *self.parameters.values, *self.variables]
        self._event_ndims, self._which = event_ndims, which
        self._compiled = compiled

    @functools.cached_property
    def _evaluate(self) -> Callable[[tf.Tensor, list[tf.Tensor]], list[tf.Tensor]]:
        if not self._compiled:
            return self._outputs
        count = 1 + len(self.parameters.values)
        point, *tensors = [tf.TensorSpec(v.shape, v.dtype) for v in self.values[:count]]
        return tf.function(self._outputs).get_concrete_function(point, tensors)

    def _outputs(self, point: tf.Tensor, tensors: list[tf.Tensor]) -> list[tf.Tensor]:
        bijector = self.parameters.rebuild(tensors)
        side: Side = sides(bijector, self._event_ndims)[self._which]
        return [side.apply(tf.identity(point)), side.log_det(tf.identity(point))]

    def weights(self, seed: int) -> Numbers:
        """Random weights over the value and the log-det."""
        rng = np.random.default_rng(seed)
        return [rng.uniform(0.5, 1.5, part.shape) for part in self.at(self.numbers())]

    def numbers(self) -> Numbers:
        """The present values of the point, the tensors and the variables."""
        return [value.numpy() for value in self.values]

    def at(self, values: Numbers) -> Numbers:
        """Value and log-det, in float64, with everything set to `values`."""
        self._assign(values)
        count = 1 + len(self.parameters.values)
        point, *tensors = [tf.constant(value) for value in values[:count]]
        return [part.numpy().astype(np.float64) for part in self._evaluate(point, tensors)]

    def gradients(self, weights: Numbers) -> Numbers:
        """By automatic differentiation, of the weighted sum of value and log-det."""
        count = 1 + len(self.parameters.values)
        point, *tensors = [tf.identity(value) for value in self.values[:count]]
        with tf.GradientTape() as tape:
            tape.watch([point, *tensors])
            parts = self._outputs(point, tensors)
            loss = sum(
                tf.reduce_sum(part * tf.constant(weight, part.dtype))
                for part, weight in zip(parts, weights, strict=True)
            )
        zero = tf.UnconnectedGradients.ZERO
        sources = [point, *tensors, *self.variables]
        found = tape.gradient(loss, sources, unconnected_gradients=zero)
        return [tf.convert_to_tensor(g).numpy().astype(np.float64) for g in found]

    def slope(self, which: int, direction: np.ndarray, step: float, weights: Numbers) -> float:
        """The central difference of the weighted sum, value number `which` moved along."""
        values = self.numbers()
        middle = values[which]
        ends = [(middle + sign * step * direction).astype(middle.dtype) for sign in (1, -1)]
        try:
            high, low = (self.at([*values[:which], end, *values[which + 1 :]]) for end in ends)
        finally:
            self._assign(values)
        moved = np.max(np.abs(ends[0].astype(np.float64) - ends[1])) / np.max(np.abs(direction))
        rises = zip(weights, high, low, strict=True)
        return float(sum(np.sum(w * (a - b)) for w, a, b in rises) / moved)

    def _assign(self, values: Numbers) -> None:
        count = 1 + len(self.parameters.values)
        for variable, value in zip(self.variables, values[count:], strict=True):
            variable.assign(value)


def gradients(subject: Subject) -> None:
    """Gradients of value and log-det, in the point and in all parameters, match differences."""
    for which, part in enumerate(subject.evaluations):
        options = (subject.event_ndims, which)
        own = Differences(subject.bijector, *options, part.point, subject.graphs)
        sharp = own
        if subject.reference is not None:
            sharp = Differences(subject.reference, *options, part.judged_at, subject.graphs)
            if [v.shape for v in own.values] != [v.shape for v in sharp.values]:
                raise UserError(
                    "The reference must have the bijector's parameters and variables, in float64."
                    f" Received: {sharp.names} for {own.names}."
                )
        weights = own.weights(subject.seed)
        noise = _noise(part)
        for i, found in enumerate(own.gradients(weights)):
            for where, direction in _directions(found.shape, subject.seed + i):
                _assert_slope(subject, sharp, i, where, direction, found, weights, noise, part.side)


def _noise(part: Evaluation) -> float:
    """The rounding error of the weighted sum, to be divided by the step."""
    total = np.linalg.norm(part.noise.value) + np.linalg.norm(part.noise.log_det)
    total *= epsilon(part.judged_at.dtype) / epsilon(part.point.dtype)
    # The margin for what an implementation may lose as a whole is not for its noise.
    return float(total) * 4.0 / EPS_MARGIN


def _directions(shape: tuple[int, ...], seed: int) -> Iterator[tuple[str, np.ndarray]]:
    """Single elements, then all at once with random signs."""
    rng = np.random.default_rng(seed)
    size = int(np.prod(shape))
    for flat in rng.choice(size, min(size, MAX_ELEMENTS), replace=False):
        direction = np.zeros(size)
        direction[flat] = 1.0
        index = tuple(int(i) for i in np.unravel_index(flat, shape))
        yield f"at {index_text(index)}", direction.reshape(shape)
    if size > 1:
        yield "along a random direction", rng.choice([-1.0, 1.0], shape)


def _assert_slope(
    subject: Subject,
    sharp: Differences,
    which: int,
    where: str,
    direction: np.ndarray,
    found: np.ndarray,
    weights: Numbers,
    noise: float,
    side: Side,
) -> None:
    got = float(np.sum(found * direction))
    tolerance: Tolerance = subject.tolerance("gradients", "difference")
    scale = float(np.max(np.abs(sharp.values[which].numpy()), initial=1.0))
    nearest = (np.inf, np.nan, 0.0)
    for step in STEPS[sharp.values[0].dtype.name]:
        wanted = sharp.slope(which, direction, step * scale, weights)
        allowed = tolerance.atol * float(np.linalg.norm(direction))
        allowed += tolerance.rtol * max(abs(wanted), float(np.max(np.abs(found))))
        allowed += noise / (step * scale)
        ratio = abs(got - wanted) / allowed
        if ratio <= 1.0:
            return
        if ratio < nearest[0] or np.isnan(nearest[1]):
            nearest = (ratio, wanted, allowed)
    _, wanted, allowed = nearest
    raise AssertionError(
        f"the gradient of {side.name} and its log-det with respect to {sharp.names[which]},"
        f" {where}, against central differences: got {got:.9g}, wanted {wanted:.9g}, off by"
        f" {abs(got - wanted):.3g} where {allowed:.3g} is allowed"
    )
