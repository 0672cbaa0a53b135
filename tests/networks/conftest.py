from __future__ import annotations

import math

import keras
import numpy as np
import pytest


@pytest.fixture(autouse=True)
def _same_draws():
    keras.utils.set_random_seed(0)


@pytest.fixture
def roundings():
    """`roundings(*layers)`: the n of `assert_within` for two ways to run layers after each other.

    A layer adds up f products: f roundings, which are independent and so come to sqrt(f) times
    what one rounding of every product does. A bias, a normalisation and an activation round some
    ten times more. Either way does all of that.
    """

    def count(*layers):
        kernels = [weight.shape for layer in layers for weight in layer.weights]
        # A transposed convolution has its outputs before its inputs: f is at most this.
        terms = [math.prod(shape) // min(shape[-2:]) for shape in kernels if len(shape) > 1]
        return 2 * sum(math.sqrt(f) + 10 for f in terms)

    return count


@pytest.fixture
def spread():
    """`spread(n, units, examples)`: five standard errors of the mean square of y = A x, of 1.

    A is `[units, n]` of variance 1 / n and x is `[n, examples]` of variance 1, both drawn.
    """
    return lambda n, units, examples: (
        5 * np.sqrt(2 / (n * units) + 2 / (units * examples) + 2 / (n * examples))
    )
