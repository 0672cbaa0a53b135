"""What every flow of the registry owes, with a context and without."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flowvae.flows import FLOWS, make_flow
from tfp_flowvae.flows.conditioner import AutoregressiveConditioner, Conditioner

tfb, tfd = tfp.bijectors, tfp.distributions

D, B, C = 4, 5, 3

EVERY_FLOW = pytest.mark.parametrize("name", FLOWS)
EITHER_WAY = pytest.mark.parametrize("context_size", [None, C], ids=["own", "amortised"])


def _layer(name, context_size, dtype="float64", **options):
    """A small built flow of its registered class; small networks where it has any."""
    entry = FLOWS[name]
    options = {
        **({"length": 2} if "length" in entry.options else {}),
        **({"hidden": (16,)} if "hidden" in entry.options else {}),
        **options,
    }
    layer = entry.load()(event_size=D, context_size=context_size, dtype=dtype, **options)
    layer.build()
    return layer


def _inputs(context_size, dtype="float64", leading=(B,)):
    rng = np.random.default_rng(1)
    z = tf.constant(rng.normal(size=(*leading, D)), dtype)
    return z, None if context_size is None else tf.constant(rng.normal(size=(B, C)), dtype)


def _jacobian_log_det(function, z):
    with tf.GradientTape() as tape:
        tape.watch(z)
        y = function(z)
    return tf.linalg.slogdet(tape.batch_jacobian(y, z))[1]


@EVERY_FLOW
@EITHER_WAY
def test_log_det_against_the_jacobian_and_inverse_against_forward(name, context_size, stir):
    layer = stir(_layer(name, context_size))
    z, context = _inputs(context_size)
    bijector = layer.bijector(context)
    y, log_det = layer(z, context)
    assert y.shape == (B, D)
    assert log_det.shape == (B,)
    assert y.dtype == log_det.dtype == tf.float64
    np.testing.assert_allclose(bijector.forward(tf.identity(z)), y, rtol=1e-9, atol=1e-9)
    # tf.identity at every turn, or TFP answers from its cache.
    truth = _jacobian_log_det(lambda x: layer.bijector(context).forward(tf.identity(x)), z)
    np.testing.assert_allclose(log_det, truth, rtol=1e-8, atol=1e-8)
    fldj = bijector.forward_log_det_jacobian(tf.identity(z), event_ndims=1)
    np.testing.assert_allclose(tf.broadcast_to(fldj, [B]), truth, rtol=1e-8, atol=1e-8)
    ildj = bijector.inverse_log_det_jacobian(tf.identity(y), event_ndims=1)
    np.testing.assert_allclose(tf.broadcast_to(ildj, [B]), -truth, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(bijector.inverse(tf.identity(y)), z, rtol=1e-8, atol=1e-8)
    if name != "none":
        assert np.max(np.abs(y - z)) > 0.01  # or the checks above were of the identity


@EVERY_FLOW
@EITHER_WAY
def test_float32_agrees_with_float64(name, context_size, stir):
    exact, single = _layer(name, context_size), _layer(name, context_size, "float32")
    single.set_weights(stir(exact).get_weights())
    z, context = _inputs(context_size)
    y, log_det = single(*_inputs(context_size, "float32"))
    assert y.dtype == log_det.dtype == tf.float32
    np.testing.assert_allclose(y, exact(z, context)[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(log_det, exact(z, context)[1], rtol=1e-4, atol=1e-5)


@EVERY_FLOW
@EITHER_WAY
def test_starts_near_the_identity(name, context_size):
    layer = _layer(name, context_size)
    z, context = _inputs(context_size)
    y, log_det = layer(z, context)
    # Exactly, but for what little a context adds to the parameters.
    near = 1e-9 if context_size is None else 0.2
    np.testing.assert_allclose(y, z, atol=near)
    np.testing.assert_allclose(log_det, np.zeros(B), atol=near)


@EITHER_WAY
def test_an_odd_number_of_reflections_starts_orthogonal(context_size):
    layer = _layer("householder", context_size, length=5)
    z, context = _inputs(context_size)
    y, log_det = layer(z, context)
    np.testing.assert_allclose(tf.norm(y, axis=-1), tf.norm(z, axis=-1), rtol=1e-12)
    np.testing.assert_array_equal(log_det, np.zeros(B))


@EVERY_FLOW
@EITHER_WAY
def test_every_weight_gets_a_gradient_both_ways(name, context_size, stir):
    layer = stir(_layer(name, context_size))
    z, context = _inputs(context_size)
    variables = [weight.value for weight in layer.trainable_weights]
    weighting = tf.constant(np.random.default_rng(2).normal(size=(B, D)))
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
def test_amortised_flows_depend_on_the_context(name, stir):
    layer = stir(_layer(name, C))
    z, context = _inputs(C)
    moved = np.abs(layer(z, context)[0] - layer(z, context + 1.0)[0]).max(axis=-1)
    assert np.all((moved > 1e-3) == (name != "none"))
    # And each row on its own row of it.
    alone = layer(z[2:3], context[2:3])[0]
    np.testing.assert_allclose(layer(z, context)[0][2:3], alone, rtol=1e-9, atol=1e-9)


@EVERY_FLOW
def test_tfp_sees_every_variable_and_a_bijector_stays_live(name, stir):
    layer = stir(_layer(name, None))
    z, _ = _inputs(None)
    bijector = layer.bijector()
    wanted = {id(weight.value) for weight in layer.trainable_weights}
    base = tfd.MultivariateNormalDiag(tf.zeros(D, tf.float64), tf.ones(D, tf.float64))
    for holder in (
        bijector,
        tfb.Invert(bijector),
        tfb.Chain([bijector, tfb.Scale(tf.constant(2.0, tf.float64))]),
        tfd.TransformedDistribution(base, bijector),
    ):
        assert {id(variable) for variable in holder.trainable_variables} == wanted
    fast = bijector.forward if FLOWS[name].fast_sample else bijector.inverse
    for weight in layer.trainable_weights:
        before = fast(tf.identity(z))
        weight.assign_add(np.random.default_rng(3).normal(size=weight.shape))
        assert np.max(np.abs(fast(tf.identity(z)) - before)) > 1e-6, weight.path
    np.testing.assert_allclose(bijector.forward(tf.identity(z)), layer(z)[0], rtol=1e-9, atol=1e-9)


@EVERY_FLOW
def test_neural_flows_show_their_weights_with_a_context_too(name):
    layer = _layer(name, C)
    seen = {id(v) for v in layer.bijector(_inputs(C)[1]).trainable_variables}
    amortised = "hidden" not in FLOWS[name].options
    assert seen == (set() if amortised else {id(w.value) for w in layer.trainable_weights})


@EVERY_FLOW
@EITHER_WAY
def test_serialises_and_comes_back(name, context_size, stir):
    layer = stir(_layer(name, context_size, "float32"))
    config = keras.saving.serialize_keras_object(layer)
    again = keras.saving.deserialize_keras_object(json.loads(json.dumps(config)))
    assert type(again) is type(layer)
    assert again.get_config() == layer.get_config()
    z, context = _inputs(context_size, "float32")
    again(z, context)
    again.set_weights(layer.get_weights())
    for mine, theirs in zip(again(z, context), layer(z, context), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@EVERY_FLOW
@EITHER_WAY
def test_stays_in_float32_and_live_under_mixed_precision(name, context_size, mixed_bfloat16, stir):
    flow = make_flow(name, D, context_size)
    single = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(flow))

    class Caller(keras.layers.Layer):
        """Asks for the bijector inside a `call`, where the policy casts variables."""

        def call(self, z, context=None):
            bijector = flow.bijector(context)
            return bijector.forward(tf.cast(z, tf.float32)), len(bijector.trainable_variables)

    z, context = _inputs(context_size, "bfloat16")
    y, tracked = Caller()(z, context)
    assert y.dtype == tf.float32
    assert {weight.dtype for weight in flow.weights} <= {"float32"}
    if context_size is None:
        assert tracked == len(flow.trainable_weights)
    stir(flow)
    with tf.GradientTape() as tape:
        y, log_det = flow(z, context)
        loss = tf.reduce_sum(y**2) + tf.reduce_sum(log_det)
    assert y.dtype == log_det.dtype == tf.float32
    variables = [weight.value for weight in flow.trainable_weights]
    for gradient in tape.gradient(loss, variables):
        assert gradient.dtype == tf.float32
        assert np.any(gradient.numpy() != 0)
    # The same numbers as without the policy.
    single.set_weights(flow.get_weights())
    keras.config.set_dtype_policy("float32")
    wanted = single(
        tf.cast(z, tf.float32), None if context is None else tf.cast(context, tf.float32)
    )
    np.testing.assert_allclose(y, wanted[0], rtol=1e-6, atol=1e-6)


@EVERY_FLOW
@EITHER_WAY
def test_as_a_distribution_of_any_number_of_draws(name, context_size, stir):
    layer = stir(_layer(name, context_size, "float32"))
    context = _inputs(context_size, "float32")[1]
    batch = [] if context_size is None else [B]
    base = tfd.MultivariateNormalDiag(tf.zeros([*batch, D]), tf.ones([*batch, D]))
    distribution = tfd.TransformedDistribution(base, layer.bijector(context))
    assert distribution.batch_shape == batch
    assert distribution.event_shape == [D]
    for leading in ([], [0], [2, 3]):
        z = distribution.sample(leading, seed=1)
        assert z.shape == (*leading, *batch, D)
        log_prob = distribution.log_prob(tf.identity(z))
        assert log_prob.shape == (*leading, *batch)
        assert np.all(np.isfinite(log_prob))
    one_pass = distribution.experimental_sample_and_log_prob([7], seed=1)
    again = distribution.log_prob(tf.identity(one_pass[0]))
    np.testing.assert_allclose(one_pass[1], again, rtol=1e-3, atol=1e-3)


@EVERY_FLOW
def test_the_registered_directions_are_those_of_one_pass(name, stir, monkeypatch):
    layer = stir(_layer(name, None, "float32"))
    calls = []
    run = Conditioner.__call__
    monkeypatch.setattr(Conditioner, "__call__", lambda *a, **k: (calls.append(1), run(*a, **k))[1])
    # What takes a sweep entry by entry is not of one pass, little though it costs.
    solve = AutoregressiveConditioner.solve_in_order
    monkeypatch.setattr(
        AutoregressiveConditioner,
        "solve_in_order",
        lambda *a, **k: (calls.extend(range(D)), solve(*a, **k))[1],
    )
    z, _ = _inputs(None, "float32")
    networks = 2 if "hidden" in FLOWS[name].options else 0
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


@pytest.mark.slow
@EVERY_FLOW
@EITHER_WAY
def test_compiles_with_gradients(name, context_size, stir):
    layer = stir(_layer(name, context_size, "float32"))
    z, context = _inputs(context_size, "float32")
    variables = [weight.value for weight in layer.trainable_weights]

    def both_ways(z):
        with tf.GradientTape() as tape:
            y, log_det = layer(z, context)
            x = layer.bijector(context).inverse(y)
            loss = tf.reduce_sum(y**2) + tf.reduce_sum(log_det) + tf.reduce_sum(x**3)
        return y, log_det, x, tape.gradient(loss, variables)

    eager = both_ways(z)
    compiled = tf.function(both_ways, jit_compile=True)(z)
    tf.nest.map_structure(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), eager, compiled
    )
