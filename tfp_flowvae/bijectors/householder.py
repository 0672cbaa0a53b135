"""Products of Householder reflections: rotations with log-det exactly 0.

A reflection is H(v) = I - 2 v v^T / ||v||^2. The product of K of them, the first acting first, is

    H(v_K) ... H(v_1) z = z - V^T L^-1 V z,

where the rows of V, `[K, D]`, are the v_k divided by their lengths and L, `[K, K]`, is the strictly
lower triangle of V V^T with half its diagonal, 1/2 (Joffrain et al. 2006: there T = L^-T). So K
reflections of many points in the same mirrors are two products of matrices and one triangular solve
instead of K passes over the points. The inverse has L^T for L. A v_k = 0 leaves its row of V at 0,
and the step is the identity.

If each point has mirrors of its own, as in an amortised posterior, the compact form does not pay:
V V^T alone would cost K times as much as the reflections. These are then applied one after the
other in a loop, in a third to a sixth of the compact form's time on a processor for K = 10 to 80.

The compact product is orthogonal up to what rounding does to L + L^T = V V^T, which L^-1 amplifies:
for mirrors that are nearly parallel an error of L becomes one of up to 4 K times its size, where
reflecting K times loses about K eps. V V^T is therefore computed in float64, and from K = 9 on all
the rest, and back: the result is orthogonal to a few eps of float32, for every K.

Tomczak & Welling (2016) use such products, amortised, to give a Gaussian posterior a full
covariance.

References:
  Jakub M. Tomczak and Max Welling. Improving Variational Auto-Encoders using Householder Flow.
  2016. https://arxiv.org/abs/1611.09630
  Thierry Joffrain, Tze Meng Low, Enrique S. Quintana-Orti, Robert van de Geijn and Field G. Van
  Zee. Accumulating Householder transformations, revisited. ACM TOMS 32(2), 2006.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import tensorflow as tf

from tfp_flowvae._typing import TensorLike
from tfp_flowvae.bijectors.internal import numerics, stack
from tfp_flowvae.bijectors.internal.parametric import ParametricBijector, parameter

_MOST_IN_FLOAT32 = 8


class HouseholderFlow(ParametricBijector):
    """K Householder reflections as one orthogonal map; `v[..., 0, :]` reflects first.

    The mathematics is at the head of this module. Only the directions of the `v` matter, and a zero
    vector is the identity with gradient zero. An odd number of reflections can not be near the
    identity: its determinant is -1.

    Example:
      >>> flow = HouseholderFlow(tf.random.normal([4, 3]))
      >>> y = flow.forward([1.0, 2.0, 2.0])
      >>> tf.norm(y)
      <tf.Tensor: shape=(), dtype=float32, numpy=3.0>

    Args:
      v: `[..., K, D]`, the normals of the mirrors, of any lengths. Float32 or float64.
      validate_args: Whether to check that `v` is finite.
      name: The name of this bijector and the scope of its operations.

    Raises:
      TypeError: If the dtype is not float32 or float64.
      ValueError: If `v` has fewer than two dimensions, K or D is 0, or `validate_args` finds a
        value that is not finite.
    """

    _AXES: ClassVar[Mapping[str, str]] = {"v": "KD"}
    v = parameter("v", "The normals of the mirrors, as they were given.")

    def __init__(
        self, v: TensorLike, validate_args: bool = False, name: str = "householder_flow"
    ) -> None:
        super().__init__(dict(locals()), is_constant_jacobian=True)

    def _forward_and_log_det(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        y = self._reflect(x, adjoint=False)
        return y, tf.zeros_like(y[..., 0])

    def _inverse_and_log_det(self, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        x = self._reflect(y, adjoint=True)
        return x, tf.zeros_like(x[..., 0])

    def _forward_log_det_jacobian(self, x: tf.Tensor) -> tf.Tensor:
        x = self._checked(x)
        return tf.zeros_like(x[..., 0]) + tf.zeros_like(tf.convert_to_tensor(self.v)[..., 0, 0])

    def _inverse_log_det_jacobian(self, y: tf.Tensor) -> tf.Tensor:
        return self._forward_log_det_jacobian(y)

    def _reflect(self, x: tf.Tensor, adjoint: bool) -> tf.Tensor:
        x = self._checked(x)
        _, mirrors = numerics.norm_and_unit(tf.convert_to_tensor(self.v))
        if mirrors.shape.rank != 2:
            return _one_by_one(mirrors, x, adjoint)
        length = mirrors.shape[-2]
        if length is not None and length <= _MOST_IN_FLOAT32:
            return _product(mirrors, x, adjoint)
        wide = _product(tf.cast(mirrors, tf.float64), tf.cast(x, tf.float64), adjoint)
        return tf.cast(wide, x.dtype)


def _one_by_one(mirrors: tf.Tensor, x: tf.Tensor, adjoint: bool) -> tf.Tensor:
    """Reflects x of `[..., D]` in one after another of the mirrors of `[..., K, D]`."""
    # Divided by its square, which rounding moves from 1, a mirror gives an orthogonal reflection.
    squares = _or_one(tf.reduce_sum(tf.square(mirrors), axis=-1, keepdims=True))
    scaled = mirrors * tf.sqrt(2.0 / squares)
    return stack.run_stack(_reflection, x, (scaled,), (1,), reverse=adjoint)[0]


def _reflection(x: tf.Tensor, hint: None, mirror: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, None]:
    """x - m (m.x) for a mirror m whose square is 2, or 0."""
    product = tf.reduce_sum(mirror * x, axis=-1, keepdims=True)
    return x - mirror * product, tf.zeros_like(product[..., 0]), None


def _product(mirrors: tf.Tensor, x: tf.Tensor, adjoint: bool) -> tf.Tensor:
    """x - V^T L^-1 V x for V of `[K, D]` and x of `[..., D]`."""
    wide = tf.cast(mirrors, tf.float64)
    gram = tf.cast(tf.matmul(wide, wide, transpose_b=True), mirrors.dtype)
    # Half the squares of the rounded rows, not 1/2 itself, makes the product orthogonal.
    half = 0.5 * _or_one(tf.linalg.diag_part(gram))
    lower = numerics.with_diagonal(tf.linalg.band_part(gram, -1, 0), half)
    points = tf.reshape(x, [-1, tf.shape(x)[-1]])
    inner = tf.matmul(mirrors, points, transpose_b=True)
    weights = tf.linalg.triangular_solve(lower, inner, adjoint=adjoint)
    return x - tf.reshape(tf.matmul(weights, mirrors, transpose_a=True), tf.shape(x))


def _or_one(squares: tf.Tensor) -> tf.Tensor:
    """The squares, or 1 for a mirror that is 0."""
    return tf.where(tf.equal(squares, 0.0), tf.ones_like(squares), squares)
