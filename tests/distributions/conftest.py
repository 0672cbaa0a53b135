from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

# How often a number is rounded in a small flow over a base: four layers, each of which may have
# two sums of 16 products one after the other and some 20 functions of their results.
ROUNDINGS = 4 * (2 * 16 + 20)


@pytest.fixture
def assert_same(one_eps, assert_within):
    """`assert_same(got, fn, layer, *arguments)`: got is what fn returns, but for rounding.

    Arguments that are None are left out.
    """

    def check(got, fn, layer, *arguments):
        arguments = tuple(value for value in arguments if value is not None)
        unit = one_eps(lambda given: fn(*given), arguments, layer)
        assert_within(got, fn(*arguments), unit, ROUNDINGS)

    return check


@pytest.fixture
def integral():
    """`integral(log_density)`: over [-9, 9]^2 by a grid, `[...]`, and five times its error.

    That of a smooth function which has died out at the border shrinks faster than any power of the
    grid's step, so twice the step errs by more. log_density maps points `[N, 2]` to `[N, ...]`.
    """

    def evaluate(log_density):
        axis = np.linspace(-9, 9, 181, dtype=np.float32)
        grid = np.stack(np.meshgrid(axis, axis), axis=-1)
        found = log_density(tf.constant(grid.reshape(-1, 2)))
        density = np.exp(np.asarray(found, np.float64))
        fine = density.sum(axis=0) * 0.1**2
        coarse = density.reshape(181, 181, *density.shape[1:])[::2, ::2].sum(axis=(0, 1)) * 0.2**2
        # A density errs by the rounding of its logarithm: at most 100 where it counts.
        return fine, np.abs(fine - coarse) + ROUNDINGS * np.finfo(np.float32).eps * 100

    return evaluate


@pytest.fixture(autouse=True)
def _same_draws():
    keras.utils.set_random_seed(0)
