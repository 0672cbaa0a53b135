"""The mathematics that every flow of the registry owes, with a context and without."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flowvae.flows import FLOWS
from tfp_flowvae.flows.conditioner import AutoregressiveConditioner, Conditioner

tfd = tfp.distributions

EVERY_FLOW = pytest.mark.parametrize("name", FLOWS)
UNTRAINED = ("none", "permute")


def _jacobian_log_det(function, z):
    """By a gradient for each output: rows of a batch do not depend on one another."""
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(z)
        outputs = tf.unstack(function(z), axis=-1)
    zero = tf.UnconnectedGradients.ZERO
    rows = [tape.gradient(y, z, unconnected_gradients=zero) for y in outputs]
    return tf.linalg.slogdet(tf.stack(rows, axis=-2))[1]


def test_log_det_against_the_jacobian_and_inverse_against_forward(
    name, context_size, stirred_flow, inputs
):
    layer = stirred_flow(name, context_size)
    z, context = inputs(context_size)
    bijector = layer.bijector(context)
    y, log_det = layer(z, context)
    assert y.shape == z.shape
    assert log_det.shape == z.shape[:-1]
    assert y.dtype == log_det.dtype == tf.float64
    np.testing.assert_allclose(bijector.forward(tf.identity(z)), y, rtol=1e-9, atol=1e-9)
    # tf.identity at every turn, or TFP answers from its cache.
    truth = _jacobian_log_det(lambda x: layer.bijector(context).forward(tf.identity(x)), z)
    np.testing.assert_allclose(log_det, truth, rtol=1e-8, atol=1e-8)
    fldj = bijector.forward_log_det_jacobian(tf.identity(z), event_ndims=1)
    np.testing.assert_allclose(tf.broadcast_to(fldj, truth.shape), truth, rtol=1e-8, atol=1e-8)
    ildj = bijector.inverse_log_det_jacobian(tf.identity(y), event_ndims=1)
    np.testing.assert_allclose(tf.broadcast_to(ildj, truth.shape), -truth, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(bijector.inverse(tf.identity(y)), z, rtol=1e-8, atol=1e-8)
    if name != "none":
        assert np.max(np.abs(y - z)) > 0.01  # or the checks above were of the identity


def test_float32_agrees_with_float64(name, context_size, small_flow, stirred_flow, inputs):
    exact, single = stirred_flow(name, context_size), small_flow(name, context_size, "float32")
    single.set_weights(exact.get_weights())
    wanted = exact(*inputs(context_size))
    y, log_det = single(*inputs(context_size, "float32"))
    assert y.dtype == log_det.dtype == tf.float32
    np.testing.assert_allclose(y, wanted[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(log_det, wanted[1], rtol=1e-4, atol=1e-5)


def test_starts_near_the_identity(name, context_size, small_flow, inputs):
    layer = small_flow(name, context_size)
    z, context = inputs(context_size)
    y, log_det = layer(z, context)
    if name == "permute":
        y, z = tf.sort(y), tf.sort(z)
    # Exactly, but for what little a context adds to the parameters.
    near = 1e-9 if context_size is None else 0.2
    np.testing.assert_allclose(y, z, atol=near)
    np.testing.assert_allclose(log_det, tf.zeros_like(log_det), atol=near)


def test_every_weight_gets_a_gradient_both_ways(name, context_size, stirred_flow, inputs):
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
            assert np.any(np.abs(gradient) > 1e-12), (way, weight.path)


@EVERY_FLOW
def test_amortised_flows_depend_on_the_context(name, stirred_flow, inputs):
    layer = stirred_flow(name, 3)
    z, context = inputs(3)
    y = layer(z, context)[0]
    moved = np.abs(y - layer(z, context + 1.0)[0]).max(axis=-1)
    assert np.all((moved > 1e-3) == (name not in UNTRAINED))
    # And each row on its own row of it.
    alone = layer(z[2:3], context[2:3])[0]
    np.testing.assert_allclose(y[2:3], alone, rtol=1e-9, atol=1e-9)


def test_as_a_distribution_of_any_number_of_draws(name, context_size, stirred_flow, inputs):
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
    again = distribution.log_prob(tf.identity(one_pass[0]))
    np.testing.assert_allclose(one_pass[1], again, rtol=1e-3, atol=1e-3)


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
