from __future__ import annotations

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfp_flowvae.errors import UserError
from tfp_flowvae.flows import FLOWS, make_flow
from tfp_flowvae.flows.spec import check_event_size, parse_stack
from tfp_flowvae.flows.stack import Stack

SPEC = "householder:3+iaf:1,hidden=8x6,activation=tanh+planar:2"


def test_builds_what_the_spec_says():
    stack = make_flow(SPEC, event_size=4, context_size=3)
    assert stack.built
    assert isinstance(stack, Stack)
    assert [type(flow) for flow in stack.flows] == [
        FLOWS[name].load() for name in ("householder", "iaf", "planar")
    ]
    householder, iaf, planar = (flow.get_config() for flow in stack.flows)
    assert householder["length"] == 3
    assert (iaf["length"], iaf["hidden"], iaf["activation"]) == (1, (8, 6), "tanh")
    assert planar["length"] == 2
    for flow in (stack, *stack.flows):
        assert (flow.event_size, flow.context_size) == (4, 3)


@pytest.mark.parametrize("name", [name for name, e in FLOWS.items() if "length" in e.options])
def test_default_length_is_the_registrys(name):
    assert str(make_flow(name, 4).flows[0].length) == FLOWS[name].options["length"].default
    assert make_flow(f"{name}:1", 4).flows[0].length == 1


def test_the_first_flow_acts_on_the_base_sample_first(stir, roundings, assert_same):
    stack = stir(make_flow("planar:2+radial:3+householder:1", 4))
    z = tf.random.normal([5, 4])

    def one_by_one(z):
        y, total = z, tf.zeros(5)
        for flow in stack.flows:
            y, log_det = flow(y)
            total += log_det
        return y, total

    y = one_by_one(z)[0]
    assert_same(stack(z), one_by_one, stack, z)
    bijector = stack.bijector()
    assert_same(bijector.forward(tf.identity(z)), lambda z: one_by_one(z)[0], stack, z)
    back = bijector.inverse(tf.identity(y))
    (unit,) = assert_same(back, lambda y: stack.bijector().inverse(tf.identity(y)), stack, y)
    np.testing.assert_allclose(back, z, rtol=0, atol=2 * roundings * unit)
    # Which the other order does not give: the flows do not commute.
    other = Stack(stack.flows[::-1], event_size=4)
    assert np.max(np.abs(other(z)[0] - y)) > 0.01


@pytest.mark.parametrize("name", [n for n in FLOWS if n not in ("none", "affine", "permute")])
def test_at_its_default_length_every_output_depends_on_every_input(name, stirred_flow):
    """So the orders and the masks do alternate."""
    entry = FLOWS[name]
    options = {}
    if "length" in entry.options:
        options["length"] = int(entry.options["length"].default)
    layer = stirred_flow(name, None, **options)
    z = tf.random.normal([1, 4], dtype=tf.float64)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(z)
        outputs = tf.unstack(layer(z)[0], axis=-1)
    for y in outputs:
        assert np.min(np.abs(tape.gradient(y, z))) > 1e-12


def test_none_is_the_identity_with_no_weights():
    stack = make_flow("none", 4, context_size=3)
    assert stack.weights == []
    z = tf.random.normal([2, 5, 4])
    y, log_det = stack(z, tf.zeros([5, 3]))
    np.testing.assert_array_equal(y, z)
    np.testing.assert_array_equal(log_det, np.zeros((2, 5)))


@pytest.mark.parametrize("context_size", [None, 3])
def test_a_stack_is_a_flow_and_comes_back_from_its_config(context_size, stir):
    stack = stir(make_flow(SPEC, 4, context_size))
    outer = Stack([stack, *make_flow("none", 4, context_size).flows], event_size=4,
                      context_size=context_size)  # fmt: skip
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(outer)))
    again = keras.saving.deserialize_keras_object(config)
    z = tf.random.normal([5, 4])
    context = None if context_size is None else tf.random.normal([5, context_size])
    again(z, context)
    again.set_weights(outer.get_weights())
    for mine, theirs in zip(again(z, context), stack(z, context), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("name", FLOWS)
def test_a_size_that_a_flow_cannot_take_is_refused(name):
    smallest = FLOWS[name].smallest_event
    check_event_size(parse_stack(name), smallest)
    if smallest > 1:
        message = f"{name!r} needs a latent size of at least {smallest}.*Received: a latent size of"
        for spec in (name, f"householder+{name}"):
            with pytest.raises(UserError, match=f"{message} {smallest - 1}"):
                make_flow(spec, smallest - 1)


@pytest.mark.parametrize("name", [name for name, e in FLOWS.items() if e.largest_event])
def test_a_size_beyond_a_flows_largest_is_refused(name):
    largest = FLOWS[name].largest_event
    check_event_size(parse_stack(name), largest)
    message = f"{name!r} takes a latent size of at most {largest}.*Received: a latent size of"
    with pytest.raises(UserError, match=f"{message} {largest + 1}"):
        make_flow(f"householder+{name}", largest + 1)
    with pytest.raises(ValueError, match=f"at most {largest}.*Received: event_size={largest + 1}"):
        FLOWS[name].load()(event_size=largest + 1).build()


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        ("sylvester:width=5", "width must be at most the latent size, not 5"),
        ("sylvester:kind=triangular,width=4", "as wide as the latent size, so leave width out"),
        ("sylvester:reflections=4", "kind=orthogonal has no reflections"),
        ("permute:order=reverse,seed=1", "order=reverse is not drawn, so leave seed out"),
    ],
)
def test_options_that_do_not_go_together_are_refused(spec, complaint):
    with pytest.raises(UserError) as caught:
        make_flow(f"planar+{spec}", 4)
    message = str(caught.value)
    assert message.startswith(f"The flow {spec!r} cannot be made: ")
    assert complaint in message
    assert message.endswith(". Received: a latent size of 4.")


def test_works_at_its_smallest_size(name, context_size, stir, roundings, assert_same):
    size = FLOWS[name].smallest_event
    hidden = {"hidden": (8,)} if "hidden" in FLOWS[name].options else {}
    sizes = {"event_size": size, "context_size": context_size}
    layer = FLOWS[name].load()(**sizes, dtype="float64", **hidden)
    layer.build()
    stir(layer, 0.1)
    z = tf.random.normal([5, size], dtype=tf.float64)
    context = None if context_size is None else tf.random.normal([5, 3], dtype=tf.float64)
    y, log_det = layer(z, context)

    def inverse(y, context=None):
        return layer.bijector(context).inverse(tf.identity(y))

    # At its default length, up to five times that of a small flow.
    n = 5 * roundings
    (unit,) = assert_same(inverse(y, context), inverse, layer, y, context, n=n)
    np.testing.assert_allclose(inverse(y, context), z, rtol=0, atol=2 * n * unit)
    assert np.all(np.isfinite(log_det))


@pytest.mark.parametrize("name", FLOWS)
def test_a_wrong_context_is_refused_with_its_shape(name):
    own, amortised = make_flow(name, 4), make_flow(name, 4, context_size=3)
    with pytest.raises(ValueError, match=r"context: none\. Received: one of shape \(5, 3\)"):
        own.bijector(tf.zeros([5, 3]))
    with pytest.raises(ValueError, match=r"context: one of size 3\. Received: none"):
        amortised.bijector()
    with pytest.raises(ValueError, match=r"context: one of size 3\. Received: one of shape \(5, 2"):
        amortised.bijector(tf.zeros([5, 2]))


def test_a_stack_refuses_flows_of_other_sizes():
    flow = make_flow("planar", 4, context_size=3)
    for sizes in ({"event_size": 5, "context_size": 3}, {"event_size": 4}):
        with pytest.raises(ValueError, match=r"Received: .* event_size=4, context_size=3"):
            Stack([flow], **sizes).build()


@pytest.mark.parametrize("name", [name for name, e in FLOWS.items() if "length" in e.options])
def test_a_length_below_one_is_refused_in_python_too(name):
    with pytest.raises(ValueError, match=r"length must be at least 1\. Received: length=0"):
        FLOWS[name].load()(event_size=4, length=0)


@pytest.mark.parametrize("sizes", [{"event_size": 0}, {"event_size": 4, "context_size": 0}])
def test_sizes_below_one_are_refused(sizes):
    with pytest.raises(ValueError, match=r"must be at least 1.*Received: event_size="):
        FLOWS["planar"].load()(**sizes)
