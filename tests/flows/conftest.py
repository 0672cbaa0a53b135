from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfp_flowvae.flows import FLOWS

D, B, C = 4, 5, 3  # the small flow's event, the batch, the context
# How many roundings there are on the way through a small flow: two layers, each of which may have
# two sums of 16 products one after the other, and some 20 functions of their results.
ROUNDINGS = 2 * (2 * 16 + 20)


def pytest_generate_tests(metafunc):
    """Runs a test that takes `name` and `context_size` on every flow, with a context and without.

    One of the two is marked slow, by turns from flow to flow and from test to test. A test with
    parameters of its own is left alone.
    """
    if not {"name", "context_size"} <= set(metafunc.fixturenames):
        return
    if metafunc.definition.get_closest_marker("parametrize"):
        return
    offset = sum(map(ord, metafunc.function.__name__))
    cases = []
    for i, name in enumerate(FLOWS):
        for j, size in enumerate((None, C)):
            marks = [pytest.mark.slow] if (i + j + offset) % 2 else []
            label = f"{name}-{'amortised' if size else 'own'}"
            cases.append(pytest.param(name, size, id=label, marks=marks))
    metafunc.parametrize(("name", "context_size"), cases)


@pytest.fixture
def within(rounding):
    """The tolerance of what a small flow computes: a function of the values, see `rounding`.

    `condition` is how much a small relative change of what goes in can grow on its way.
    """
    return lambda *values, condition=1.0: rounding(ROUNDINGS * condition, *values)


@pytest.fixture
def roundings():
    """How often a number is rounded on its way through a small flow."""
    return ROUNDINGS


@pytest.fixture
def near_identity():
    """The tolerance for a fresh amortised flow at z: five standard deviations of what it adds.

    A context c moves each parameter by a normal number of standard deviation 0.01 rms(c), and an
    entry of two layers' output is made of up to 2 (D + 1) parameters, times z or 1.
    """

    def tolerance(z, context):
        rms = np.sqrt(np.mean(np.square(context), axis=-1)).max()
        largest = max(1.0, np.abs(z).max())
        return {"rtol": 0, "atol": 5 * 0.01 * rms * np.sqrt(2 * (z.shape[-1] + 1)) * largest}

    return tolerance


@pytest.fixture
def assert_same(one_eps, assert_within):
    """`assert_same(got, fn, layer, *arguments)`: got is what fn returns, but for rounding.

    `n` is how often a number is rounded on its way through fn. Arguments that are None are left
    out. Returns how far one rounding of the arguments and the layer's weights moves the results.
    """

    def check(got, fn, layer, *arguments, n=ROUNDINGS, message=""):
        arguments = tuple(value for value in arguments if value is not None)
        unit = one_eps(lambda given: fn(*given), arguments, layer)
        assert_within(got, fn(*arguments), unit, n, message)
        return unit

    return check


@pytest.fixture(autouse=True)
def _same_draws():
    keras.utils.set_random_seed(0)


@pytest.fixture
def small_flow():
    """A function that builds a small flow of its registered class, of size D."""

    def make(name, context_size, dtype="float64", **options):
        entry = FLOWS[name]
        small = {"length": 2, "hidden": (16,), "bins": 4, "width": 3}
        options = {k: v for k, v in small.items() if k in entry.options} | options
        layer = entry.load()(event_size=D, context_size=context_size, dtype=dtype, **options)
        layer.build()
        return layer

    return make


@pytest.fixture
def stirred_flow(small_flow, stir):
    """A function that builds a small flow whose weights are away from their start.

    Those of a spline not as far, or its slopes would be those of a step, at which no two dtypes
    agree.
    """

    def make(name, context_size, dtype="float64", **options):
        scale = 0.1 if "bins" in FLOWS[name].options else 0.3
        return stir(small_flow(name, context_size, dtype, **options), scale)

    return make


@pytest.fixture
def inputs():
    """A function that draws points `[B, D]` and, if there is to be one, a context `[B, C]`."""

    def draw(context_size, dtype="float64"):
        rng = np.random.default_rng(1)
        z = tf.constant(rng.normal(size=(B, D)), dtype)
        context = tf.constant(rng.normal(size=(B, C)), dtype)
        return z, None if context_size is None else context

    return draw
