from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfp_flowvae.networks import MADE
from tfp_flowvae.networks.made import autoregressive_masks

CONTEXT = 3


def _made(event_size=5, context=False, reverse=False, stir=True, dtype="float64", **kwargs):
    """A built MADE, by default with every weight away from its start, whose output is zero."""
    kwargs.setdefault("hidden", (24, 24))
    made = MADE(
        event_size,
        context_size=CONTEXT if context else None,
        reverse=reverse,
        dtype=dtype,
        **kwargs,
    )
    made.build()
    if stir:
        rng = np.random.default_rng(0)
        made.set_weights([rng.normal(size=w.shape) * 0.5 for w in made.weights])
    return made


def _inputs(event_size, context, leading=(1,), dtype="float64"):
    rng = np.random.default_rng(1)
    z = tf.constant(rng.normal(size=(*leading, event_size)), dtype)
    return z, tf.constant(rng.normal(size=(leading[-1], CONTEXT)), dtype) if context else None


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("context", [False, True])
@pytest.mark.parametrize("event_size", [1, 2, 5])
@pytest.mark.parametrize("params", [1, 3])
def test_jacobian_is_strictly_triangular_and_full(event_size, context, reverse, params):
    made = _made(event_size, context, reverse, params=params)
    z, c = _inputs(event_size, context)
    with tf.GradientTape() as tape:
        tape.watch(z)
        out = made(z, c)
    assert out.shape == (1, event_size, params)
    jacobian = tape.jacobian(out, z).numpy()[0, :, :, 0, :]  # [D, P, D]
    before = np.tril(np.ones((event_size, event_size)), -1)
    wanted = before.T if reverse else before
    for p in range(params):
        # Exactly zero where it must be, and no dependence lost where it may be.
        np.testing.assert_array_equal(jacobian[:, p] != 0, wanted == 1)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("event_size", [1, 2, 5])
def test_every_output_depends_on_the_whole_context_nonlinearly(event_size, reverse):
    made = _made(event_size, context=True, reverse=reverse)
    z, c = _inputs(event_size, True)
    with tf.GradientTape() as outer:
        outer.watch(c)
        with tf.GradientTape() as inner:
            inner.watch(c)
            out = made(z, c)
        jacobian = inner.jacobian(out, c)[0, :, :, 0]  # [D, P, C]
    hessian = outer.jacobian(jacobian, c)[:, :, :, 0]  # [D, P, C, C]
    assert np.all(jacobian != 0)
    assert np.all(hessian != 0)


def test_without_a_context_the_first_output_is_a_constant():
    made = _made(1)
    z, _ = _inputs(1, False, (4,))
    assert len(np.unique(made(z)[..., 0])) == 1


@pytest.mark.parametrize("context", [False, True])
def test_starts_at_zero_in_every_context(context):
    made = _made(context=context, stir=False)
    z, c = _inputs(5, context, (7,))
    np.testing.assert_array_equal(made(z, c), np.zeros((7, 5, 2)))


@pytest.mark.parametrize("context", [False, True])
def test_every_weight_gets_a_gradient(context):
    made = _made(context=context)
    z, c = _inputs(5, context, (7,))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.square(made(z, c)))
    gradients = tape.gradient(loss, [w.value for w in made.trainable_weights])
    assert len(gradients) == 3 * 2 + 2 * context
    for weight, gradient in zip(made.trainable_weights, gradients, strict=True):
        assert gradient is not None, weight.path
        assert np.any(gradient.numpy() != 0), weight.path


@pytest.mark.parametrize("leading", [(0,), (4,), (2, 4), (3, 1, 4)])
def test_leading_dimensions_and_a_context_that_broadcasts(
    leading, roundings, one_eps, assert_within
):
    made = _made(context=True)
    z, c = _inputs(5, True, leading)
    full = tf.broadcast_to(c, [*leading, CONTEXT])
    wanted = made(tf.reshape(z, [-1, 5]), tf.reshape(full, [-1, CONTEXT]))
    out = made(z, c)
    assert out.shape == (*leading, 5, 2)
    unit = one_eps(lambda inputs: made(*inputs), (z, c), made)
    assert_within(tf.reshape(out, [-1, 5, 2]), wanted, unit, roundings(made))


def test_config_round_trip_gives_the_same_network():
    made = _made(3, context=True, reverse=True, params=4, hidden=(8, 6), activation="tanh")
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(made))
    assert again.get_config() == made.get_config()
    again.build()
    again.set_weights(made.get_weights())
    z, c = _inputs(3, True, (4,))
    np.testing.assert_array_equal(again(z, c), made(z, c))


def test_two_networks_have_the_same_masks():
    first, second = (autoregressive_masks(7, (20, 20), 2, True, False) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
    assert [m.shape for m in first] == [(7, 20), (20, 20), (20, 14)]


def test_under_mixed_precision_the_weights_are_float32_and_live(mixed_bfloat16):
    made = MADE(4, hidden=(8,), context_size=CONTEXT)
    made.build()
    z, c = _inputs(4, True, (3,), "float32")
    out = made(z, c)
    assert out.dtype == tf.bfloat16
    assert {w.dtype for w in made.weights} == {"float32"}
    for weight in made.weights:
        weight.assign(weight + 0.5)
    with tf.GradientTape() as tape:
        moved = made(z, c)
        loss = tf.reduce_sum(tf.cast(moved, tf.float32) ** 2)
    assert np.all(tf.cast(moved, tf.float32) != tf.cast(out, tf.float32))
    for gradient in tape.gradient(loss, [w.value for w in made.trainable_weights]):
        assert gradient.dtype == tf.float32
        assert np.any(gradient.numpy() != 0)


@pytest.mark.parametrize(
    ("arguments", "received"),
    [
        ({"event_size": 0}, "event_size=0"),
        ({"event_size": 2, "params": 0}, "params=0"),
        ({"event_size": 2, "hidden": ()}, r"hidden=\(\)"),
        ({"event_size": 2, "hidden": (3, 0)}, r"hidden=\(3, 0\)"),
    ],
)
def test_refuses_sizes_below_one(arguments, received):
    with pytest.raises(ValueError, match=f"must be at least 1.*Received: .*{received}"):
        MADE(**arguments)


def test_refuses_a_context_it_was_not_built_for_and_the_lack_of_one():
    z, c = _inputs(5, True)
    with pytest.raises(ValueError, match=r"built for no context\. Received: context=<tf"):
        _made()(z, c)
    with pytest.raises(ValueError, match=r"built for a context\. Received: context=None"):
        _made(context=True)(z)


def test_refuses_a_vector_of_another_size():
    with pytest.raises(ValueError, match="expected axis -1 of input shape to have value 5"):
        _made()(tf.zeros([1, 4], tf.float64))
