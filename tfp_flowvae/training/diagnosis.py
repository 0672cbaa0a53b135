"""Where a step of training first computes a number that is not finite."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import bijectors as tfb

from tfp_flowvae import _compat
from tfp_flowvae.bijectors.internal.observed import observing
from tfp_flowvae.bijectors.joint import parts_of


class Finding(NamedTuple):
    """What was the first to be not finite; the attributes are those of `NonFiniteError`."""

    reason: str
    what: str
    layer: str | None = None
    flow_step: int | None = None
    parameter: str | None = None
    magnitude: float | None = None


class _Event(NamedTuple):
    """A layer, or a step of a flow, whose output is not finite, although its input is."""

    layer: keras.layers.Layer
    what: str
    step: int | None = None
    steps: int | None = None


def diagnose(model: keras.Model, loss: Callable[[], tf.Tensor], data: Any) -> Finding | None:
    """Runs a step eagerly, without the optimizer, and finds what is not finite.

    It looks at the data, at the outputs of all layers in the order in which they are called, at the
    values and log-dets of the steps of flows (layers with a method `bijector`), and at the
    gradients.

    Args:
      model: The model, with the weights from before the step.
      loss: From nothing to the loss of the batch, from layers of the model.
      data: The batch.

    Returns:
      The first number that is not finite; None if all of them are finite.
    """
    if not _finite(data):
        return Finding("the batch has values that are not finite", "data")
    watch = _Watch(model)
    with watch.watching(), tf.GradientTape() as tape:
        value = loss()
    event = watch.first
    if event is not None and event.layer is not model:
        return _at(event)
    broken = [weight for weight in model.weights if not _finite(weight.value)]
    if broken:  # No layer is called with it: it is a parameter of a base distribution, for example.
        place = broken[0].path
        reason = f"the weight {place!r} is not finite"
        return Finding(reason, "weight", parameter=place, magnitude=_size(broken[0]))
    if event is not None or not _finite(value):
        return Finding(f"the {watch.output or 'loss'} is not finite, and all layers are", "loss")
    weights = model.trainable_weights
    gradients = zip(weights, tape.gradient(value, weights), strict=True)
    return watch.of_gradients([w for w, g in gradients if g is not None and not _finite(g)])


class _Watch:
    """Watches the layers and the flows of a model during an eager pass.

    Args:
      model: The model.

    Attributes:
      first: The first event.
      output: The name of the model's first output that is not finite, if they have names.
    """

    def __init__(self, model: keras.Model) -> None:
        self._model = model
        self._layers = _compat.layers_within(model)
        self._called: list[keras.layers.Layer] = []
        # A flow's step by the identity of its bijector, which is kept alive here.
        self._steps: dict[int, tuple[keras.layers.Layer, int, int, Any]] = {}
        # What was not finite in a part of the bijector that will be seen next, and which step.
        self._part: tuple[str, int | None] | None = None
        self.first: _Event | None = None
        self.output: str | None = None

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """A context in which the methods of the layers are replaced by watched ones."""
        replaced = []
        for layer in self._layers:
            for name, wrap in (("call", self._watched_call), ("bijector", self._watched_bijector)):
                method = getattr(layer, name, None)
                if callable(method) and name not in vars(layer):
                    vars(layer)[name] = wrap(layer, method)
                    replaced.append((layer, name))
        try:
            with observing(self._saw_bijector):
                yield
        finally:
            for layer, name in replaced:
                del vars(layer)[name]

    def of_gradients(self, weights: Sequence[keras.Variable]) -> Finding | None:
        """The finding for weights whose gradients are not finite; None for no weights.

        Backpropagation goes from the last layer to the first one, so the last layer is named.
        """
        if not weights:
            return None
        wanted = set(map(id, weights))
        for layer in reversed(self._called):
            own = [weight for weight in layer.weights if id(weight) in wanted]
            if own and len(_compat.layers_within(layer)) == 1:
                return _with(_of_gradient(own[0]), "gradient", layer, layer.weights)
        return _with(_of_gradient(weights[0]), "gradient", None, weights)

    def _watched_call(self, layer: keras.layers.Layer, call: Callable[..., Any]) -> Any:
        def watched(*args: Any, **kwargs: Any) -> Any:
            output = call(*args, **kwargs)
            self._called.append(layer)
            if self.first is None and _finite((args, kwargs)) and not _finite(output):
                self.first = _Event(layer, "output")
                if layer is self._model and isinstance(output, dict):
                    self.output = next(name for name, v in output.items() if not _finite(v))
            return output

        return watched

    def _watched_bijector(self, layer: keras.layers.Layer, bijector: Callable[..., Any]) -> Any:
        def watched(*args: Any, **kwargs: Any) -> Any:
            made = bijector(*args, **kwargs)
            self._called.append(layer)
            parts = parts_of(made)
            for i, part in enumerate(parts):
                self._steps.setdefault(id(part), (layer, i, len(parts), part))
            return made

        return watched

    def _saw_bijector(self, what: Any, x: tf.Tensor, y: tf.Tensor, log_det: tf.Tensor) -> None:
        """Notes the first step of a flow whose value or log-det is not finite.

        A bijector is seen after its parts, among which are the steps of a stack.
        """
        if self.first is not None:
            return
        broken = "output" if not _finite(y) else None if _finite(log_det) else "log-det"
        if broken is not None and self._part is None and _finite(x):
            self._part = broken, None if isinstance(what, tfb.Bijector) else int(what)
        known = self._steps.get(id(what))
        if known is None:
            return
        if broken is not None and self._part is not None:
            layer, place, count, _ = known
            kind, k = self._part
            if k is not None:
                place, count = k, layer.length
            self.first = _Event(layer, kind, place + 1, count)
        self._part = None


def _of_gradient(weight: keras.Variable) -> str:
    return f"the loss is finite, but not its gradient by {weight.path!r}"


def _at(event: _Event) -> Finding:
    layer = event.layer
    where = f"{type(layer).__name__} {layer.path!r}"
    if event.step is not None:
        where = f"step {event.step} of {event.steps} of the flow {where}"
    reason = f"the {event.what} of {where} is not finite"
    return _with(reason, event.what, layer, layer.weights, event.step)


def _with(
    reason: str,
    what: str,
    layer: keras.layers.Layer | None,
    weights: Sequence[keras.Variable],
    flow_step: int | None = None,
) -> Finding:
    """A finding with the largest of some weights."""
    path = None if layer is None else layer.path
    if not weights:
        return Finding(reason, what, path, flow_step)
    # NaN counts as larger than any number.
    weight = max(weights, key=lambda each: math.inf if math.isnan(_size(each)) else _size(each))
    size = _size(weight)
    if math.isfinite(size):
        reason += (
            f"; the largest number in the layer's parameters is {size:.3g}, in {weight.path!r}"
        )
    else:
        reason += f", and neither is its parameter {weight.path!r}"
    return Finding(reason, what, path, flow_step, weight.path, size)


def _size(weight: keras.Variable) -> float:
    """The largest magnitude in a weight; NaN if one of its numbers is NaN."""
    return float(np.max(np.abs(keras.ops.convert_to_numpy(weight)), initial=0.0))


def _finite(values: Any) -> bool:
    """Whether all floats in a structure are finite; true for tensors of a graph, not known yet."""
    if not tf.executing_eagerly():
        return True
    tensors = [v for v in tf.nest.flatten(values) if isinstance(v, (tf.Tensor, tf.Variable))]
    floats = [tf.convert_to_tensor(v) for v in tensors if v.dtype.is_floating]
    return all(bool(tf.reduce_all(tf.math.is_finite(v))) for v in floats)
