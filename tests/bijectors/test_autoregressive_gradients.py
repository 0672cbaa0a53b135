"""Derivatives of the parallel inverse, first and second, against TFP's loop and differences."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_probability import bijectors as tfb

from tfp_flowvae import bijectors as fvb

SIZE = 4


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


@pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
def test_gradients_are_the_loops(mode):
    net = Network()
    ours, theirs = pair(net)
    x = points(4, SIZE)
    sources = [x, *net.trainable_variables]

    def evaluate() -> list[tf.Tensor]:
        return loss_and_gradients(ours, x, sources)

    if mode != "eager":
        evaluate = tf.function(evaluate, jit_compile=mode == "xla", autograph=False)
    wanted = loss_and_gradients(theirs, x, sources)
    for got, reference in zip(evaluate(), wanted, strict=True):
        np.testing.assert_allclose(got, reference, rtol=1e-10, atol=1e-10)


def test_gradients_against_differences():
    net = Network()
    flow = fvb.ParallelMaskedAutoregressiveFlow(net)
    x = points(4, SIZE)
    sources = [x, net.kernel]
    gradients = loss_and_gradients(flow, x, sources)[1:]
    direction = points(2, SIZE, SIZE, seed=8)
    ahead_behind = []
    for sign in (1.0, -1.0):
        net.kernel.assign_add(sign * 1e-6 * direction)
        ahead_behind.append(loss_and_gradients(flow, x, [x])[0])
        net.kernel.assign_sub(sign * 1e-6 * direction)
    wanted = (ahead_behind[0] - ahead_behind[1]) / 2e-6
    np.testing.assert_allclose(tf.reduce_sum(gradients[1] * direction), wanted, rtol=1e-6)


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "graph"])
def test_gradients_in_a_context_that_is_closed_over(compiled):
    net, context, x = Network(), points(4, SIZE), points(4, SIZE, seed=1)

    def gradients(kind) -> list[tf.Tensor]:
        def conditioner(y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            shift, log_scale = net(y)
            return shift * tf.cos(context), log_scale + 0.1 * context

        return loss_and_gradients(kind(conditioner), x, [context, net.kernel])

    ours = lambda: gradients(fvb.ParallelMaskedAutoregressiveFlow)  # noqa: E731
    got = (tf.function(ours, autograph=False) if compiled else ours)()
    wanted = gradients(tfb.MaskedAutoregressiveFlow)
    for a, b in zip(got, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)


def test_traced_forward_inside_an_outer_tape():
    net = Network()
    ours, theirs = pair(net)
    x = points(4, SIZE)
    traced = tf.function(ours.forward, autograph=False)
    found = []
    for forward in (traced, theirs.forward):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(forward(tf.identity(x)) ** 2)
        found.append(tape.gradient(loss, net.kernel))
    np.testing.assert_allclose(found[0], found[1], rtol=1e-10)


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
def test_second_derivatives_are_the_loops(mode):
    net = Network()
    sources = [points(2, SIZE), points(2, SIZE, seed=1), net.kernel]

    def evaluate() -> list[tf.Tensor]:
        return second_derivatives(fvb.ParallelMaskedAutoregressiveFlow, net, sources)

    if mode != "eager":
        evaluate = tf.function(evaluate, jit_compile=mode == "xla", autograph=False)
    wanted = second_derivatives(tfb.MaskedAutoregressiveFlow, net, sources)
    for got, reference in zip(evaluate(), wanted, strict=True):
        np.testing.assert_allclose(got, reference, rtol=1e-8, atol=1e-8)


def test_second_derivatives_against_differences():
    net = Network()
    flow = fvb.ParallelMaskedAutoregressiveFlow(net)
    x, way = points(2, SIZE), points(2, SIZE, seed=7)
    kernel, kernel_way = tf.identity(net.kernel), points(2, SIZE, SIZE, seed=8)

    def slope(step: float) -> tf.Tensor:
        net.kernel.assign(kernel + step * kernel_way)
        moved = x + step * way
        _, d_x, d_kernel = loss_and_gradients(flow, moved, [moved, net.kernel])
        return tf.reduce_sum(d_x * way) + tf.reduce_sum(d_kernel * kernel_way)

    wanted = (slope(1e-5) - slope(-1e-5)) / 2e-5
    net.kernel.assign(kernel)
    with tf.GradientTape() as tape:
        tape.watch(x)
        _, d_x, d_kernel = loss_and_gradients(flow, x, [x, net.kernel])
        total = tf.reduce_sum(d_x * way) + tf.reduce_sum(d_kernel * kernel_way)
    d_x, d_kernel = tape.gradient(total, [x, net.kernel])
    got = tf.reduce_sum(d_x * way) + tf.reduce_sum(d_kernel * kernel_way)
    np.testing.assert_allclose(got, wanted, rtol=1e-7)


def test_second_derivatives_with_a_tolerance_and_of_one_dimension():
    for net, x in ((Network(), points(2, SIZE)), (Network(1), points(2, 1))):
        flow = fvb.ParallelMaskedAutoregressiveFlow(net, tolerance=1e-12)
        found = []
        for kind in (flow, tfb.MaskedAutoregressiveFlow(net)):
            with tf.GradientTape() as outer:
                outer.watch(x)
                d_x = loss_and_gradients(kind, x, [x])[1]
                total = tf.reduce_sum(tf.sin(d_x))
            found.append(outer.gradient(total, x))
        np.testing.assert_allclose(found[0], found[1], rtol=1e-8, atol=1e-8)


def test_a_first_derivative_takes_few_calls_more_than_passes():
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
