"""Stacks of Sylvester steps against the chain of single steps."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from numpy.testing import assert_allclose
from tensorflow_probability import bijectors as tfb

from tfp_flowvae import bijectors as fvb

K, D, M, J = 3, 4, 2, 2
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
def test_is_the_chain_and_so_are_its_gradients(kind, batch, part):
    parameters = _parameters(kind, batch)
    x = tf.constant(np.random.default_rng(1).normal(size=(2, 5, D)))
    found = []
    for make in (lambda p: CASES[kind][0](**p), lambda p: _chain(kind, p)):
        with tf.GradientTape() as tape:
            tape.watch((x, parameters))
            y, log_det = part(make(parameters), x)
            total = tf.reduce_sum(tf.sin(y)) + tf.reduce_sum(log_det)
        zero = tf.UnconnectedGradients.ZERO
        gradients = tape.gradient(total, (x, parameters), unconnected_gradients=zero)
        found.append([y, log_det, *tf.nest.flatten(gradients)])
    assert any(np.abs(g).max() > 0.1 for g in found[0][3:])
    for ours, chains in zip(*found, strict=True):
        assert_allclose(ours, chains, rtol=1e-9, atol=1e-9)


@EVERY
def test_round_trip_with_other_batches_for_each_parameter(kind):
    parameters = {
        name: value if i % 2 else value[tf.newaxis, tf.newaxis]
        for i, (name, value) in enumerate(_parameters(kind, (5,)).items())
    }
    flow = CASES[kind][0](**parameters)
    x = tf.constant(np.random.default_rng(1).normal(size=(D,)))
    y, log_det = flow.forward_and_log_det(x)
    assert y.shape == (1, 1, 5, D)
    back, inverse_log_det = flow.inverse_and_log_det(tf.identity(y))
    assert_allclose(back, np.broadcast_to(x, y.shape), rtol=1e-9, atol=1e-9)
    assert_allclose(inverse_log_det, -log_det, rtol=1e-9, atol=1e-9)


def test_too_many_columns_are_refused():
    square = tf.zeros([2, 3, 3])
    with pytest.raises(ValueError, match=r"M <= D. Received: D=2, M=3"):
        fvb.OrthogonalSylvesterFlow(tf.zeros([2, 2, 3]), square, square, tf.zeros([2, 3]))


def test_different_numbers_of_steps_are_refused():
    with pytest.raises(ValueError, match="K is 2 and, in b, 3"):
        fvb.HouseholderSylvesterFlow(
            tf.zeros([2, 1, 2]), tf.zeros([2, 2, 2]), tf.zeros([2, 2, 2]), tf.zeros([3, 2])
        )
