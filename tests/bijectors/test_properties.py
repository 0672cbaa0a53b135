"""Every bijector of the package has every property that check_bijector knows.

A new bijector is one line in TABLE: `name: factory`, where `factory(draw, size)` takes a function
`draw(*shape)` of standard normal numbers in the dtype of the check, and D, and returns a bijector
of events `[D]` with no batch dimensions or with a batch of 2.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

import hypothesis
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from hypothesis import strategies as st

from tfp_flowvae import bijectors as fvb
from tfp_flowvae.testing import check_bijector

tfb = tfp.bijectors

Draw = Callable[..., tf.Tensor]


class Triangular(tf.Module):
    """Shift and log-scale from the dimensions that come before."""

    def __init__(self, kernel: tf.Tensor, bias: tf.Tensor) -> None:
        super().__init__()
        before = tf.linalg.band_part(tf.ones_like(kernel), 0, -1) - tf.eye(
            kernel.shape[0], dtype=kernel.dtype
        )
        self.kernel, self.bias = tf.Variable(before * kernel), tf.Variable(bias)
        self.before = before

    def __call__(self, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        h = tf.tanh(tf.einsum("...i,ij->...j", y, self.before * self.kernel) + self.bias)
        return h, 0.5 * h


TABLE: dict[str, Callable[[Draw, int], tfb.Bijector]] = {
    "planar": lambda draw, d: fvb.Planar(draw(d), draw(d), draw()),
    "planar_flow": lambda draw, d: fvb.PlanarFlow(draw(2, 3, d), draw(3, d), draw(3)),
    "radial": lambda draw, d: fvb.Radial(draw(d), tf.exp(draw()), draw()),
    "radial_variables": lambda draw, d: fvb.Radial(
        tf.Variable(draw(d)), tf.Variable(tf.exp(draw())), tf.Variable(draw())
    ),
    "radial_flow": lambda draw, d: fvb.RadialFlow(draw(2, 3, d), tf.exp(draw(3)), draw(3)),
    "householder_flow": lambda draw, d: fvb.HouseholderFlow(draw(2, 2 * d, d)),
    "contractive_residual": lambda draw, d: fvb.ContractiveResidual(
        [draw(2, d, 4), draw(4, d)], [draw(4), draw(d)], lipschitz=0.5
    ),
    "marginal_inverse_cdf": lambda draw, d: fvb.MarginalInverseCDF(
        *(tf.cumsum(tf.exp(0.5 * draw(d, 5)), axis=-1) - 3.0 for _ in range(2))
    ),
    "rotation": lambda draw, d: fvb.Rotation(tf.linalg.qr(draw(2, d, d))[0]),
    "chain": lambda draw, d: tfb.Chain(
        [fvb.Planar(draw(d), draw(d), draw()), fvb.HouseholderFlow(draw(1, d))]
    ),
    "spline": lambda draw, d: fvb.spline_from_raw(draw(d, 11)),
    "parallel_autoregressive": lambda draw, d: fvb.ParallelMaskedAutoregressiveFlow(
        Triangular(draw(d, d), draw(d))
    ),
    "orthogonal_sylvester": lambda draw, d: fvb.OrthogonalSylvester(
        draw(d, (m := min(d, 2))), draw(2, m, m), draw(m, m), draw(m)
    ),
    "householder_sylvester": lambda draw, d: fvb.HouseholderSylvester(
        draw(3, d), draw(2, d, d), draw(d, d), draw(d), activation="isru"
    ),
    "triangular_sylvester": lambda draw, d: fvb.TriangularSylvester(
        draw(2, d, d), draw(d, d), draw(d), permutation=tf.range(d)[::-1]
    ),
    "orthogonal_sylvester_flow": lambda draw, d: fvb.OrthogonalSylvesterFlow(
        draw(3, d, (m := min(d, 2))), draw(2, 3, m, m), draw(3, m, m), draw(3, m)
    ),
    "householder_sylvester_flow": lambda draw, d: fvb.HouseholderSylvesterFlow(
        draw(3, 2, d), draw(2, 3, d, d), draw(3, d, d), draw(3, d), activation="isru"
    ),
    "lu_linear": lambda draw, d: fvb.LULinear(
        draw(2, d, d), draw(d), draw(d, d), permutation=tf.range(d)[::-1], shift=draw(d)
    ),
    "act_norm": lambda draw, d: fvb.ActNorm(tf.Variable(draw(2, d)), tf.Variable(draw(d))),
    "permutation": lambda draw, d: fvb.random_permutation(d, seed=0),
    "invert": lambda draw, d: tfb.Invert(fvb.Radial(draw(d), tf.exp(draw()), draw())),
}

# Tracing, XLA and saving take most of the time and lean little on D: the quick tests do them in one
# setting for the families, the slow ones in all settings for all.
SAVED = ("dynamic_shape", "xla", "saved_model")
TRACED = ("graph", "gradients", *SAVED)
FAMILIES = ("planar_flow", "radial_variables", "householder_flow")
QUICK = (
    *((name, tf.float32, 2, ()) for name in FAMILIES),
    *((name, tf.float64, 2, SAVED) for name in ("planar", "radial_flow", "chain")),
    *((name, tf.float64, 1, TRACED) for name in TABLE),
    *((name, tf.float64, 5, TRACED) for name in FAMILIES),
)
SLOW = tuple((dtype, size) for dtype in (tf.float32, tf.float64) for size in (1, 2, 5))


def drawer(seed: int, dtype: tf.DType, scale: float = 1.0) -> Draw:
    """Draws that are the same numbers in float32 and float64."""
    rng = np.random.default_rng(seed)
    return lambda *shape: tf.constant(scale * rng.standard_normal(shape).astype(np.float32), dtype)


def check(name: str, dtype: tf.DType, size: int, skip: tuple[str, ...] = ()) -> None:
    seed = zlib.crc32(f"{name} {size}".encode())
    x = drawer(seed + 1, dtype)(3, 2, size)
    reference = TABLE[name](drawer(seed, tf.float64), size) if dtype == tf.float32 else None
    check_bijector(TABLE[name](drawer(seed, dtype), size), x, reference=reference, skip=skip)


def label(value: object) -> str:
    """A short name for an argument of a test."""
    if isinstance(value, tuple):
        return "part" if value else "all"
    return getattr(value, "name", str(value))


@pytest.mark.parametrize(("name", "dtype", "size", "skip"), QUICK, ids=label)
def test_properties(name, dtype, size, skip):
    check(name, dtype, size, skip)


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "size"), SLOW, ids=label)
@pytest.mark.parametrize("name", TABLE)
def test_all_properties(name, dtype, size):
    check(name, dtype, size)


# Values, log-dets and gradients at parameters that no reasonable model has. Differences and
# integrals cannot resolve what happens at such scales; automatic differentiation in float64 can.
EXTREME = (
    "dtype",
    "finite",
    "batch_shape",
    "finite_gradients",
    "inverse_of_forward",
    "forward_of_inverse",
    "forward_log_det",
    "inverse_log_det",
    "opposite_log_dets",
    "joint",
)
EXTREME_NAMES = (
    "planar",
    "radial",
    "householder_flow",
    pytest.param("planar_flow", marks=pytest.mark.slow),
    pytest.param("radial_flow", marks=pytest.mark.slow),
    pytest.param("triangular_sylvester", marks=pytest.mark.slow),
)
SCALES = st.sampled_from([0.0, 1e-6, 1e-2, 1.0, 30.0])


@pytest.mark.parametrize("name", EXTREME_NAMES)
@hypothesis.settings(max_examples=6, deadline=None, derandomize=True)
@hypothesis.given(
    size=st.sampled_from([1, 2, 5]),
    dtype=st.sampled_from([tf.float32, tf.float64]),
    seed=st.integers(0, 2**16),
    parameter_scale=SCALES,
    x_scale=st.sampled_from([1e-3, 1.0, 100.0]),
)
def test_extreme_parameters(name, size, dtype, seed, parameter_scale, x_scale):
    x = drawer(seed + 1, dtype, x_scale)(2, 2, size)
    bijector = TABLE[name](drawer(seed, dtype, parameter_scale), size)
    reference = TABLE[name](drawer(seed, tf.float64, parameter_scale), size)
    check_bijector(bijector, x, reference=reference, properties=EXTREME)
