"""Derivatives of the parallel inverse, first and second, against TFP's loop and differences."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_probability import bijectors as tfb

from tfp_flowvae import bijectors as fvb

SIZE = 4
# A number is rounded in a sum of D terms and in ten operations or so, for each of D entries, on the
# way there and on the way back of each derivative.
ROUNDINGS = 2 * SIZE * (SIZE + 10)


class Network(tf.Module):
    """Shift and log-scale; entry d depends on the entries before it, not linearly."""

    def __init__(self, size: int = SIZE):
        super().__init__()
        self.kernel = tf.Variable(points(2, size, size, seed=3))
        self.mask = np.triu(np.ones((size, size)), 1)

    def __call__(self, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        shift, raw = (tf.einsum("...i,ij->...j", y, k) for k in tf.unstack(self.kernel * self.mask))
        return shift + tf.sin(shift + 1.0), 0.5 * tf.tanh(raw + 0.3)


def points(*shape: int, seed: int = 0) -> tf.Tensor:
    return tf.constant(np.random.default_rng(seed).normal(size=shape))


def pair(net) -> tuple[tfb.Bijector, tfb.Bijector]:
    return fvb.ParallelMaskedAutoregressiveFlow(net), tfb.MaskedAutoregressiveFlow(net)


def loss_and_gradients(flow, x, sources) -> list[tf.Tensor]:
    weights = tf.range(1, 1 + x.shape[-1], dtype=x.dtype)
    with tf.GradientTape() as tape:
        tape.watch([s for s in sources if not isinstance(s, tf.Variable)])
        y = flow.forward(tf.identity(x))
        log_det = flow.forward_log_det_jacobian(tf.identity(x), 1)
        loss = tf.reduce_sum(weights * tf.sin(y)) + tf.reduce_sum(log_det * y[..., 0])
    return [loss, *tape.gradient(loss, sources)]


def given_weights(net, evaluate):
    """`evaluate(*points)` as a function of points and the network's weights."""

    def at(arguments):
        *given, kernel = arguments
        net.kernel.assign(kernel)
        return evaluate(*given)

    return at


@pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
def test_gradients_are_the_loops(mode, assert_same):
    net = Network()
    ours, theirs = (
        lambda x, flow=flow: loss_and_gradients(flow, x, [x, net.kernel]) for flow in pair(net)
    )
    if mode != "eager":
        ours = tf.function(ours, jit_compile=mode == "xla", autograph=False)
    arguments = (points(4, SIZE), tf.identity(net.kernel))
    assert_same(given_weights(net, ours), given_weights(net, theirs), arguments, ROUNDINGS)


def test_gradients_against_differences(assert_slope):
    net = Network()
    flow = fvb.ParallelMaskedAutoregressiveFlow(net)
    x = points(4, SIZE)
    sources = [x, net.kernel]
    gradients = loss_and_gradients(flow, x, sources)[1:]
    kernel, direction = tf.identity(net.kernel), points(2, SIZE, SIZE, seed=8)

    def loss(step: float) -> tf.Tensor:
        net.kernel.assign(kernel + step * direction)
        return loss_and_gradients(flow, x, [x])[0]

    assert_slope(tf.reduce_sum(gradients[1] * direction), loss, ROUNDINGS)


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "graph"])
def test_gradients_in_a_context_that_is_closed_over(compiled, assert_same):
    net = Network()

    def gradients(kind, context, x) -> list[tf.Tensor]:
        def conditioner(y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            shift, log_scale = net(y)
            return shift * tf.cos(context), log_scale + 0.1 * context

        return loss_and_gradients(kind(conditioner), x, [context, net.kernel])

    ours, theirs = (
        functools.partial(gradients, kind)
        for kind in (fvb.ParallelMaskedAutoregressiveFlow, tfb.MaskedAutoregressiveFlow)
    )
    if compiled:
        ours = tf.function(ours, autograph=False)
    arguments = (points(4, SIZE), points(4, SIZE, seed=1), tf.identity(net.kernel))
    assert_same(given_weights(net, ours), given_weights(net, theirs), arguments, ROUNDINGS)


def test_traced_forward_inside_an_outer_tape(assert_same):
    net = Network()
    ours, theirs = pair(net)

    def gradient(forward, x) -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(forward(tf.identity(x)) ** 2)
        return tape.gradient(loss, net.kernel)

    traced, loop = (
        given_weights(net, functools.partial(gradient, forward))
        for forward in (tf.function(ours.forward, autograph=False), theirs.forward)
    )
    assert_same(traced, loop, (points(4, SIZE), tf.identity(net.kernel)), ROUNDINGS)


def second_derivatives(kind, net, sources) -> list[tf.Tensor]:
    """Of a scalar made of all first derivatives, which is what an optimiser of gradients needs."""
    x, context = sources[:2]

    def conditioner(y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        shift, log_scale = net(y)
        return shift * tf.cos(context), log_scale + 0.1 * context

    with tf.GradientTape() as tape:
        tape.watch(sources[:2])
        gradients = loss_and_gradients(kind(conditioner), x, sources)[1:]
        total = tf.add_n([tf.reduce_sum(tf.sin(3.0 * g + 1.0)) for g in gradients])
    return tape.gradient(total, sources)


@pytest.mark.parametrize(
    "mode", ["eager", *(pytest.param(m, marks=pytest.mark.slow) for m in ("graph", "xla"))]
)
def test_second_derivatives_are_the_loops(mode, assert_same):
    net = Network()
    ours, theirs = (
        lambda x, context, kind=kind: second_derivatives(kind, net, [x, context, net.kernel])
        for kind in (fvb.ParallelMaskedAutoregressiveFlow, tfb.MaskedAutoregressiveFlow)
    )
    if mode != "eager":
        ours = tf.function(ours, jit_compile=mode == "xla", autograph=False)
    arguments = (points(2, SIZE), points(2, SIZE, seed=1), tf.identity(net.kernel))
    assert_same(given_weights(net, ours), given_weights(net, theirs), arguments, 2 * ROUNDINGS)


def test_second_derivatives_against_differences(assert_slope):
    net = Network()
    flow = fvb.ParallelMaskedAutoregressiveFlow(net)
    x, way = points(2, SIZE), points(2, SIZE, seed=7)
    kernel, kernel_way = tf.identity(net.kernel), points(2, SIZE, SIZE, seed=8)

    def slope(step: float) -> tf.Tensor:
        net.kernel.assign(kernel + step * kernel_way)
        moved = x + step * way
        _, d_x, d_kernel = loss_and_gradients(flow, moved, [moved, net.kernel])
        return tf.reduce_sum(d_x * way) + tf.reduce_sum(d_kernel * kernel_way)

    with tf.GradientTape() as tape:
        tape.watch(x)
        _, d_x, d_kernel = loss_and_gradients(flow, x, [x, net.kernel])
        total = tf.reduce_sum(d_x * way) + tf.reduce_sum(d_kernel * kernel_way)
    d_x, d_kernel = tape.gradient(total, [x, net.kernel])
    got = tf.reduce_sum(d_x * way) + tf.reduce_sum(d_kernel * kernel_way)
    assert_slope(got, slope, 2 * ROUNDINGS)


def test_second_derivatives_with_a_tolerance_and_of_one_dimension(assert_same):
    for net, x in ((Network(), points(2, SIZE)), (Network(1), points(2, 1))):
        flow = fvb.ParallelMaskedAutoregressiveFlow(net, tolerance=1e-12)

        def second(flow, x) -> tf.Tensor:
            with tf.GradientTape() as outer:
                outer.watch(x)
                d_x = loss_and_gradients(flow, x, [x])[1]
                total = tf.reduce_sum(tf.sin(d_x))
            return outer.gradient(total, x)

        ours, theirs = (
            functools.partial(second, kind) for kind in (flow, tfb.MaskedAutoregressiveFlow(net))
        )
        # The passes may end where an entry would still move by the tolerance.
        tolerance = 1e-12 / np.finfo(np.float64).eps
        assert_same(ours, theirs, x, 2 * ROUNDINGS + tolerance)


def test_a_first_derivative_costs_two_more_calls():
    """The derivatives of second order must not cost those who want the first another iteration."""
    calls = []
    net = Network()
    flow = fvb.ParallelMaskedAutoregressiveFlow(lambda y: calls.append(None) or net(y))
    x = points(2, SIZE)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(flow.forward(x) ** 2)
    before = len(calls)
    tape.gradient(loss, net.kernel)
    assert len(calls) == before + 2


@pytest.mark.parametrize("loss", [tf.reduce_sum, lambda y: tf.reduce_sum(y**2)])
def test_third_derivatives_are_refused(loss):
    flow = fvb.ParallelMaskedAutoregressiveFlow(Network())
    x = points(2, SIZE)
    with tf.GradientTape(persistent=True) as outer:
        outer.watch(x)
        with tf.GradientTape() as middle:
            middle.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                value = loss(flow.forward(tf.identity(x)))
            gradient = inner.gradient(value, x)
        second = middle.gradient(gradient, x)
    with pytest.raises(LookupError, match="differentiated twice"):
        outer.gradient(second, x)
