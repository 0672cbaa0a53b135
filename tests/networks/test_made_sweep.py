"""The sweep over a MADE's degrees against TFP's loop of D passes through the same network."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_probability import bijectors as tfb

from tfp_flowvae import bijectors as fvb
from tfp_flowvae.flows.conditioner import AutoregressiveConditioner
from tfp_flowvae.networks import MADE
from tfp_flowvae.networks.made import autoregressive_masks, hidden_degrees

CONTEXT = 3


def made_of(event_size=5, context=False, dtype="float64", hidden=(24, 17), **kwargs):
    """A MADE whose every weight, masked ones too, is away from its start."""
    size = CONTEXT if context else None
    made = MADE(event_size, context_size=size, dtype=dtype, hidden=hidden, **kwargs)
    made.build()
    rng = np.random.default_rng(0)
    made.set_weights([0.5 * rng.normal(size=w.shape) for w in made.weights])
    return made


def normal(*shape, seed=1, dtype="float64"):
    return tf.constant(np.random.default_rng(seed).normal(size=shape), dtype)


def affine(out, entry):
    shift, log_scale = tf.unstack(out, axis=-1)
    return entry * tf.exp(tf.tanh(log_scale)) + shift


def loop(made, x, context=None):
    """D passes, from zero."""
    y = tf.zeros_like(x)
    for _ in range(made.event_size):
        y = affine(made(y, context), x)
    return y


def flows(made, context=None):
    conditioner = AutoregressiveConditioner(made, context)
    return (
        fvb.ParallelMaskedAutoregressiveFlow(conditioner),
        tfb.MaskedAutoregressiveFlow(conditioner),
    )


@pytest.fixture
def assert_close(roundings, one_eps, assert_within):
    """`assert_close(got, fn, made, *inputs)`: got is what fn, which sweeps or loops, comes to.

    D passes through the network follow one another, and a gradient goes back through them.
    """

    def check(got, fn, made, *inputs):
        unit = one_eps(lambda given: fn(*given), inputs, made)
        assert_within(got, fn(*inputs), unit, 2 * made.event_size * roundings(made))
        return unit

    return check


def loss_and_gradients(flow, x, sources):
    weighting = tf.cast(tf.range(1, 1 + x.shape[-1]), x.dtype)
    with tf.GradientTape() as tape:
        tape.watch([s for s in sources if not isinstance(s, tf.Variable)])
        y = flow.forward(tf.identity(x))
        log_det = flow.forward_log_det_jacobian(tf.identity(x), 1)
        loss = tf.reduce_sum(weighting * tf.sin(y)) + tf.reduce_sum(log_det * y[..., 0])
    return [y, *tape.gradient(loss, sources)]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("context", [False, True])
@pytest.mark.parametrize(
    ("event_size", "hidden"),
    [(1, (3,)), (2, (1,)), (5, (24,)), (5, (23, 17)), (6, (4, 31, 2)), (6, (2,))],
)
def test_equals_the_loop(event_size, hidden, context, reverse, assert_close):
    made = made_of(event_size, context, hidden=hidden, reverse=reverse)
    x, c = normal(4, event_size), normal(4, CONTEXT, seed=2) if context else None
    assert_close(made.solve_in_order(x, affine, c), lambda x: loop(made, x, c), made, x)


@pytest.mark.parametrize("activation", ["relu", "tanh", "swish"])
def test_any_activation(activation, assert_close):
    made = made_of(activation=activation)
    x = normal(4, 5)
    assert_close(made.solve_in_order(x, affine), lambda x: loop(made, x), made, x)


def test_in_float32_at_forty_dimensions(assert_close):
    made = made_of(40, dtype="float32", hidden=(100, 100))
    made.set_weights([0.2 * w for w in made.get_weights()])
    x = normal(8, 40, dtype="float32")
    y = made.solve_in_order(x, affine)
    assert y.dtype == tf.float32
    assert_close(y, lambda x: loop(made, x), made, x)
    assert np.abs(y - affine(made(x), x)).max() > 0.1  # one pass would not have done


@pytest.mark.parametrize("leading", [(), (0,), (4,), (2, 4), (3, 1, 4)])
@pytest.mark.parametrize("context", [False, True])
def test_leading_dimensions_and_a_context_that_broadcasts(leading, context, assert_close):
    made = made_of(context=context)
    x = normal(*leading, 5)
    c = normal(leading[-1] if leading else 4, CONTEXT, seed=2) if context else None
    full = x + tf.zeros([4, 5], x.dtype) if context and not leading else x

    def theirs(x, c=c):
        return flows(made, c)[1].forward(tf.identity(x))

    y = flows(made, c)[0].forward(x)
    assert y.shape == full.shape
    assert_close(y, theirs, made, full)
    if context and leading == (4,):  # one context for all points
        y = flows(made, c[:1])[0].forward(x)
        assert_close(y, lambda x: theirs(x, tf.repeat(c[:1], 4, axis=0)), made, x)


@pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
@pytest.mark.parametrize("reverse", [False, True])
def test_gradients_are_the_loops(mode, reverse, assert_close):
    made = made_of(context=True, reverse=reverse)
    x, c = normal(4, 5), normal(4, CONTEXT, seed=2)
    variables = [w.value for w in made.trainable_weights]

    def evaluate(kind, x, c):
        return loss_and_gradients(flows(made, c)[kind], x, [x, c, *variables])

    run = evaluate
    if mode != "eager":
        run = tf.function(evaluate, jit_compile=mode == "xla", autograph=False)
    got = run(0, x, c)
    unit = assert_close(got, lambda x, c: evaluate(1, x, c), made, x, c)
    for part, one in zip(got, unit, strict=True):
        assert np.abs(part).max() > 1e6 * one  # there is something to compare


def test_gradients_against_differences(roundings, one_eps):
    made = made_of()
    flow = flows(made)[0]
    x, kernel = normal(4, 5), made.weights[0].value
    _, in_x, in_kernel = loss_and_gradients(flow, x, [x, kernel])
    steps = normal(4, 5, seed=8), normal(*kernel.shape, seed=9)

    def loss(at):
        kernel.assign_add(at * steps[1])
        y = flow.forward(x + at * steps[0])
        log_det = flow.forward_log_det_jacobian(x + at * steps[0], 1)
        kernel.assign_sub(at * steps[1])
        weighting = tf.range(1, 6, dtype=y.dtype)
        return tf.reduce_sum(weighting * tf.sin(y)) + tf.reduce_sum(log_det * y[..., 0])

    def slope(step):
        return (loss(step) - loss(-step)) / (2 * step)

    step = 1e-5
    got = tf.reduce_sum(in_x * steps[0]) + tf.reduce_sum(in_kernel * steps[1])
    # A central difference errs by step^2, so that of twice the step is off by three times more.
    # Each loss is rounded as often as it takes to compute.
    (unit,) = one_eps(lambda _: loss(0.0), (), made)
    rounding = 2 * made.event_size * roundings(made) * unit / step
    assert abs(got - slope(step)) < abs(slope(2 * step) - slope(step)) + rounding
    assert rounding < 1e-4 * abs(got)  # or nothing would have been compared


def test_the_sweep_itself_carries_no_gradient():
    made = made_of()
    x = normal(4, 5)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = made.solve_in_order(x, affine)
    assert tape.gradient(y, [x, made.weights[0].value]) == [None, None]


def test_compiles_and_the_graph_does_not_grow_with_the_dimension(assert_close):
    sizes = []
    for event_size in (4, 12):
        made = made_of(event_size, hidden=(30, 30))
        x = normal(3, event_size)
        run = tf.function(lambda x, m=made: m.solve_in_order(x, affine), jit_compile=True)
        assert_close(run(x), lambda x, made=made: loop(made, x), made, x)
        graph = run.get_concrete_function(x).graph.as_graph_def()
        sizes.append(len(graph.node) + sum(len(f.node_def) for f in graph.library.function))
    assert sizes[0] == sizes[1]


def test_saved_model_dynamic_batch_and_live_weights(tmp_path, assert_close):
    made = made_of(context=True)
    x, c = normal(3, 5), normal(3, CONTEXT, seed=2)
    module = tf.Module()
    module.weights = [w.value for w in made.weights]
    unknown = [tf.TensorSpec([None, size], tf.float64) for size in (5, CONTEXT)]

    @tf.function(input_signature=unknown, autograph=False)
    def forward(x, c):
        y = flows(made, c)[0].forward(x)
        assert y.shape.as_list() == [None, 5]
        return y

    module.forward = forward
    before = forward(x, c)
    made.set_weights([0.9 * w for w in made.get_weights()])

    def wanted(x, c):
        return flows(made, c)[1].forward(tf.identity(x))

    (unit,) = assert_close(forward(x, c), wanted, made, x, c)
    assert np.abs(wanted(x, c) - before).max() > 1e6 * unit
    tf.saved_model.save(module, tmp_path)
    loaded = tf.saved_model.load(tmp_path)
    assert_close(loaded.forward(x, c), wanted, made, x, c)
    assert loaded.forward(x[:0], c[:0]).shape == (0, 5)


@pytest.mark.parametrize("gated", [False, True])
def test_a_bare_network_as_the_conditioner(gated, assert_close):
    made = made_of()
    x = normal(3, 5)
    how = {"bijector_fn": fvb.GatedUpdate(made)} if gated else {"shift_and_log_scale_fn": made}
    ours, theirs = (
        kind(**how) for kind in (fvb.ParallelMaskedAutoregressiveFlow, tfb.MaskedAutoregressiveFlow)
    )
    assert int(ours.num_passes(x)) == 1
    assert_close(ours.forward(x), lambda x: theirs.forward(tf.identity(x)), made, x)


def test_inside_a_layer_of_mixed_precision(mixed_bfloat16):
    made = made_of(dtype="float32")
    x = normal(3, 5, dtype="float32")

    class Caller(keras.layers.Layer):
        def call(self, x):
            return made.solve_in_order(tf.cast(x, tf.float32), affine)

    got = Caller()(tf.cast(x, tf.bfloat16))
    wanted = made.solve_in_order(tf.cast(tf.cast(x, tf.bfloat16), tf.float32), affine)
    np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("context", [False, True])
def test_the_degrees_are_sorted_and_those_of_the_masks(context):
    for size in (3, 20, 24):
        degrees = hidden_degrees(7, size, context)
        assert (np.diff(degrees) >= 0).all()
        into_first = autoregressive_masks(7, (size,), 2, context, False)[0]
        np.testing.assert_array_equal(into_first.sum(axis=0), degrees)


def test_refusals():
    with pytest.raises(ValueError, match=r"built for no context\. Received: context=<tf"):
        made_of().solve_in_order(normal(2, 5), affine, normal(2, CONTEXT))
    with pytest.raises(ValueError, match=r"built for a context\. Received: context=None"):
        made_of(context=True).solve_in_order(normal(2, 5), affine)
    with pytest.raises(ValueError, match=r"\[\.\.\., 5\].*Received: shape \(2, 4\)"):
        made_of().solve_in_order(normal(2, 4), affine)
