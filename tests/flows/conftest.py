from __future__ import annotations

import keras
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
