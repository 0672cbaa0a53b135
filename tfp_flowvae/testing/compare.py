"""Comparing arrays and saying where they differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

EPS_MARGIN = 64.0
"""How many units of rounding, amplified by the map's condition, a good implementation may lose."""


class Tolerance(NamedTuple):
    """`got` passes where `|got - wanted| <= atol + rtol |wanted|`.

    Example:
      >>> exact = {"inverse_of_forward": Tolerance(atol=1e-6, rtol=0.0)}
      >>> check_bijector(
      ...     tfb.Scale(2.0), [1.0, 2.0], properties=["inverse_of_forward"], tolerances=exact
      ... )
    """

    atol: float
    rtol: float


DEFAULT_TOLERANCES: Mapping[str, Mapping[str, Tolerance]] = {
    # Values and their inverses. What rounding costs in an ill-conditioned map is added to these.
    "value": {"float32": Tolerance(1e-5, 1e-4), "float64": Tolerance(1e-10, 1e-9)},
    # Log-determinants, in nats.
    "log_det": {"float32": Tolerance(1e-4, 1e-4), "float64": Tolerance(1e-9, 1e-9)},
    # One gradient computed in two ways (eager, graph, XLA).
    "gradient": {"float32": Tolerance(1e-3, 1e-3), "float64": Tolerance(1e-8, 1e-7)},
    # Gradients against central differences, whose own error is far above the gradient's.
    "difference": {"float32": Tolerance(2e-2, 2e-2), "float64": Tolerance(1e-5, 1e-5)},
}


def assert_close(
    what: str,
    got: np.ndarray,
    wanted: np.ndarray,
    tolerance: Tolerance,
    slack: np.ndarray | float = 0.0,
) -> None:
    """Raises unless every element of `got` is near the one of `wanted`.

    Args:
      what: Names the two sides, such as `inverse(forward(x)) against x`.
      got: What was computed.
      wanted: What it should be, of the same shape.
      tolerance: How near is near.
      slack: An absolute allowance on top, broadcast against `wanted`.

    Raises:
      AssertionError: Naming the worst element, by how much it is off and what is allowed.
    """
    got, wanted = np.asarray(got), np.asarray(wanted)
    if got.shape != wanted.shape:
        raise AssertionError(f"{what}: got shape {got.shape}, wanted shape {wanted.shape}")
    got, wanted = got.astype(np.float64), wanted.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        error = np.abs(got - wanted)
        allowed = tolerance.atol + tolerance.rtol * np.abs(wanted) + np.asarray(slack)
        allowed = np.broadcast_to(np.where(np.isfinite(allowed), allowed, 0.0), error.shape)
    error = np.where(got == wanted, 0.0, np.where(np.isnan(error), np.inf, error))
    off = error > allowed
    if not off.any():
        return
    worst = np.unravel_index(np.argmax(np.where(off, error / allowed, 0.0)), error.shape)
    raise AssertionError(
        f"{what}; worst at {index_text(worst)}: got {got[worst]:.9g}, wanted {wanted[worst]:.9g},"
        f" off by {error[worst]:.3g} where {allowed[worst]:.3g} is allowed"
        f" ({np.count_nonzero(off)} of {off.size} elements are off)"
    )


def assert_finite(what: str, got: np.ndarray) -> None:
    """Raises `AssertionError`, naming the first bad element, unless all of `got` is finite."""
    bad = np.argwhere(~np.isfinite(got))
    if bad.size or (got.ndim == 0 and not np.isfinite(got)):
        worst = tuple(bad[0])
        raise AssertionError(
            f"{what}; worst at {index_text(worst)}: got {got[worst]}, wanted a finite number"
            f" ({len(bad)} of {got.size} elements are not finite)"
        )


def index_text(index: tuple[np.intp, ...] | tuple[int, ...]) -> str:
    """`(2, 0)` as `[2, 0]`, without NumPy's type names."""
    return f"[{', '.join(str(int(i)) for i in index)}]"
