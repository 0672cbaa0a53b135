from __future__ import annotations

import keras
import pytest


@pytest.fixture(autouse=True)
def _same_draws():
    keras.utils.set_random_seed(0)
