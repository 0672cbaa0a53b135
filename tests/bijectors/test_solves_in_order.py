"""Conditioners that settle one entry after another by themselves, against TFP's loop."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_probability import bijectors as tfb

from tfp_flowvae import bijectors as fvb

SIZE = 5
# A number is rounded in a sum of D terms and in ten operations or so, for each of D entries, there
# and on the way back of the derivative.
ROUNDINGS = 2 * SIZE * (SIZE + 10)


def points(*shape: int, seed: int = 0) -> tf.Tensor:
    return tf.constant(np.random.default_rng(seed).normal(size=shape))


class Unknowing(tf.Module):
    """Shift and log-scale; entry d depends on the entries before it, not linearly."""

    params = 2

    def __init__(self):
        super().__init__()
        self.kernel = tf.Variable(points(SIZE, SIZE, self.params, seed=3))
        self.before = np.triu(np.ones((SIZE, SIZE)), 1)[..., np.newaxis]
        self.calls = 0

    def __call__(self, y):
        self.calls += 1
        return self.finish(tf.tanh(tf.einsum("...i,ijk->...jk", y, self.kernel * self.before)))

    def finish(self, out):
        return tuple(tf.unstack(out, axis=-1))


class Knowing(Unknowing):
    """Counts how often it solved."""

    solved = 0

    def solve_in_order(self, x, transform):
        self.solved += 1
        y = tf.zeros_like(x)
        for d in range(SIZE):
            kernel = (self.kernel * self.before)[:, d : d + 1]
            out = self.finish(tf.tanh(tf.einsum("...i,ijk->...jk", y, kernel)))
            entry = transform(out, x[..., d : d + 1])
            y = tf.concat([y[..., :d], entry, y[..., d + 1 :]], axis=-1)
        return y


class KnowingAsOneTensor(Knowing):
    def finish(self, out):
        return out


class KnowingForSplines(KnowingAsOneTensor):
    params = 11


class KnowingForSplinesFlat(KnowingForSplines):
    def finish(self, out):
        return tf.reshape(out, [*out.shape[:-2], out.shape[-2] * out.shape[-1]])


HOW = {
    "pair": lambda: {"shift_and_log_scale_fn": Knowing()},
    "one tensor": lambda: {"shift_and_log_scale_fn": KnowingAsOneTensor()},
    "gated pair": lambda: {"bijector_fn": fvb.GatedUpdate(Knowing())},
    "gated tensor": lambda: {"bijector_fn": fvb.GatedUpdate(KnowingAsOneTensor())},
    "spline": lambda: {"bijector_fn": fvb.SplineTransform(KnowingForSplines(), bins=4)},
    "flat spline": lambda: {"bijector_fn": fvb.SplineTransform(KnowingForSplinesFlat(), bins=4)},
}


@pytest.mark.parametrize("how", HOW)
def test_solve_in_order_is_used_where_the_conditioner_has_it(how, one_eps, assert_within):
    given = HOW[how]()
    (outer,) = given.values()
    net = getattr(outer, "_conditioner", outer)
    x = points(4, SIZE)
    ours = fvb.ParallelMaskedAutoregressiveFlow(validate_args=True, **given)
    theirs = tfb.MaskedAutoregressiveFlow(**given)

    def evaluate(flow, arguments):
        x, kernel = arguments
        net.kernel.assign(kernel)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y, log_det = fvb.forward_and_log_det(flow, tf.identity(x))
            loss = tf.reduce_sum(tf.sin(3.0 * y)) + tf.reduce_sum(log_det * y[..., 0])
        return [y, log_det, *tape.gradient(loss, [x, net.kernel])]

    arguments = (x, tf.identity(net.kernel))
    unit = one_eps(lambda given: evaluate(theirs, given), arguments, rounds=4)
    wanted = evaluate(theirs, arguments)
    assert net.solved == 0
    assert_within(evaluate(ours, arguments), wanted, unit, ROUNDINGS)
    assert net.solved == 1
    assert int(ours.num_passes(x)) == 1
    net.calls = 0
    fvb.ParallelMaskedAutoregressiveFlow(**given).forward(x + 1.0)
    assert net.calls == 2  # for first and second derivatives


@pytest.mark.parametrize("left_out", [0, 1])
def test_solving_in_order_without_a_shift_or_a_scale(left_out, assert_same):
    class Half:
        def __init__(self):
            self.whole = Knowing()

        def __call__(self, y):
            return self.half(self.whole(y))

        def solve_in_order(self, x, transform):
            return self.whole.solve_in_order(x, lambda out, one: transform(self.half(out), one))

        def half(self, out):
            return tuple(None if k == left_out else value for k, value in enumerate(out))

    half = Half()
    ours = fvb.ParallelMaskedAutoregressiveFlow(half)
    theirs = tfb.MaskedAutoregressiveFlow(half)
    x = points(3, SIZE)
    assert_same(ours.forward, theirs.forward, x, ROUNDINGS)


def test_validate_args_finds_a_wrong_solution():
    net = Knowing()
    net.solve_in_order = lambda x, transform: x
    flow = fvb.ParallelMaskedAutoregressiveFlow(net, validate_args=True)
    with pytest.raises(tf.errors.InvalidArgumentError, match="autoregressive conditioner"):
        flow.forward(points(2, SIZE))


@pytest.mark.parametrize("kind", [fvb.GatedUpdate, fvb.SplineTransform])
def test_a_transformer_solves_in_order_only_if_its_conditioner_does(kind):
    assert not hasattr(kind(Unknowing()), "solve_in_order")
    assert hasattr(kind(Knowing()), "solve_in_order")
