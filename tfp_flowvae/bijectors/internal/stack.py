"""K steps of one kind as a loop, with a reverse pass that is a loop too.

An unrolled stack compiles slowly, and TensorFlow's own derivative of a `tf.while_loop` adds up, in
every pass, a gradient of the size of all K steps' parameters: its cost grows with K^2. Here the
reverse pass is written out, as a second loop over the stored inputs of the steps, in which each
step's gradient is taken by a tape and written once: both passes cost K steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

from tfp_flowvae.bijectors.internal import observed

_ZERO = tf.UnconnectedGradients.ZERO

Step = Callable[..., tuple[tf.Tensor, tf.Tensor, tf.Tensor | None]]
"""`step(x, hint, *parameters)` gives f(x) of `[..., D]`, its log-det of `[...]`, and a hint.

A hint, of `[...]`, is a number that the step finds by a search. The first run gets None. When the
step runs again for its gradient it gets the hint and need not search; a step without a search
returns None.
"""


def run_stack(
    step: Step,
    x: tf.Tensor,
    parameters: Sequence[tf.Tensor],
    event_ndims: Sequence[int],
    *,
    reverse: bool = False,
    keeps_hint: bool = False,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Applies the K steps one after the other.

    First derivatives come from the loop below; higher ones from TensorFlow's own rules on the
    unrolled stack, right but slow to compile, for which K has to be known.

    Args:
      step: One step.
      x: `[..., D]`.
      parameters: Stacks of the step's parameters, such as `[..., K, D]` or `[..., K]`, of one
        dtype.
      event_ndims: For each of them how many dimensions follow that of K.
      reverse: Whether to begin with step K - 1.
      keeps_hint: Whether the step gives hints.

    Returns:
      The last value, `[..., D]`, and the sum of the log-dets, `[...]`.
    """
    parameters = [_steps_first(p, n) for p, n in zip(parameters, event_ndims, strict=True)]
    loop = _Loop(step, reverse, keeps_hint)
    return loop.differentiable()(_broadcast(x, parameters, event_ndims), *parameters)


def _steps_first(parameter: tf.Tensor, event_ndims: int) -> tf.Tensor:
    """Moves the dimension of K from before the last `event_ndims` to the front."""
    rank = parameter.shape.rank
    if rank is None:
        axis = tf.rank(parameter) - 1 - event_ndims
        after = tf.range(axis + 1, tf.rank(parameter))
        return tf.transpose(parameter, tf.concat([[axis], tf.range(axis), after], axis=0))
    axis = rank - 1 - event_ndims
    return tf.transpose(parameter, [axis, *range(axis), *range(axis + 1, rank)])


def _broadcast(
    x: tf.Tensor, parameters: Sequence[tf.Tensor], event_ndims: Sequence[int]
) -> tf.Tensor:
    """Gives `x` the batch shape that it will have after the first step, as a loop demands."""
    for parameter, ndims in zip(parameters, event_ndims, strict=True):
        batch = parameter[0][(..., *[0] * ndims, tf.newaxis)]
        x += tf.zeros_like(batch)
    return x


class _Loop:
    """The two passes over the steps, for parameters with K in front."""

    def __init__(self, step: Step, reverse: bool, keeps_hint: bool) -> None:
        self._step = step
        self._reverse = reverse
        self._keeps_hint = keeps_hint

    def differentiable(self) -> Callable[..., tuple[tf.Tensor, tf.Tensor]]:
        """The function `(x, *parameters) -> (y, log_det)` with its derivatives."""

        @tf.custom_gradient
        def run(x: tf.Tensor, *parameters: tf.Tensor) -> tuple:
            y, log_det, inputs, hints = self._forward(x, parameters)

            def grad(*upstream: tf.Tensor) -> tuple[tf.Tensor, ...]:
                @tf.custom_gradient
                def first_order(*arguments: tf.Tensor) -> tuple:
                    gradients = self._backward(parameters, inputs, hints, arguments[-2:])
                    return gradients, lambda *second: self._second_order(arguments, second)

                return first_order(x, *parameters, *upstream)

            return (y, log_det), grad

        return run

    def _forward(self, x: tf.Tensor, parameters: Sequence[tf.Tensor]) -> tuple:
        count = _count(parameters)

        def body(i: tf.Tensor, x: tf.Tensor, total: tf.Tensor, kept: tuple) -> tuple:
            k = count - 1 - i if self._reverse else i
            y, log_det, hint = self._step(x, None, *(p[k] for p in parameters))
            observed.show(k, x, y, log_det)
            values = (x, hint) if self._keeps_hint else (x,)
            kept = tuple(a.write(k, v) for a, v in zip(kept, values, strict=True))
            return i + 1, y, total + log_det, kept

        shapes = (x.shape, x.shape[:-1]) if self._keeps_hint else (x.shape,)
        arrays = tuple(tf.TensorArray(x.dtype, size=count, element_shape=s) for s in shapes)
        start = (0, x, tf.zeros_like(x[..., 0]), arrays)
        _, y, total, kept = tf.while_loop(
            lambda i, *_: i < count, body, start, maximum_iterations=count
        )
        return y, total, kept[0].stack(), kept[1].stack() if self._keeps_hint else None

    def _backward(
        self,
        parameters: Sequence[tf.Tensor],
        inputs: tf.Tensor,
        hints: tf.Tensor | None,
        upstream: Sequence[tf.Tensor],
    ) -> tuple[tf.Tensor, ...]:
        """Returns the gradients in x and in each of the parameters."""
        count = _count(parameters)
        d_y, d_log_det = upstream

        def body(i: tf.Tensor, d_x: tf.Tensor, arrays: tuple) -> tuple:
            k = i if self._reverse else count - 1 - i
            here = (inputs[k], *(p[k] for p in parameters))
            with tf.GradientTape() as tape:
                tape.watch(here)
                hint = None if hints is None else hints[k]
                outputs = self._step(here[0], hint, *here[1:])[:2]
            d_x, *rest = tape.gradient(outputs, here, (d_x, d_log_det), _ZERO)
            return i + 1, d_x, tuple(a.write(k, g) for a, g in zip(arrays, rest, strict=True))

        arrays = tuple(
            tf.TensorArray(p.dtype, size=count, element_shape=p.shape[1:]) for p in parameters
        )
        _, d_x, arrays = tf.while_loop(
            lambda i, *_: i < count, body, (0, d_y, arrays), maximum_iterations=count
        )
        return (d_x, *(a.stack() for a in arrays))

    def _second_order(
        self, arguments: Sequence[tf.Tensor], upstream: Sequence[tf.Tensor]
    ) -> list[tf.Tensor]:
        """The gradient of the result of `_backward` in `(x, *parameters, d_y, d_log_det)`."""
        x, *parameters, d_y, d_log_det = arguments
        with tf.GradientTape() as outer:
            outer.watch(arguments)
            with tf.GradientTape() as inner:
                inner.watch((x, *parameters))
                y, total = x, tf.zeros_like(x[..., 0])
                steps = list(zip(*(tf.unstack(p) for p in parameters), strict=True))
                for parts in reversed(steps) if self._reverse else steps:
                    y, log_det, _ = self._step(y, None, *parts)
                    total += log_det
            gradients = inner.gradient((y, total), (x, *parameters), (d_y, d_log_det), _ZERO)
        return outer.gradient(gradients, arguments, upstream, _ZERO)


def _count(parameters: Sequence[tf.Tensor]) -> int | tf.Tensor:
    static = parameters[0].shape[0] if parameters[0].shape.rank is not None else None
    return tf.shape(parameters[0])[0] if static is None else static
