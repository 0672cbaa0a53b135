"""Couplings over any mask, against autodiff Jacobians, TFP's RealNVP, and a count of calls."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_probability import bijectors as tfb
from tensorflow_probability import distributions as tfd

from tfp_flowvae import bijectors as fvb
from tfp_flowvae.testing import check_bijector

# A number is rounded in a sum of up to D terms and in ten operations or so, there and back.
ROUNDINGS = 2 * (5 + 10)
MASKS = {
    "half": fvb.half_mask(5),
    "other half": fvb.half_mask(5, reverse=True),
    "alternating": fvb.alternating_mask(5),
    "reversed": fvb.alternating_mask(5, reverse=True),
    "irregular": np.array([True, True, False, True, False]),
    "one kept": np.array([False, False, True, False, False]),
}


class Network(tf.Module):
    """A nonlinear map from the kept entries to `outputs` times `[..., units]`, counting calls."""

    def __init__(self, kept: int, units: int, outputs: int = 2, dtype: tf.DType = tf.float64):
        super().__init__()
        rng = np.random.default_rng(kept)
        self.kernel = tf.Variable(0.7 * rng.normal(size=(kept, outputs * units)), dtype=dtype)
        self.outputs, self.calls = outputs, 0

    def __call__(self, kept: tf.Tensor, units: int) -> tf.Tensor:
        self.calls += 1
        out = tf.sin(tf.einsum("...i,ij->...j", kept, self.kernel) + 0.3)
        assert out.shape[-1] == self.outputs * units
        parts = tf.split(out, self.outputs, axis=-1)
        return parts if self.outputs > 1 else parts[0]


def network(mask: np.ndarray, outputs: int = 2) -> Network:
    return Network(int(mask.sum()), int((~mask).sum()), outputs)


def points(*shape: int, seed: int = 0) -> tf.Tensor:
    return tf.constant(np.random.default_rng(seed).normal(size=shape))


def softplus_scale(net: Network):
    """A bijector that is not affine: sinh-arcsinh with a conditioned skewness."""
    return lambda kept, units: tfb.SinhArcsinh(skewness=net(kept, units)[0], tailweight=1.2)


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("kind", ["affine", "additive", "general"])
def test_both_directions_against_autodiff(mask, kind, assert_log_dets, assert_round_trip):
    net = network(mask, 1 if kind == "additive" else 2)
    flow = {
        "affine": lambda: fvb.Coupling(mask, net),
        "additive": lambda: fvb.AdditiveCoupling(mask, net),
        "general": lambda: fvb.Coupling(mask, bijector_fn=softplus_scale(net)),
    }[kind]()
    x = points(4, 5)
    y, log_det = flow.forward_and_log_det(x)
    assert_round_trip(lambda _: flow, (), x, ROUNDINGS)
    assert_log_dets(flow, x, ROUNDINGS)
    np.testing.assert_array_equal(flow.forward_log_det_jacobian(tf.identity(x)), log_det)
    moved = np.any(y.numpy() != x.numpy(), axis=0)
    np.testing.assert_array_equal(moved, ~mask)
    if kind == "additive":
        np.testing.assert_array_equal(log_det, np.zeros(4))
        np.testing.assert_array_equal(flow.inverse_log_det_jacobian(y), np.zeros(4))


@pytest.mark.parametrize("reverse", [False, True])
def test_half_masks_agree_with_tfp(reverse, assert_same):
    mask = fvb.half_mask(5, reverse)
    net = network(mask)
    ours = fvb.Coupling(mask, net)
    theirs = tfb.RealNVP(num_masked=-3 if reverse else 2, shift_and_log_scale_fn=net)
    x = points(3, 5)
    assert_same(ours.forward, theirs.forward, x, ROUNDINGS)
    of_theirs = lambda y: theirs.inverse_log_det_jacobian(y, 1)  # noqa: E731
    assert_same(ours.inverse_log_det_jacobian, of_theirs, x, ROUNDINGS)


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "graph"])
def test_one_conditioner_call(compiled):
    mask = MASKS["irregular"]
    net = network(mask)
    chain = tfb.Chain([fvb.Coupling(mask, net), tfb.Invert(fvb.Coupling(mask, net))])
    x = points(2, 5)
    for evaluate in (fvb.forward_and_log_det, fvb.inverse_and_log_det):
        net.calls = 0
        function = tf.function(evaluate, autograph=False) if compiled else evaluate
        function(chain, x)
        assert net.calls == 2


def test_variables_and_gradients(assert_slope):
    mask = MASKS["alternating"]
    net = network(mask)
    flow = tfb.Chain([fvb.Coupling(mask, net), tfb.Scale(tf.constant(2.0, tf.float64))])
    base = tfd.MultivariateNormalDiag(tf.zeros(5, tf.float64))
    density = tfd.TransformedDistribution(base, flow)
    assert [v is net.kernel for v in density.trainable_variables] == [True]
    y = points(3, 5)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(density.log_prob(y))
    gradient, kernel = tape.gradient(loss, net.kernel).numpy(), net.kernel.numpy()
    direction = np.zeros_like(kernel)
    direction[1, 2] = 1.0

    def moved(step):
        net.kernel.assign(kernel + step * direction)
        return tf.reduce_sum(density.log_prob(tf.identity(y)))

    assert_slope(gradient[1, 2], moved, 3 * 5 * ROUNDINGS)  # a sum over points and entries


def test_a_context_adds_batch_dimensions(assert_round_trip):
    context = points(3, 1)
    flow = fvb.Coupling(fvb.half_mask(4), lambda kept, units: (kept * context, context + 0 * kept))
    x = points(4)
    y, log_det = flow.forward_and_log_det(x)
    assert y.shape == (3, 4)
    np.testing.assert_array_equal(log_det, 2 * context[:, 0])
    assert_round_trip(lambda _: flow, (), x, ROUNDINGS)
    additive = fvb.AdditiveCoupling(fvb.half_mask(4), lambda kept, units: kept + context)
    assert additive.forward_and_log_det(x)[1].shape == (3,)


@pytest.mark.parametrize("jit", [False, True], ids=["graph", "xla"])
def test_compiled(jit, assert_same):
    mask = MASKS["irregular"]
    flow = fvb.Coupling(mask, network(mask))
    compiled = tf.function(flow.forward_and_log_det, jit_compile=jit, autograph=False)
    x = points(2, 5)
    assert_same(compiled, flow.forward_and_log_det, x, ROUNDINGS)
    if not jit:
        unknown = tf.TensorSpec([None, None], tf.float64)
        traced = tf.function(flow.forward_and_log_det, input_signature=[unknown], autograph=False)
        assert_same(traced, flow.forward_and_log_det, x, ROUNDINGS)


def test_copy_keeps_what_it_is():
    mask = fvb.alternating_mask(4)
    shift = network(mask, 1)
    for flow in (fvb.Coupling(mask, network(mask)), fvb.AdditiveCoupling(mask, shift)):
        copy = flow.copy(name="copied")
        x = points(2, 4)
        np.testing.assert_array_equal(copy.forward(x), flow.forward(tf.identity(x)))
        np.testing.assert_array_equal(copy.mask, mask)


def test_masks():
    np.testing.assert_array_equal(fvb.half_mask(5), [True, True, False, False, False])
    np.testing.assert_array_equal(fvb.half_mask(5, reverse=True), ~fvb.half_mask(5))
    np.testing.assert_array_equal(fvb.alternating_mask(3), [True, False, True])
    np.testing.assert_array_equal(fvb.alternating_mask(3, reverse=True), [False, True, False])


def identity(kept: tf.Tensor, units: int) -> tuple[tf.Tensor, None]:
    return kept, None


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: fvb.half_mask(1), ValueError, "D=1"),
        (lambda: fvb.alternating_mask(0), ValueError, "D=0"),
        (lambda: fvb.Coupling([True, True], identity), ValueError, "2 of 2 kept"),
        (lambda: fvb.Coupling([False, False], identity), ValueError, "0 of 2 kept"),
        (lambda: fvb.Coupling([[True, False]], identity), ValueError, r"\(1, 2\)"),
        (lambda: fvb.Coupling([1, 0], identity), TypeError, "int"),
        (lambda: fvb.Coupling([True, False]), ValueError, "exactly one"),
        (lambda: fvb.Coupling([True, False], identity, identity), ValueError, "exactly one"),
        (lambda: fvb.Coupling([True, False], 3.0), TypeError, "3.0"),
        (lambda: fvb.AdditiveCoupling([True, False], None), ValueError, "exactly one"),
    ],
)
def test_bad_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_bad_points():
    flow = fvb.Coupling(fvb.half_mask(4), identity, validate_args=True)
    with pytest.raises(ValueError, match=r"\(2, 3\)"):
        flow.forward(tf.zeros([2, 3]))
    with pytest.raises(TypeError, match="int32"):
        flow.forward(tf.zeros([2, 4], tf.int32))
    with pytest.raises(tf.errors.InvalidArgumentError, match="finite"):
        flow.forward([1.0, 2.0, float("nan"), 4.0])


def test_bad_conditioner():
    too_wide = fvb.Coupling([False, True, True], lambda kept, units: (kept, None))
    with pytest.raises(
        ValueError, match=r"last dimension is 1. Received: a result of shape \(2,\)"
    ):
        too_wide.forward(tf.zeros([3]))
    matrix = fvb.Coupling(fvb.half_mask(4), bijector_fn=lambda kept, units: tfb.FillTriangular())
    with pytest.raises(ValueError, match="min_event_ndims"):
        matrix.forward(tf.zeros([4]))


@pytest.mark.parametrize("additive", [False, True])
def test_every_property(additive):
    mask = fvb.alternating_mask(3)
    kind = fvb.AdditiveCoupling if additive else fvb.Coupling
    flow = kind(mask, network(mask, 1 if additive else 2))
    check_bijector(flow, points(3, 3), skip=("saved_model",) if additive else ())
