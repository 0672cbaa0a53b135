from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flowvae.flows.conditioner import (
    LOG_SCALE_BOUND,
    AutoregressiveConditioner,
    Conditioner,
)
from tfp_flowvae.networks import MADE, MLP

tfb = tfp.bijectors
EPS = np.finfo(np.float32).eps


def _network(stir, context_size=None):
    network = MADE(4, hidden=(8,), context_size=context_size)
    network.build()
    return stir(network)


def test_shows_the_networks_variables_to_tfp(stir):
    network = _network(stir, context_size=3)
    conditioner = Conditioner(network, tf.zeros([5, 3]))
    wanted = [id(weight.value) for weight in network.trainable_weights]
    assert sorted(map(id, conditioner.trainable_variables)) == sorted(wanted)
    flow = tfb.MaskedAutoregressiveFlow(conditioner)
    assert sorted(map(id, tfb.Invert(flow).trainable_variables)) == sorted(wanted)


def test_leaves_out_frozen_weights(stir):
    network = _network(stir)
    network.trainable = False
    assert Conditioner(network).trainable_variables == ()


def test_splits_into_shift_and_a_bounded_log_scale(stir):
    network = _network(stir)
    x = tf.random.normal([6, 4])
    shift, log_scale = Conditioner(network)(x)
    np.testing.assert_array_equal(shift, network(x)[..., 0])
    raw = network(x)[..., 1]
    # |x - B tanh(x / B)| < |x|^3 / (3 B^2): a small number is left nearly as it is.
    assert np.all(np.abs(log_scale - raw) < np.abs(raw) ** 3 / (3 * LOG_SCALE_BOUND**2) + EPS)
    bias = next(w for w in network.weights if w.path.endswith("output/bias"))
    for extreme in (-1e9, 1e9):
        bias.assign(tf.fill(bias.shape, extreme))
        _, log_scale = Conditioner(network)(x)
        np.testing.assert_array_equal(
            log_scale, tf.fill([6, 4], np.sign(extreme) * LOG_SCALE_BOUND)
        )


@pytest.mark.parametrize("context_size", [None, 3])
def test_a_single_vector_is_a_batch_of_one(context_size, stir):
    network = _network(stir, context_size)
    x = tf.random.normal([4])
    for batch in (1, 5):
        context = None if context_size is None else tf.random.normal([batch, 3])
        wanted = Conditioner(network, context)(x[tf.newaxis])
        for mine, theirs in zip(Conditioner(network, context)(x), wanted, strict=True):
            assert mine.shape == ([4] if context_size is None else [batch, 4])
            np.testing.assert_array_equal(mine, theirs[0] if context_size is None else theirs)


def test_serves_realnvp_with_its_depth_argument(stir, assert_same):
    network = MLP(2, (8,), output_size=(2, 2))
    network.build()
    stir(network)
    flow = tfb.RealNVP(num_masked=2, shift_and_log_scale_fn=Conditioner(network))
    x = tf.random.normal([5, 4])
    y = flow.forward(x)
    np.testing.assert_array_equal(y[:, :2], x[:, :2])

    def moved(x):
        shift, log_scale = Conditioner(network)(x[:, :2])
        return x[:, 2:] * tf.exp(log_scale) + shift

    assert_same(y[:, 2:], moved, network, x)
    assert len(flow.trainable_variables) == len(network.trainable_weights)


def test_reads_the_output_as_the_bijector_wants_it(stir, within):
    network = _network(stir)
    x = tf.random.normal([6, 4])
    raw = network(x)
    np.testing.assert_array_equal(Conditioner(network, read=tf.identity)(x), raw)
    conditioner = AutoregressiveConditioner(network, read=lambda out: 0.1 * out[..., 0])
    y = conditioner.solve_in_order(x, lambda shift, entry: entry + shift)
    np.testing.assert_allclose(y, x + 0.1 * network(y)[..., 0], **within(y))


@pytest.mark.parametrize("context_size", [None, 3])
def test_around_a_made_it_solves_in_order(context_size, stir, assert_same):
    network = _network(stir, context_size)
    context = None if context_size is None else tf.random.normal([5, 3])
    conditioner = AutoregressiveConditioner(network, context)
    assert not hasattr(Conditioner(network, context), "solve_in_order")
    assert len(conditioner.trainable_variables) == len(network.trainable_weights)
    x = tf.random.normal([5, 4])
    y = conditioner.solve_in_order(x, lambda out, entry: entry * tf.exp(out[1]) + out[0])

    def moved(y, x):
        shift, log_scale = conditioner(y)
        return x * tf.exp(log_scale) + shift

    assert_same(y, moved, network, y, x)
