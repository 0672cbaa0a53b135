"""Tolerances that are eps times something: how far the numbers of a test may be off."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf


def _flat(results: Any) -> list[np.ndarray]:
    return [np.asarray(part) for part in tf.nest.flatten(results)]


@pytest.fixture
def one_eps():
    """`one_eps(fn, arguments)`: by how much rounding the arguments once changes what fn returns.

    Each number of the arguments, a nest of arrays or tensors, is changed by one eps up or down, at
    random and four times. The answer has a number for each flattened result of fn: the largest
    change in it, and not less than one eps of its own largest value. Two ways to compute fn that
    round each number some n times may differ by n of these.
    """

    def changes(fn: Callable[[Any], Any], arguments: Any) -> list[float]:
        rng = np.random.default_rng(0)

        def rounded(value: Any) -> tf.Tensor:
            value = np.asarray(value)
            if not np.issubdtype(value.dtype, np.floating):
                return tf.constant(value)
            eps = np.finfo(value.dtype).eps
            moved = value * (1.0 + eps * rng.choice([-1.0, 1.0], size=value.shape))
            return tf.constant(moved.astype(value.dtype))

        there = _flat(fn(tf.nest.map_structure(lambda v: tf.constant(np.asarray(v)), arguments)))
        found = [np.finfo(part.dtype).eps * np.max(np.abs(part), initial=0.0) for part in there]
        for _ in range(4):
            moved = _flat(fn(tf.nest.map_structure(rounded, arguments)))
            changed = (
                np.max(np.abs(a - b), initial=0.0) for a, b in zip(moved, there, strict=True)
            )
            found = [max(old, float(new)) for old, new in zip(found, changed, strict=True)]
        return found

    return changes


@pytest.fixture
def assert_within():
    """`assert_within(got, wanted, unit, n)`: each part of a nest is right to n of its units."""

    def check(got: Any, wanted: Any, unit: list[float], n: float) -> None:
        for ours, theirs, one in zip(_flat(got), _flat(wanted), unit, strict=True):
            assert ours.dtype == theirs.dtype
            np.testing.assert_allclose(ours, theirs, rtol=0.0, atol=n * one)

    return check


@pytest.fixture
def log_det_of():
    """`log_det_of(jacobian)`: its log|det|, `[...]`, and what one eps in each entry changes in it.

    To first order that is at most sum_ij |J^-1_ji J_ij| eps. The elimination rounds each entry D
    times, and a Jacobian that comes from automatic differentiation some tens of times.
    """

    def evaluate(jacobian: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        jacobian = np.asarray(jacobian)
        inverse = np.linalg.inv(jacobian)
        unit = np.sum(np.abs(np.swapaxes(inverse, -1, -2) * jacobian), axis=(-2, -1))
        return np.linalg.slogdet(jacobian)[1], np.finfo(jacobian.dtype).eps * unit

    return evaluate
