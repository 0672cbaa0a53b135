"""Every flow of the registry in Keras, in TFP's variable tracking and in XLA."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flowvae.flows import FLOWS, make_flow
from tfp_flowvae.flows.base import ParametricFlow

tfb, tfd = tfp.bijectors, tfp.distributions

EVERY_FLOW = pytest.mark.parametrize("name", FLOWS)


@EVERY_FLOW
def test_tfp_sees_every_variable_and_a_bijector_stays_live(name, stirred_flow, inputs, assert_same):
    layer = stirred_flow(name, None)
    z, _ = inputs(None)
    bijector = layer.bijector()
    wanted = {id(weight.value) for weight in layer.trainable_weights}
    base = tfd.MultivariateNormalDiag(tf.zeros_like(z[0]), tf.ones_like(z[0]))
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
        assert np.max(np.abs(fast(tf.identity(z)) - before)) > 0, weight.path
    assert_same(bijector.forward(tf.identity(z)), lambda z: layer(z)[0], layer, z)


@EVERY_FLOW
def test_with_a_context_tfp_sees_what_is_no_function_of_it(name, small_flow, inputs):
    layer = small_flow(name, 3)
    seen = {id(v) for v in layer.bijector(inputs(3)[1]).trainable_variables}
    amortised = {
        id(weight.value)
        for part in layer._flatten_layers()
        if isinstance(part, ParametricFlow)
        for weight in part._weights_by_name.values()
    }
    assert seen == {id(weight.value) for weight in layer.trainable_weights} - amortised
    if "hidden" in FLOWS[name].options:
        assert seen


def test_serialises_and_comes_back(name, context_size, stirred_flow, inputs):
    layer = stirred_flow(name, context_size, "float32")
    config = keras.saving.serialize_keras_object(layer)
    again = keras.saving.deserialize_keras_object(json.loads(json.dumps(config)))
    assert type(again) is type(layer)
    assert again.get_config() == layer.get_config()
    z, context = inputs(context_size, "float32")
    again(z, context)
    again.set_weights(layer.get_weights())
    for mine, theirs in zip(again(z, context), layer(z, context), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_stays_in_float32_and_live_under_mixed_precision(
    name, context_size, mixed_bfloat16, stir, inputs, assert_same
):
    options = FLOWS[name].options
    spec = name + (":hidden=16" if "hidden" in options else "")
    flow = make_flow(spec, 4, context_size)
    single = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(flow))

    class Caller(keras.layers.Layer):
        """Asks for the bijector inside a `call`, where the policy casts variables."""

        def call(self, z, context=None):
            bijector = flow.bijector(context)
            return bijector.forward(tf.cast(z, tf.float32)), len(bijector.trainable_variables)

    z, context = inputs(context_size, "bfloat16")
    y, tracked = Caller()(z, context)
    assert y.dtype == tf.float32
    assert {weight.dtype for weight in flow.weights} <= {"float32"}
    if context_size is None:
        assert tracked == len(flow.trainable_weights)
    stir(flow, 0.1)
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
    z, context = (None if v is None else tf.cast(v, tf.float32) for v in (z, context))
    assert_same(y, lambda *given: single(*given)[0], single, z, context)


def _both_ways(layer, variables, z, context=None):
    with tf.GradientTape() as tape:
        y, log_det = layer(z, context)
        x = layer.bijector(context).inverse(y)
        loss = tf.reduce_sum(y**2) + tf.reduce_sum(log_det) + tf.reduce_sum(x**3)
    return y, log_det, x, tape.gradient(loss, variables)


@pytest.mark.slow
def test_compiles_with_gradients_for_a_batch_of_unknown_size(
    name, context_size, stirred_flow, inputs, roundings, assert_same
):
    layer = stirred_flow(name, context_size, "float32")
    arguments = [part for part in inputs(context_size, "float32") if part is not None]
    variables = [weight.value for weight in layer.trainable_weights]
    compiled = tf.function(
        lambda *a: _both_ways(layer, variables, *a),
        jit_compile=True,
        input_signature=[tf.TensorSpec([None, a.shape[-1]], a.dtype) for a in arguments],
    )(*arguments)

    def eager(*given):
        return _both_ways(layer, variables, *given)

    # There, back, and the gradient of both.
    assert_same(compiled, eager, layer, *arguments, n=4 * roundings)
