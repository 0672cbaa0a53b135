"""FlowDensity as a density: integrals, samples, units, tails, and every flow that it takes."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from scipy import stats

import tfp_flowvae as fv
from tfp_flowvae.distributions import Normal
from tfp_flowvae.flows import FLOWS

tfb, tfd = tfp.bijectors, tfp.distributions

EPS = float(np.finfo(np.float32).eps)
FAST = [name for name, entry in FLOWS.items() if entry.fast_density]
BOUNDS = {"none": None, "both": (-1.0, 4.0), "low": (-1.0, None), "high": (None, 4.0)}
TRACED = ("test_a_thousand", "test_seeds")
INFINITE = 40.0  # where a density without a bound has nothing left


@pytest.fixture(autouse=True)
def _eager(request):
    """Runs samplers eagerly: tracing them takes seconds, and only large sizes gain by it."""
    tf.config.run_functions_eagerly(not request.function.__name__.startswith(TRACED))
    yield
    tf.config.run_functions_eagerly(False)


def _data(size, count=500):
    """Rows in (-1, 4), `[N, size]`."""
    return np.random.default_rng(0).beta(2, 3, (count, size)).astype(np.float32) * 4.9 - 0.95


def _density(flow, size, stir, **how):
    density = fv.FlowDensity(flow, event_size=size, seed=0, **how)
    if density.context_size is None and density.standardize:
        density.adapt(_data(size))
    return stir(density)


def _nodes(low, high, count):
    """Gauss and Legendre's nodes and weights on panels that are short near the ends."""
    ends = low + (high - low) * 0.5 * (1 - np.cos(np.linspace(0, np.pi, count + 1)))
    nodes, weights = np.polynomial.legendre.leggauss(8)
    half = np.diff(ends)[:, np.newaxis] / 2
    return (ends[:-1, np.newaxis] + half * (1 + nodes)).ravel(), (half * weights).ravel()


def _integral(density, bounds, size, panels):
    """The integral of the density, and by how much float32 may have put it wrong."""
    low, high = bounds or (None, None)
    low, high = (-INFINITE if low is None else low), (INFINITE if high is None else high)
    axis, weights = _nodes(low, high, panels)
    x = np.stack(np.meshgrid(*[axis] * size, indexing="ij"), axis=-1).reshape(-1, size)
    weight = np.ones([1])
    for _ in range(size):
        weight = np.outer(weight, weights).ravel()
    inside = np.all((x > low) & (x < high), axis=-1)
    log_prob = density.log_prob(x[inside]).numpy().astype(np.float64)
    mass = np.exp(log_prob) * weight[inside]
    # Two layers, standardisation and bounds: 32 roundings of the terms of log p, which are of the
    # size of log p and 10.
    return mass.sum(), 32 * EPS * np.sum(mass * (10 + np.abs(log_prob)))


@pytest.mark.parametrize("standardize", [True, False])
@pytest.mark.parametrize("bounds", BOUNDS.values(), ids=BOUNDS)
@pytest.mark.parametrize(
    ("flow", "size"), [("spline-maf:2,hidden=8", 1), ("realnvp:2,hidden=8", 2)]
)
def test_integrates_to_one(flow, size, bounds, standardize, stir):
    density = _density(flow, size, stir, bounds=bounds, standardize=standardize)
    panels = {1: 400, 2: 48}[size]
    (rough, _), (fine, rounding) = (
        _integral(density, bounds, size, number) for number in (panels // 2, panels)
    )
    assert abs(rough - fine) < 0.01  # the quadrature resolves the density
    assert abs(fine - 1.0) <= abs(rough - fine) + rounding


@pytest.mark.parametrize("bounds", BOUNDS.values(), ids=BOUNDS)
def test_samples_follow_the_density_in_one_dimension(bounds, stir):
    density = _density("spline-maf:2,hidden=8", 1, stir, bounds=bounds)
    x, log_prob = density.sample_and_log_prob(4000, seed=1)
    np.testing.assert_array_equal(density.sample(4000, seed=1), x)
    low, high = bounds or (None, None)
    low, high = (-np.inf if low is None else low), (np.inf if high is None else high)
    assert np.all((x > low) & (x < high))
    # There and back through a spline: 32 roundings of x, which counts as the density is steep.
    assert np.quantile(np.abs(density.log_prob(x) - log_prob), 0.99) < 1e3 * EPS
    ends = max(low, -INFINITE), min(high, INFINITE)
    axis, weights = _nodes(*ends, 400)
    inside = (axis > low) & (axis < high)
    mass = np.exp(density.log_prob(axis[inside, np.newaxis])) * weights[inside]
    cdf = np.interp(np.sort(x[:, 0]), axis[inside], np.cumsum(mass) - mass / 2)
    distance = np.max(np.abs(cdf - (np.arange(4000) + 0.5) / 4000))
    # Kolmogorov's statistic is larger with a probability of 2 exp(-2 n d^2) = 1e-6.
    assert distance < np.sqrt(np.log(2e6) / 2 / 4000)


def test_samples_follow_the_density_in_two_dimensions(stir):
    density = _density("realnvp:2,hidden=8", 2, stir)
    x, log_prob = density.sample_and_log_prob(20_000, seed=1)
    # E_p[q(x) / p(x)] = 1 for any density q whose tails are lighter than p's.
    q = stats.multivariate_normal(np.mean(x, axis=0), 0.5 * np.cov(x.numpy().T))
    ratio = np.exp(q.logpdf(x) - log_prob)
    assert abs(ratio.mean() - 1) < 5 * ratio.std() / np.sqrt(len(ratio))


def test_densities_are_in_the_units_of_the_data(stir):
    """p(a x + b) = p(x) / |a|, bounds included."""
    a, b = np.float32([1000.0, 0.01]), np.float32([-5e3, 3.0])
    x = _data(2)
    bounds = ([-1.0, None], [4.0, 4.0])
    moved = ([a[0] * -1.0 + b[0], None], (a * 4.0 + b).tolist())
    first, second = (
        fv.FlowDensity("realnvp:2,hidden=8", event_size=2, bounds=limits)
        for limits in (bounds, moved)
    )
    first.adapt(x)
    second.adapt(a * x + b)
    stir(first.layer.flow.flows[0])
    for weight, other in zip(second.trainable_weights, first.trainable_weights, strict=True):
        weight.assign(other)
    difference = second.log_prob(a * x + b) - first.log_prob(x) + np.log(a).sum()
    # a x + b loses digits where b is large: 300 eps of a standard deviation in the second column,
    # where 3 is 300 times 0.01. Near the upper bound the density is steeper than that: 90 % count.
    assert np.quantile(np.abs(difference), 0.9) < 10 * 300 * EPS


def test_log_prob_outside_the_bounds_is_minus_infinity(stir):
    density = _density("maf:1,hidden=8", 2, stir, bounds=([0, None], [1, 2]), standardize=False)
    log_prob = density.log_prob([[0.5, 0.0], [-0.1, 0.0], [1.0, 0.0], [0.5, 2.0], [0.5, -9.0]])
    np.testing.assert_array_equal(np.isfinite(log_prob), [True, False, False, False, True])
    assert np.all(log_prob[1:4] == -np.inf)


@pytest.mark.parametrize("flow", ["spline:2,hidden=8,bins=4", "spline-maf:2,hidden=8,bins=4"])
def test_splines_have_the_tails_of_the_base(flow, stir):
    density = _density(flow, 2, stir)
    mean, deviation = _data(2).mean(axis=0), _data(2).std(axis=0)
    far = np.float32([[9, 9], [-30, 30], [50, -5]])
    with tf.GradientTape() as tape:
        x = tf.constant(mean + deviation * far)
        tape.watch(x)
        log_prob = density.log_prob(x)
    truth = stats.norm.logpdf(far).sum(axis=-1) - np.log(deviation).sum()
    # (x - mean) / scale errs by eps times 50 or so, squared, and the sum has the size of log p.
    np.testing.assert_allclose(log_prob, truth, rtol=32 * EPS)
    assert np.all(np.isfinite(tape.gradient(log_prob, x)))


@pytest.mark.parametrize("name", FAST)
def test_takes_every_flow_with_a_fast_density(name, small_spec, stir):
    size = max(2, FLOWS[name].smallest_event)
    for context_size in (None, 3):
        density = _density(small_spec(name), size, stir, context_size=context_size)
        context = None if context_size is None else tf.ones([4, 3])
        x, log_prob = density.sample_and_log_prob(5, context, seed=0)
        assert x.shape == ((5, 2) if context is None else (5, 4, 2))
        # A numerical inverse is exact to some hundred eps, where the density is not steep.
        np.testing.assert_allclose(density.log_prob(x, context), log_prob, atol=1e4 * EPS)
        assert density.distribution(context).batch_shape == ([] if context is None else [4])


@pytest.mark.parametrize("name", [n for n in FAST if FLOWS[n].smallest_event == 1])
def test_one_dimension(name, small_spec, stir):
    density = _density(small_spec(name), 1, stir)
    assert np.all(np.isfinite(density.log_prob(density.sample(7, seed=0))))


def test_a_thousand_dimensions(stir):
    density = fv.FlowDensity("maf:2,hidden=64", event_size=1000, seed=0)
    density.adapt(_data(1000))
    x = density.sample(3, seed=0)
    assert x.shape == (3, 1000)
    # The flow starts as the identity.
    deviation, mean = _data(1000).std(axis=0), _data(1000).mean(axis=0)
    truth = stats.norm.logpdf(x, mean, deviation).sum(axis=-1)
    np.testing.assert_allclose(density.log_prob(x), truth, rtol=1000 * EPS)


def test_takes_parts_of_ones_own(stir):
    scale = tf.Variable([1.0, 2.0], name="scale")
    bijector = tfb.Scale(scale)
    base = tfd.Independent(tfd.StudentT(tf.Variable([5.0, 5.0], name="df"), 0.0, 1.0), 1)
    stack = fv.flows.Stack([fv.flows.LU(), fv.flows.MAF(1, hidden=(8,))])
    for flow, how, weights in (
        (bijector, {}, 1),
        (bijector, {"base": base}, 2),
        (base, {}, 1),
        (stack, {"base": Normal()}, None),
        (fv.FlowDistribution("maf:1,hidden=8", "mixture:3"), {}, None),
        ("mixture:3+maf:1,hidden=8", {}, None),
        (fv.flows.MAF(1, hidden=(8,), event_size=2), {"event_size": None}, None),
    ):
        density = fv.FlowDensity(flow, **{"event_size": 2, **how})
        assert density.event_size == 2
        assert weights in (None, len(density.trainable_weights))
        assert density.log_prob(np.zeros((5, 2))).shape == (5,)
    live = fv.FlowDensity(bijector, event_size=2).distribution().trainable_variables
    assert [id(v) for v in live] == [id(scale)]


def test_shapes_and_slices_of_a_conditional_density(stir):
    density = _density("maf:1,hidden=8", 2, stir, context_size=3)
    context = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    x = density.sample(5, context, seed=1)
    whole = density.log_prob(x, context)
    assert (x.shape, whole.shape) == ((5, 4, 2), (5, 4))
    np.testing.assert_array_equal(density.log_prob(x[0], context), whole[0])
    one = density.distribution(context)[2]
    assert (one.batch_shape, one.event_shape) == ([], [2])
    np.testing.assert_allclose(one.log_prob(x[:, 2]), whole[:, 2], rtol=32 * EPS)
    assert density.sample(0, context).shape == (0, 4, 2)
    assert density.log_prob(np.zeros((0, 2)), np.zeros((0, 3))).shape == (0,)


def test_seeds_decide_samples(stir):
    density = _density("maf:1,hidden=8", 2, stir)
    first = density.sample(5, seed=3)
    np.testing.assert_array_equal(first, density.sample(5, seed=[3, 0]))
    np.testing.assert_array_equal(first, density.sample_and_log_prob(5, seed=3)[0])
    assert np.all(density.sample(5, seed=3) != density.sample(5, seed=4))
    assert np.all(density.sample(5) != density.sample(5))
