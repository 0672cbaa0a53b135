"""Tolerances that are eps times something: how far the numbers of a test may be off."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tfp_flowvae import bijectors as fvb


def _flat(results: Any) -> list[np.ndarray]:
    return [np.asarray(part) for part in tf.nest.flatten(results)]


@pytest.fixture
def assert_same(one_eps, assert_within):
    """`assert_same(ours, theirs, arguments, n)`: two ways to compute one function, to n roundings.

    Both take the arguments, whose numbers each of them rounds at most some n times before they have
    their effect; `one_eps` says what that changes.
    """

    def check(ours: Any, theirs: Any, arguments: Any, n: float) -> None:
        assert_within(ours(arguments), theirs(arguments), one_eps(theirs, arguments, rounds=4), n)

    return check


@pytest.fixture
def assert_round_trip(one_eps, assert_within):
    """`assert_round_trip(make, parameters, x, n)`: x comes back, and the log-dets are opposite.

    The forward map and the inverse round the parameters and y at most some n times together, and
    `one_eps` of the inverse says what that changes in x. `make` takes the parameters.
    """

    def check(make: Callable[[Any], Any], parameters: Any, x: Any, n: float) -> None:
        y, log_det = fvb.forward_and_log_det(make(parameters), x)
        inverse = lambda given: fvb.inverse_and_log_det(make(given[0]), given[1])  # noqa: E731
        wanted = (np.broadcast_to(x, y.shape), -np.broadcast_to(log_det, y.shape[:-1]))
        back, inverse_log_det = inverse((parameters, tf.identity(y)))
        found = (back, np.broadcast_to(inverse_log_det, y.shape[:-1]))
        assert_within(found, wanted, one_eps(inverse, (parameters, y), rounds=4), n)

    return check


@pytest.fixture
def assert_log_dets(log_det_of):
    """`assert_log_dets(bijector, x, n)`: both log-dets at x are those of automatic Jacobians.

    To n times what one eps in each entry of the Jacobian changes. x is `[N, D]`.
    """

    def check(bijector: Any, x: Any, n: float) -> None:
        x = tf.convert_to_tensor(x)
        for evaluate in (fvb.forward_and_log_det, fvb.inverse_and_log_det):
            with tf.GradientTape(persistent=True) as tape:
                tape.watch(x)
                y, log_det = evaluate(bijector, tf.identity(x))
                rows = tf.unstack(y, axis=-1)
            wanted, unit = log_det_of(np.stack([tape.gradient(row, x) for row in rows], axis=-2))
            assert np.all(np.abs(log_det - wanted) <= n * unit)

    return check


@pytest.fixture
def assert_slope():
    """`assert_slope(got, fn, n)`: `got` is the derivative of fn(step) at 0, by differences.

    A central difference over h errs by h^2 / 6 times the third derivative, which is a third of how
    far it is from the one over 2 h, and by what fn is rounded to, n eps of its largest number, over
    h. The two are alike for h near eps^(1/3). Nests are compared elementwise.
    """

    def check(got: Any, fn: Callable[[float], Any], n: float) -> None:
        eps = np.finfo(_flat(got)[0].dtype).eps
        h = float(eps ** (1 / 3))
        ends = [_flat(fn(step)) for step in (h, -h, 2 * h, -2 * h)]
        for slope, ahead, behind, far_ahead, far_behind in zip(_flat(got), *ends, strict=True):
            near, far = (ahead - behind) / (2 * h), (far_ahead - far_behind) / (4 * h)
            rounding = n * eps * np.max(np.abs([ahead, behind])) / h
            assert np.all(np.abs(slope - near) <= np.abs(far - near) + rounding)

    return check


@pytest.fixture
def trapezoid():
    """`trapezoid(density, grid)`: the integral by the trapezoidal rule, and a bound on its error.

    That is h^2 / 8 times the variation of the derivative, which may jump; second differences over h
    add up to it. The sum loses an eps for each of its terms.
    """

    def integrate(density: np.ndarray, grid: np.ndarray) -> tuple[float, float]:
        density = np.asarray(density)
        h = grid[1] - grid[0]
        total = h * (np.sum(density) - 0.5 * (density[0] + density[-1]))
        bound = h / 8 * np.sum(np.abs(np.diff(density, 2)))
        return total, bound + len(grid) * np.finfo(density.dtype).eps * total

    return integrate
