"""Stacks of Sylvester steps against the chain of single steps."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_probability import bijectors as tfb

from tfp_flowvae import bijectors as fvb

K, D, M, J = 3, 4, 2, 2
# Products with Q, R~, R and Q^T are sums of D terms, and there are twenty operations more, in each
# of K steps, there and back; derivatives do so once more.
ROUNDINGS = 2 * K * (4 * D + 20)
CASES = {
    "orthogonal": (
        fvb.OrthogonalSylvesterFlow,
        fvb.OrthogonalSylvester,
        {"q": (D, M), "r": (M, M), "r_tilde": (M, M), "b": (M,)},
    ),
    "householder": (
        fvb.HouseholderSylvesterFlow,
        fvb.HouseholderSylvester,
        {"v": (J, D), "r": (D, D), "r_tilde": (D, D), "b": (D,)},
    ),
}
EVERY = pytest.mark.parametrize("kind", list(CASES))


def _parameters(kind, batch):
    rng = np.random.default_rng(len(kind) + len(batch))
    shapes = CASES[kind][2]
    return {name: tf.constant(rng.normal(size=(*batch, K, *s))) for name, s in shapes.items()}


def _chain(kind, parameters):
    _, single, shapes = CASES[kind]

    def step(k):
        at = {
            name: value[(..., k, *[slice(None)] * len(shapes[name]))]
            for name, value in parameters.items()
        }
        return single(**at)

    return tfb.Chain([step(k) for k in reversed(range(K))])


@EVERY
@pytest.mark.parametrize("batch", [(), (5,)])
@pytest.mark.parametrize("part", [fvb.forward_and_log_det, fvb.inverse_and_log_det])
def test_is_the_chain_and_so_are_its_gradients(kind, batch, part, assert_same):
    parameters = _parameters(kind, batch)
    x = tf.constant(np.random.default_rng(1).normal(size=(2, 5, D)))

    def evaluate(make, given):
        x, parameters = given
        with tf.GradientTape() as tape:
            tape.watch(given)
            y, log_det = part(make(parameters), x)
            total = tf.reduce_sum(tf.sin(y)) + tf.reduce_sum(log_det)
        zero = tf.UnconnectedGradients.ZERO
        return y, log_det, tape.gradient(total, given, unconnected_gradients=zero)

    ours = lambda given: evaluate(lambda p: CASES[kind][0](**p), given)  # noqa: E731
    chains = lambda given: evaluate(lambda p: _chain(kind, p), given)  # noqa: E731
    assert any(np.abs(g).max() > 0.1 for g in tf.nest.flatten(ours((x, parameters)))[3:])
    assert_same(ours, chains, (x, parameters), 2 * ROUNDINGS)


@EVERY
def test_round_trip_with_other_batches_for_each_parameter(kind, assert_round_trip):
    parameters = {
        name: value if i % 2 else value[tf.newaxis, tf.newaxis]
        for i, (name, value) in enumerate(_parameters(kind, (5,)).items())
    }
    make = lambda given: CASES[kind][0](**given)  # noqa: E731
    x = tf.constant(np.random.default_rng(1).normal(size=(D,)))
    assert make(parameters).forward(x).shape == (1, 1, 5, D)
    assert_round_trip(make, parameters, x, ROUNDINGS)


def test_too_many_columns_are_refused():
    square = tf.zeros([2, 3, 3])
    with pytest.raises(ValueError, match=r"M <= D. Received: D=2, M=3"):
        fvb.OrthogonalSylvesterFlow(tf.zeros([2, 2, 3]), square, square, tf.zeros([2, 3]))


def test_different_numbers_of_steps_are_refused():
    with pytest.raises(ValueError, match="K is 2 and, in b, 3"):
        fvb.HouseholderSylvesterFlow(
            tf.zeros([2, 1, 2]), tf.zeros([2, 2, 2]), tf.zeros([2, 2, 2]), tf.zeros([3, 2])
        )
