from __future__ import annotations

import keras
import numpy as np
import pytest


@pytest.fixture(autouse=True)
def _same_draws():
    keras.utils.set_random_seed(0)


@pytest.fixture
def mixed_bfloat16():
    previous = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    yield
    keras.config.set_dtype_policy(previous)


@pytest.fixture
def stir():
    """A function that moves every weight of a layer away from its start."""

    def move(layer, scale=0.3, seed=0):
        rng = np.random.default_rng(seed)
        for weight in layer.trainable_weights:
            weight.assign_add((scale * rng.normal(size=weight.shape)).astype(weight.dtype))
        return layer

    return move
