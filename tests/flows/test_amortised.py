"""Slices of amortised flows: the flow of a slice of the context."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flowvae.flows import FLOWS, make_flow
from tfp_flowvae.flows.amortised import Amortised
from tfp_flowvae.flows.conditioner import Conditioner
from tfp_flowvae.flows.stack import Stack

tfd = tfp.distributions

D, C, BATCH = 4, 3, (2, 5)
STACK = "householder:2+iaf:1,hidden=8+permute:seed=1+nice:1,hidden=8+planar:2"
SLICES = {
    "an index": 1,
    "indices of both axes": (1, -1),
    "an index of the last axis": (..., 2),
    "a range": (slice(None), slice(1, 4)),
    "every other": (slice(None), slice(None, None, 2)),
    "none at all": (slice(None), slice(2, 2)),
    "a new axis": (tf.newaxis,),
    "a new axis in the middle": (0, tf.newaxis, slice(1, 3)),
}


@pytest.fixture
def posterior(stirred_flow, stir):
    """A function from a flow's name, or a stack, to a distribution of batch `BATCH` over it."""

    def make(name):
        if name in FLOWS:
            layer = stirred_flow(name, C)
        else:
            flows = [
                type(flow).from_config({**flow.get_config(), "dtype": "float64"})
                for flow in make_flow(name, D, C).flows
            ]
            layer = Stack(flows, event_size=D, context_size=C, dtype="float64")
            layer.build()
            stir(layer, 0.1)
        rng = np.random.default_rng(1)
        context, loc = (tf.constant(rng.normal(size=(*BATCH, size))) for size in (C, D))
        scale = tf.constant(rng.uniform(0.5, 2.0, (*BATCH, D)))
        base = tfd.Independent(tfd.Normal(loc, scale), 1)
        return tfd.TransformedDistribution(base, layer.bijector(context)), layer, context

    return make


@pytest.mark.parametrize("name", [*FLOWS, STACK])
def test_every_slice_is_the_distribution_at_its_place(name, posterior, within):
    whole = posterior(name)[0]
    assert whole.batch_shape == BATCH
    z = tf.constant(np.random.default_rng(2).normal(size=(*BATCH, D)))
    log_prob = whole.log_prob(tf.identity(z)).numpy()
    assert np.ptp(log_prob) > 0.1  # or it would not matter what is sliced
    for how, index in SLICES.items():
        index = index if isinstance(index, tuple) else (index,)
        part, wanted = whole[index], log_prob[index]
        found = part.log_prob(tf.constant(z.numpy()[(*index, slice(None))]))
        assert part.batch_shape == found.shape == wanted.shape, how
        np.testing.assert_allclose(found, wanted, **within(log_prob, condition=D), err_msg=how)
    drawn = whole[1, 1:].sample(6, seed=[1, 2])
    assert drawn.shape == (6, 4, D)
    assert np.all(np.isfinite(whole[1, 1:].log_prob(tf.identity(drawn))))


@pytest.mark.parametrize("name", FLOWS)
def test_a_bijector_can_be_sliced_and_sliced_again(name, posterior, within):
    _, layer, context = posterior(name)
    bijector = layer.bijector(context)
    if name != "none":
        assert bijector.experimental_batch_shape() == BATCH
    x = tf.constant(np.random.default_rng(2).normal(size=(*BATCH, D)))
    y = bijector.forward(tf.identity(x))
    log_det = tf.broadcast_to(bijector.forward_log_det_jacobian(tf.identity(x), 1), BATCH)
    part = bijector[1, 2:][1]
    assert part.experimental_batch_shape() == []
    there = part.forward(x[1, 3])
    np.testing.assert_allclose(there, y[1, 3], **within(y))
    found = part.forward_log_det_jacobian(x[1, 3], 1), -part.inverse_log_det_jacobian(y[1, 3], 1)
    for value in found:
        assert value.shape == []
        np.testing.assert_allclose(value, log_det[1, 3], **within(log_det, y, condition=D))
    assert part.inverse(tf.identity(there)).shape == [D]


@pytest.mark.parametrize("name", ["iaf", "realnvp", "nice", "spline", "permute"])
def test_the_gradient_of_a_slice_reaches_its_part_of_the_context(name, posterior):
    _, layer, context = posterior(name)
    with tf.GradientTape() as tape:
        tape.watch(context)
        y = layer.bijector(context)[1, 2].forward(tf.ones(D, tf.float64))
        loss = tf.reduce_sum(y**2)
    gradient = tape.gradient(loss, context, unconnected_gradients="zero").numpy()
    reached = np.argwhere(np.any(gradient != 0, axis=-1)).tolist()
    assert reached == ([] if name == "permute" else [[1, 2]])


def test_in_a_graph_of_unknown_batch_size(posterior, within):
    _, layer, _ = posterior("iaf")
    rng = np.random.default_rng(3)
    context, x = (tf.constant(rng.normal(size=(7, size))) for size in (C, D))

    @tf.function(
        input_signature=[tf.TensorSpec([None, C], tf.float64), tf.TensorSpec([], tf.int32)]
    )
    def at(context, place):
        return layer.bijector(context)[place].forward(x[place])

    wanted = layer.bijector(context).forward(x)
    for place in (0, 6):
        np.testing.assert_allclose(at(context, place), wanted[place], **within(wanted))


def test_value_and_log_det_together_ask_each_network_once(posterior, monkeypatch):
    _, layer, context = posterior("realnvp")
    calls, run = [], Conditioner.__call__
    monkeypatch.setattr(Conditioner, "__call__", lambda *a, **k: (calls.append(1), run(*a, **k))[1])
    for bijector, x in (
        (layer.bijector(context), tf.zeros([*BATCH, D], tf.float64)),
        (layer.bijector(context)[0, 1], tf.zeros([D], tf.float64)),
    ):
        assert isinstance(bijector, Amortised)
        for both in (bijector.forward_and_log_det, bijector.inverse_and_log_det):
            calls.clear()
            value, log_det = both(x)
            assert (value.shape, log_det.shape) == (x.shape, x.shape[:-1])
            assert len(calls) == layer.length


def test_a_new_bijector_of_the_same_context_knows_the_new_weights(posterior):
    """TFP's cache holds bijectors of equal parameters for the same one."""
    _, layer, context = posterior("nice")
    x = tf.ones([*BATCH, D], tf.float64)
    before = layer.bijector(context).forward(x)
    layer._networks[0].weights[-1].assign_add(tf.ones_like(layer._networks[0].weights[-1]))
    assert np.abs(layer.bijector(context).forward(x) - before).max() > 0.1
