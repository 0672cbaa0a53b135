from __future__ import annotations

import keras
import pytest
import tensorflow as tf


@pytest.fixture
def assert_same(one_eps, assert_within):
    """`assert_same(got, fn, output)`: got is fn(output) of a decoder's output, but for rounding.

    The roundings are those of 40 functions of the output, the sum over up to 108 pixels and
    channels among them, whose roundings are independent. Returns how far one rounding of the output
    moves the results.
    """

    def check(got, fn, output, n=40):
        unit = one_eps(fn, output)
        assert_within(got, fn(tf.constant(output)), unit, n)
        return unit

    return check


@pytest.fixture(autouse=True)
def _same_draws():
    keras.utils.set_random_seed(0)
