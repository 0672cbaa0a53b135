"""What `AutoregressiveNetwork` does beyond the numbers of TFP's (test_tfp_numbers)."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from numpy.testing import assert_allclose, assert_array_equal
from tensorflow_probability import bijectors as tfb
from tensorflow_probability import distributions as tfd

from tfp_flowvae import bijectors as fvb
from tfp_flowvae.networks import AutoregressiveNetwork

D, C = 5, 2
CONDITIONAL = {"conditional": True, "conditional_event_shape": C}
STRUCTURES = {
    "equal": {},
    "reversed": {"input_order": "right-to-left"},
    "random": {"input_order": "random", "hidden_degrees": "random"},
    "no hidden layer": {"hidden_units": []},
    "no bias": {"use_bias": False},
    "all layers": CONDITIONAL,
    "first layer": {**CONDITIONAL, "conditional_input_layers": "first_layer"},
    "random, all layers": {**CONDITIONAL, "input_order": "random", "hidden_degrees": "random"},
}
every_structure = pytest.mark.parametrize(
    "options", STRUCTURES.values(), ids=list(STRUCTURES.keys())
)


def normal(*shape, seed=0, dtype="float64"):
    return tf.constant(np.random.default_rng(seed).normal(size=shape), dtype)


def network(params=2, dtype="float64", **options):
    """A built network whose every weight, masked ones too, is away from its start."""
    options = {"event_shape": D, "hidden_units": [12, 9], "activation": "tanh", **options}
    made = AutoregressiveNetwork(params, dtype=dtype, **options)
    made.build((None, D))
    made.set_weights([0.5 * normal(*w.shape, seed=i) for i, w in enumerate(made.weights)])
    return made


def inputs(options, *leading):
    """x, and the keyword arguments of a call."""
    told = {"conditional_input": normal(*leading, C, seed=1)} if "conditional" in options else {}
    return normal(*leading, D), told


@every_structure
def test_an_output_depends_on_the_entries_before_it_alone(options):
    made = network(**options)
    order = np.array(made.get_config()["input_order"])
    x, told = inputs(options, 1)
    with tf.GradientTape() as tape:
        tape.watch(x)
        out = made(x, **told)
    jacobian = tape.jacobian(out, x).numpy()[0, :, :, 0]  # [D, P, D]
    depends = (jacobian != 0).any(axis=1)
    assert not depends[order[:, None] <= order].any()
    assert depends.any(axis=1).sum() == D - 1


@every_structure
@pytest.mark.parametrize("gated", [False, True])
def test_the_sweep_is_the_loop_of_tfp(options, gated, rounding):
    made = network(**options)
    x, told = inputs(options, 6)
    how = {"bijector_fn": fvb.GatedUpdate(made)} if gated else {"shift_and_log_scale_fn": made}
    fast, loop = (
        kind(**how) for kind in (fvb.ParallelMaskedAutoregressiveFlow, tfb.MaskedAutoregressiveFlow)
    )
    assert int(fast.num_passes(x, **told)) == 1
    sources = made.trainable_variables

    def value_and_gradients(flow):
        with tf.GradientTape() as tape:
            tape.watch([x, *told.values()])
            y = flow.forward(tf.identity(x), **told)
            log_det = flow.forward_log_det_jacobian(tf.identity(x), 1, **told)
            loss = tf.reduce_mean(tf.sin(y)) + tf.reduce_mean(log_det)
        return y, log_det, *tape.gradient(loss, [x, *told.values(), *sources])

    for ours, theirs in zip(value_and_gradients(fast), value_and_gradients(loop), strict=True):
        # D passes through three layers of at most 12 inputs, there and back; a pass passes on an
        # error of an entry at most 1e2 times as large, by exp of a log-scale of at most 4.
        assert_allclose(ours, theirs, **rounding(1e2 * 2 * D * 3 * 12, theirs, x))


@pytest.mark.parametrize(
    ("x_shape", "context_shape", "leading"),
    [((D,), (C,), ()), ((D,), (3, C), (3,)), ((3, D), (C,), (3,)), ((4, 1, D), (3, C), (4, 3))],
)
def test_leading_dimensions_broadcast(x_shape, context_shape, leading, rounding):
    made = network(**CONDITIONAL)
    x, context = normal(*x_shape), normal(*context_shape, seed=1)
    out = made(x, conditional_input=context)
    assert out.shape == (*leading, D, 2)
    flat = made(
        tf.reshape(tf.broadcast_to(x, [*leading, D]), [-1, D]),
        conditional_input=tf.reshape(tf.broadcast_to(context, [*leading, C]), [-1, C]),
    )
    assert_allclose(tf.reshape(out, [-1, D, 2]), flat, **rounding(3 * 12, flat))
    y = fvb.ParallelMaskedAutoregressiveFlow(made).forward(x, conditional_input=context)
    assert y.shape == (*leading, D)


def test_a_bijector_takes_the_conditional_input_of_a_distribution(rounding):
    made = network(**CONDITIONAL)
    x, told = inputs(CONDITIONAL, 6)
    told = {"bijector_kwargs": told}
    base = tfd.Sample(tfd.Normal(np.float64(0.0), 1.0), [D])
    ours, theirs = (
        tfd.TransformedDistribution(base, kind(made))
        for kind in (fvb.ParallelMaskedAutoregressiveFlow, tfb.MaskedAutoregressiveFlow)
    )
    terms = 1e2 * 2 * D * 3 * 12  # as above
    log_prob = theirs.log_prob(x, **told)
    assert_allclose(ours.log_prob(x, **told), log_prob, **rounding(terms, log_prob))
    draws = [d.sample(6, seed=(1, 2), **told) for d in (ours, theirs)]
    assert_allclose(*draws, **rounding(terms, *draws))


def test_random_draws_follow_the_seed_of_keras_and_stay_with_the_config():
    def draw(seed):
        keras.utils.set_random_seed(seed)
        made = AutoregressiveNetwork(
            2, event_shape=20, hidden_units=[9], input_order="random", hidden_degrees="random"
        )
        made.build((None, 20))
        config = made.get_config()
        return made, config["input_order"], config["hidden_degrees"]

    made, order, degrees = draw(1)
    assert draw(1)[1:] == (order, degrees) != draw(2)[1:]
    assert sorted(order) == list(range(1, 21))
    assert set(degrees[0]) <= set(range(1, 20))
    again = AutoregressiveNetwork.from_config(made.get_config())
    x = normal(3, 20, dtype="float32")
    again(x)
    again.set_weights(made.get_weights())
    assert_array_equal(again(x), made(x))


def test_kernels_of_one_shape_start_apart():
    made = AutoregressiveNetwork(
        2,
        hidden_units=[6, 6, 6],
        event_shape=6,
        kernel_initializer=keras.initializers.RandomNormal(),
    )
    made.build((None, 6))
    second, third = (layer.get_weights()[0] for layer in made._masked_layers[1:3])
    assert_array_equal(second != 0, third != 0)
    assert not np.isclose(second, third)[second != 0].any()


def test_the_event_shape_comes_from_the_first_input():
    made = AutoregressiveNetwork(3, hidden_units=[4])
    assert made.event_shape is None
    assert made(tf.zeros([2, 7])).shape == (2, 7, 3)
    assert (made.event_shape, made.params) == ([7], 3)
    with pytest.raises(ValueError, match="incompatible with the layer"):
        made(tf.zeros([2, 6]))


def test_in_a_functional_model():
    made = AutoregressiveNetwork(2, hidden_units=[4], event_shape=3, **CONDITIONAL)
    x, c = keras.Input((3,)), keras.Input((C,))
    model = keras.Model([x, c], made(x, conditional_input=c))
    points = [np.ones((4, 3), np.float32), np.ones((4, C), np.float32)]
    assert model.output_shape == (None, 3, 2)
    assert_array_equal(model(points), made(points[0], conditional_input=points[1]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"event_shape": [2, 3]}, r"event_shape must have rank 1\. Received: event_shape=\[2, 3\]"),
        ({"conditional": True}, r"if, and only if, .*Received: conditional=True, .*=None"),
        ({"conditional_event_shape": 2}, r"if, and only if, .*Received: conditional=False, .*=2"),
        (CONDITIONAL, r"needs its event_shape.*Received: conditional=True, event_shape=None"),
        ({"input_order": "left"}, r"one of left-to-right, .*Received: input_order='left'"),
        ({"hidden_degrees": "even"}, r"one of equal, random\. Received: hidden_degrees='even'"),
        ({"conditional_input_layers": "last"}, r"all_layers, first_layer\. Received: .*'last'"),
    ],
)
def test_refuses_in_the_constructor(options, message):
    with pytest.raises(ValueError, match=message):
        AutoregressiveNetwork(2, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_order": [1, 2, 2]}, r"hold 1, \.\.\., 3 once each\. Received: .*\(1, 2, 2\)"),
        ({"hidden_degrees": [[1]]}, r"for each unit of \(4,\)\. Received: .*\(\(1,\),\)"),
        ({"event_shape": 2}, r"points \[\.\.\., 2\] .*Received: shape \(1, 3\)"),
    ],
)
def test_refuses_when_built(options, message):
    made = AutoregressiveNetwork(2, hidden_units=[4], **options)
    with pytest.raises(ValueError, match=message):
        made(tf.zeros([1, 3]))


@pytest.mark.parametrize("conditional", [False, True])
def test_refuses_a_conditional_input_that_is_missing_or_not_wanted(conditional):
    options = CONDITIONAL if conditional else {}
    told = {} if conditional else {"conditional_input": normal(1, C)}
    wanted = "a" if conditional else "no"
    with pytest.raises(ValueError, match=f"conditional={conditional}: it takes {wanted} cond"):
        network(**options)(normal(1, D), **told)
