"""K steps of one kind as a loop, with a reverse pass that is a loop too.

An unrolled stack compiles slowly, and TensorFlow's own derivative of a `tf.while_loop` adds up, in
every pass, a gradient of the size of all K steps' parameters: its cost grows with K^2. Here the
reverse pass is written out, as a second loop over the stored inputs of the steps, in which each
step's gradient is taken by a tape and written once: both passes cost K steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

Step = Callable[..., tuple[tf.Tensor, tf.Tensor, tf.Tensor]]
"""`step(x, hint, *parameters)` gives f(x) of `[..., D]`, its log-det of `[...]` and a hint.

The hint, of `[...]`, is what the step had to search for and what, handed back, spares the search
when the step is run again for its gradient. The first run gets None. A step that searches for
nothing returns its log-det as the hint.
"""


def run_stack(
    step: Step,
    x: tf.Tensor,
    parameters: Sequence[tf.Tensor],
    event_ndims: Sequence[int],
    reverse: bool = False,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Applies the K steps one after the other.

    Args:
      step: One step.
      x: `[..., D]`.
      parameters: Stacks of the step's parameters, `[..., K, D]` or `[..., K]`.
      event_ndims: For each of them how many dimensions follow that of K.
      reverse: Whether to begin with step K - 1.

    Returns:
      The last value, `[..., D]`, and the sum of the log-dets, `[...]`.
    """
    parameters = [_steps_first(p, n) for p, n in zip(parameters, event_ndims, strict=True)]
    batch = tf.shape(x)[:-1]
    static = x.shape[:-1]
    for parameter, ndims in zip(parameters, event_ndims, strict=True):
        shape, known = tf.shape(parameter), parameter.shape
        batch = tf.broadcast_dynamic_shape(batch, shape[1 : tf.rank(parameter) - ndims])
        static = tf.broadcast_static_shape(
            static, known[1 : known.rank - ndims] if known.rank is not None else known
        )
    full = tf.concat([batch, tf.shape(x)[-1:]], axis=0)
    x = tf.ensure_shape(tf.broadcast_to(x, full), static.concatenate(x.shape[-1:]))
    return _differentiable_loop(step, reverse)(x, *parameters)


def _steps_first(parameter: tf.Tensor, event_ndims: int) -> tf.Tensor:
    rank = tf.rank(parameter) if parameter.shape.rank is None else parameter.shape.rank
    axis = rank - 1 - event_ndims
    order = tf.concat([[axis], tf.range(axis), tf.range(axis + 1, rank)], axis=0)
    if parameter.shape.rank is not None:
        order = [axis, *range(axis), *range(axis + 1, rank)]
    return tf.transpose(parameter, order)


def _differentiable_loop(step: Step, reverse: bool) -> Callable[..., tuple[tf.Tensor, tf.Tensor]]:
    @tf.custom_gradient
    def run(x: tf.Tensor, *parameters: tf.Tensor) -> tuple:
        y, log_det, inputs, hints = _forward_loop(step, reverse, x, parameters)

        def grad(d_y: tf.Tensor, d_log_det: tf.Tensor) -> list[tf.Tensor]:
            @tf.custom_gradient
            def first_order(*arguments: tf.Tensor) -> tuple:
                given = (step, reverse, parameters, inputs, hints)
                gradients = _backward_loop(*given, arguments[-2], arguments[-1])
                return gradients, lambda *upstream: _second_order(
                    step, reverse, arguments, upstream
                )

            return first_order(x, *parameters, d_y, d_log_det)

        return (y, log_det), grad

    return run


def _forward_loop(
    step: Step, reverse: bool, x: tf.Tensor, parameters: Sequence[tf.Tensor]
) -> tuple:
    count = _count(parameters)

    def body(i: tf.Tensor, x: tf.Tensor, total: tf.Tensor, inputs: tf.TensorArray, hints) -> tuple:
        k = count - 1 - i if reverse else i
        y, log_det, hint = step(x, None, *(p[k] for p in parameters))
        return i + 1, y, total + log_det, inputs.write(k, x), hints.write(k, hint)

    inputs = tf.TensorArray(x.dtype, size=count, element_shape=x.shape)
    hints = tf.TensorArray(x.dtype, size=count, element_shape=x.shape[:-1])
    _, y, total, inputs, hints = tf.while_loop(
        lambda i, *_: i < count,
        body,
        (0, x, tf.zeros_like(x[..., 0]), inputs, hints),
        maximum_iterations=count,
    )
    return y, total, inputs.stack(), hints.stack()


def _backward_loop(step, reverse, parameters, inputs, hints, d_y, d_log_det) -> tuple:
    count = _count(parameters)

    def body(i: tf.Tensor, d_x: tf.Tensor, arrays: tuple) -> tuple:
        k = i if reverse else count - 1 - i
        here = (inputs[k], *(p[k] for p in parameters))
        with tf.GradientTape() as tape:
            tape.watch(here)
            y, log_det, _ = step(here[0], hints[k], *here[1:])
        gradients = tape.gradient((y, log_det), here, (d_x, d_log_det))
        written = tuple(a.write(k, g) for a, g in zip(arrays, gradients[1:], strict=True))
        return i + 1, gradients[0], written

    arrays = tuple(
        tf.TensorArray(p.dtype, size=count, element_shape=p.shape[1:]) for p in parameters
    )
    _, d_x, arrays = tf.while_loop(
        lambda i, *_: i < count, body, (0, d_y, arrays), maximum_iterations=count
    )
    return (d_x, *(a.stack() for a in arrays))


def _second_order(step, reverse, arguments, upstream):
    """Gradients of `_backward_loop`'s answer, by TensorFlow's own rules on the unrolled stack."""
    x, *parameters, d_y, d_log_det = arguments
    with tf.GradientTape() as outer:
        outer.watch(arguments)
        with tf.GradientTape() as inner:
            inner.watch([x, *parameters])
            y, total = x, 0.0
            count = parameters[0].shape[0]
            for k in reversed(range(count)) if reverse else range(count):
                y, log_det, _ = step(y, None, *(p[k] for p in parameters))
                total = total + log_det
        gradients = inner.gradient((y, total), [x, *parameters], (d_y, d_log_det))
    return outer.gradient(gradients, arguments, upstream)


def _count(parameters: Sequence[tf.Tensor]) -> int | tf.Tensor:
    static = parameters[0].shape[0]
    return tf.shape(parameters[0])[0] if static is None else static
