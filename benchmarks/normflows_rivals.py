"""The bijectors of `normflows` on PyTorch as rivals in `bijectors.py`, where it is installed."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from bijector_cases import BINS, FORWARD, GRADIENT, HIDDEN, INVERSE, PARTS


def _installed(name: str) -> Any:
    """The module, or None without the `bench` extra."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


normflows, torch = _installed("normflows"), _installed("torch")

# By family: the steps for (D, K), and which of them a flow has. Their parameters are shared by the
# batch, which is less work where ours are a point's own.
_FORWARD_ONLY = (FORWARD,)
# What is D passes for us is their inverse.
_SWAPPED = {FORWARD: "inverse", INVERSE: "forward", GRADIENT: "forward"}
_STRAIGHT = {FORWARD: "forward", INVERSE: "inverse", GRADIENT: "inverse"}


def _steps(name: str, size: int, length: int) -> Sequence[Any]:
    flows, kept = normflows.flows, size - size // 2
    net = normflows.nets.MLP
    make: dict[str, Callable[[], Any]] = {
        "planar": lambda: flows.Planar((size,)),
        "radial": lambda: flows.Radial((size,)),
        "coupling": lambda: flows.AffineCouplingBlock(net([kept, HIDDEN, 2 * (size - kept)])),
        "additive_coupling": lambda: flows.AffineCouplingBlock(
            net([kept, HIDDEN, size - kept]), scale=False
        ),
        "spline_coupling": lambda: flows.CoupledRationalQuadraticSpline(
            size, 1, HIDDEN, num_bins=BINS
        ),
        "autoregressive": lambda: flows.MaskedAffineAutoregressive(
            size, HIDDEN, num_blocks=1, use_residual_blocks=False
        ),
        "spline_autoregressive": lambda: flows.AutoregressiveRationalQuadraticSpline(
            size, 1, HIDDEN, num_bins=BINS
        ),
        "lu_linear": lambda: flows.LULinearPermute(size),
        "act_norm": lambda: flows.ActNorm((size,)),
        # Exact traces of 20 powers of the Jacobian, the nearest it has to a determinant.
        "contractive_residual": lambda: flows.Residual(
            normflows.nets.LipschitzMLP([size, 64, 64, size], init_zeros=False),
            reverse=False,
            reduce_memory=False,
            exact_trace=True,
            n_power_series=20,
        ),
    }
    return [make[name]() for _ in range(length)] if name in make else []


def normflows_rival(
    name: str, size: int, length: int, x: np.ndarray, part: str
) -> Callable[[], Any] | None:
    """A call without arguments that evaluates one part in normflows, or None where it has none."""
    if normflows is None:
        return None
    parts = _FORWARD_ONLY if name in ("planar", "radial") else PARTS
    steps = _steps(name, size, length)
    if not steps or part not in parts:
        return None
    # Their autoregressive splines invert in `forward`, as ours do; their affine ones do not.
    direction = (_SWAPPED if name == "autoregressive" else _STRAIGHT)[part]
    inputs = torch.as_tensor(x)
    weights = [w for step in steps for w in step.parameters() if w.requires_grad]

    def evaluate(points: Any) -> tuple[Any, Any]:
        total = torch.zeros(len(points))
        for step in steps:
            points, log_det = getattr(step, direction)(points)
            total = total + log_det
        return points, total

    def value() -> None:
        with torch.no_grad():
            evaluate(inputs)

    def gradient() -> None:
        points = inputs.clone().requires_grad_()
        z, log_det = evaluate(points)
        energy = log_det.sum() - 0.5 * (z**2).sum()
        torch.autograd.grad(energy, [points, *weights], allow_unused=True)

    return gradient if part == GRADIENT else value
