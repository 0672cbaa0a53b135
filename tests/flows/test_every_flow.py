"""The mathematics of every flow of the registry, with a context and without."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flowvae.flows import FLOWS
from tfp_flowvae.flows.conditioner import AutoregressiveConditioner, Conditioner

tfd = tfp.distributions

EPS = np.finfo(np.float64).eps
EVERY_FLOW = pytest.mark.parametrize("name", FLOWS)
UNTRAINED = ("none", "permute")


def _jacobian(function, z):
    """`[B, D, D]`, by a gradient for each output: rows of a batch are apart from one another."""
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(z)
        outputs = tf.unstack(function(z), axis=-1)
    zero = tf.UnconnectedGradients.ZERO
    rows = [tape.gradient(y, z, unconnected_gradients=zero) for y in outputs]
    return tf.stack(rows, axis=-2)


def test_log_det_against_the_jacobian_and_inverse_against_forward(
    name, context_size, stirred_flow, inputs, roundings, one_eps, log_det_of
):
    layer = stirred_flow(name, context_size)
    z, context = inputs(context_size)
    given = [] if context is None else [context]
    y, log_det = layer(z, context)
    assert y.shape == z.shape
    assert log_det.shape == z.shape[:-1]
    assert y.dtype == log_det.dtype == tf.float64

    # tf.identity at every turn, or TFP answers from its cache.
    def both(way, x, *given):
        bijector = layer.bijector(*given)
        log_det = getattr(bijector, f"{way}_log_det_jacobian")(tf.identity(x), event_ndims=1)
        value = getattr(bijector, way)(tf.identity(x))
        return value, tf.broadcast_to(log_det, x.shape[:-1])

    units = one_eps(lambda given: both("forward", *given), [z, *given], layer)
    truth, entry = log_det_of(_jacobian(lambda x: both("forward", x, *given)[0], z))
    # One way to compute y and its log-det, and the other.
    for value, found in (both("forward", z, *given), (y, log_det)):
        np.testing.assert_allclose(value, y, rtol=0, atol=roundings * units[0])
        assert np.all(np.abs(found - truth) <= roundings * (units[1] + entry))
    units = one_eps(lambda given: both("inverse", *given), [y, *given], layer)
    x, found = both("inverse", y, *given)
    # What comes back was rounded on the way there too.
    np.testing.assert_allclose(x, z, rtol=0, atol=2 * roundings * units[0])
    assert np.all(np.abs(found + truth) <= 2 * roundings * (units[1] + entry))
    if name != "none":
        assert np.max(np.abs(y - z)) > 0.01  # or the checks above were of the identity


def test_float32_agrees_with_float64(
    name, context_size, small_flow, stirred_flow, inputs, assert_same
):
    exact, single = stirred_flow(name, context_size), small_flow(name, context_size, "float32")
    single.set_weights(exact.get_weights())
    wanted = [tf.cast(part, tf.float32) for part in exact(*inputs(context_size))]
    assert_same(wanted, single, single, *inputs(context_size, "float32"))


def test_starts_near_the_identity(name, context_size, small_flow, inputs, within, near_identity):
    layer = small_flow(name, context_size)
    z, context = inputs(context_size)
    y, log_det = layer(z, context)
    if name == "permute":
        y, z = tf.sort(y), tf.sort(z)
    near = within(z) if context_size is None else near_identity(z, context)
    np.testing.assert_allclose(y, z, **near)
    np.testing.assert_allclose(log_det, tf.zeros_like(log_det), **near)


def test_every_weight_gets_a_gradient_both_ways(
    name, context_size, stirred_flow, inputs, roundings
):
    layer = stirred_flow(name, context_size)
    z, context = inputs(context_size)
    variables = [weight.value for weight in layer.trainable_weights]
    weighting = tf.constant(np.random.default_rng(2).normal(size=z.shape))
    for way in ("forward", "inverse"):
        with tf.GradientTape() as tape:
            bijector = layer.bijector(context)
            value = getattr(bijector, way)(z)
            log_det = getattr(bijector, f"{way}_log_det_jacobian")(z, event_ndims=1)
            loss = tf.reduce_sum(value * weighting) + tf.reduce_sum(log_det)
        for weight, gradient in zip(
            layer.trainable_weights, tape.gradient(loss, variables), strict=True
        ):
            assert gradient is not None, (way, weight.path)
            assert np.all(np.isfinite(gradient)), (way, weight.path)
            # More than rounding leaves of a sum over the batch whose value is zero.
            assert np.any(np.abs(gradient) > roundings * EPS), (way, weight.path)


@EVERY_FLOW
def test_amortised_flows_depend_on_the_context(name, stirred_flow, inputs, roundings, assert_same):
    layer = stirred_flow(name, 3)
    z, context = inputs(3)
    y = layer(z, context)[0]
    # Each row on its own row of it.
    (unit,) = assert_same(y[2:3], lambda *given: layer(*given)[0], layer, z[2:3], context[2:3])
    moved = np.abs(y - layer(z, context + 1.0)[0]).max(axis=-1)
    assert np.all((moved > roundings * unit) == (name not in UNTRAINED))


def test_as_a_distribution_of_any_number_of_draws(
    name, context_size, stirred_flow, inputs, roundings, assert_same
):
    layer = stirred_flow(name, context_size, "float32")
    z, context = inputs(context_size, "float32")
    shape = z.shape if context_size else z.shape[-1:]
    base = tfd.MultivariateNormalDiag(tf.zeros(shape), tf.ones(shape))
    distribution = tfd.TransformedDistribution(base, layer.bijector(context))
    assert distribution.batch_shape == shape[:-1]
    assert distribution.event_shape == shape[-1:]
    for leading in ([], [0], [2, 3]):
        z = distribution.sample(leading, seed=1)
        assert z.shape == (*leading, *shape)
        log_prob = distribution.log_prob(tf.identity(z))
        assert log_prob.shape == (*leading, *shape[:-1])
        assert np.all(np.isfinite(log_prob))
    one_pass = distribution.experimental_sample_and_log_prob([7], seed=1)

    def again(z, context=None):
        return tfd.TransformedDistribution(base, layer.bijector(context)).log_prob(z)

    # One way through the flow and the other.
    assert_same(one_pass[1], again, layer, one_pass[0], context, n=2 * roundings)


@EVERY_FLOW
def test_the_registered_directions_are_those_of_one_pass(name, stirred_flow, inputs, monkeypatch):
    layer = stirred_flow(name, None, "float32")
    calls = []
    run = Conditioner.__call__
    monkeypatch.setattr(Conditioner, "__call__", lambda *a, **k: (calls.append(1), run(*a, **k))[1])
    # What takes a sweep entry by entry is not of one pass, little though it costs.
    solve = AutoregressiveConditioner.solve_in_order
    monkeypatch.setattr(
        AutoregressiveConditioner,
        "solve_in_order",
        lambda *a, **k: (calls.extend(range(4)), solve(*a, **k))[1],
    )
    z, _ = inputs(None, "float32")
    networks = len(getattr(layer, "_networks", ()))
    assert networks == (2 if "hidden" in FLOWS[name].options and name != "residual" else 0)
    bijector = layer.bijector()
    y = bijector.forward(z)
    assert (len(calls) == networks) == FLOWS[name].fast_sample
    calls.clear()
    bijector.inverse(tf.identity(y))
    assert (len(calls) == networks) == FLOWS[name].fast_density
    calls.clear()
    if FLOWS[name].fast_sample:  # value and log-det together run each network once
        layer(tf.identity(z))
        assert len(calls) == networks
