"""Sylvester flows, invertible by construction for every parameter value, with their inverse.

The step of van den Berg et al. (2018, equation 13) generalises a planar step to M <= D dimensions,

    f(z) = z + Q R h(R~ Q^T z + b),        Q^T Q = I,  R and R~ upper triangular,

with Q of `[D, M]`, and by Sylvester's determinant identity, with t = R~ Q^T z + b,

    log |det df/dz| = sum_i log(1 + r_i r~_i h'(t_i)),

where r_i and r~_i are the diagonals of R and R~. With h' <= h'(0) = 1 the step is invertible if
r_i r~_i > -1 for all i (their theorem 2). That holds for all raw parameters here:

    r~_i = 1 + m(raw) > 0,    r_i = m(raw r~_i) / r~_i,    m(a) = softplus(a + log(e - 1)) - 1,

so that raw zeros give R~ with ones on its diagonal, R = 0 and the identity, with a gradient in R
that is not 0. That r~_i is positive costs nothing: h is odd, and turning the signs of row i of R~,
of b_i and of column i of R together changes nothing. As in the planar flow the slope

    s_i = 1 + r_i r~_i = softplus(raw r~_i + log(e - 1))

is carried itself, never as that sum, and log |det df/dz| = sum_i log(s_i h' + (1 - h')).

The inverse is a problem in M dimensions. v = Q^T z solves v + R h(R~ v + b) = Q^T y, which is
triangular: back-substitution solves it, with one monotone scalar root for each coordinate (see
`internal/triangular.py`). Then z = y + Q (v - Q^T y). Derivatives in y and all parameters are those
of the implicit function theorem.

The variants differ in Q: `OrthogonalSylvester` orthonormalises a matrix, `HouseholderSylvester`
multiplies reflections, and `TriangularSylvester` permutes the coordinates. Several steps are a
`tfb.Chain`, and of the first two kinds also one bijector, in which what makes a step invertible and
Q orthonormal is computed for all K steps at once and the steps are a loop, so that tracing and
compilation take the same time for every K.

References:
  Rianne van den Berg, Leonard Hasenclever, Jakub M. Tomczak and Max Welling. Sylvester Normalizing
  Flows for Variational Inference. UAI 2018. https://arxiv.org/abs/1803.05649
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import tensorflow as tf

from tfp_flowvae._typing import TensorLike
from tfp_flowvae.bijectors.internal import permute
from tfp_flowvae.bijectors.internal.parametric import parameter
from tfp_flowvae.bijectors.internal.sylvester import (
    Frame,
    HouseholderBase,
    OrthogonalBase,
    SylvesterBase,
)


class OrthogonalSylvester(OrthogonalBase):
    """A Sylvester step in the M-dimensional space that the columns of `eye + q` span.

    The mathematics is at the head of this module. Q is the orthonormal factor of E + q, where E,
    `[D, M]`, has ones on its diagonal, by a QR decomposition with positive diagonal: unique,
    smooth, and Q = E at q = 0. To have Q span the columns of another matrix, subtract E from that.
    The paper orthonormalises by iteration instead, which fails at dependent columns; here Q is
    orthonormal for every q, and where columns of E + q are dependent its gradient is 0.

    Both directions cost O(DM + M^2) for a point, after O(D M^2) for each Q; gradients of the
    inverse cost O(M^3) for a point.

    Example:
      >>> sylvester = OrthogonalSylvester(  # raw zeros are the identity
      ...     q=tf.zeros([3, 2]), r=tf.zeros([2, 2]), r_tilde=tf.zeros([2, 2]), b=tf.zeros([2])
      ... )
      >>> sylvester.forward([1.0, 2.0, 3.0])
      <tf.Tensor: shape=(3,), dtype=float32, numpy=array([1., 2., 3.], dtype=float32)>

    Args:
      q: `[..., D, M]` with M <= D, raw: any real matrix is valid. Float32 or float64, as all
        parameters.
      r: `[..., M, M]`, raw: any real matrix is valid; its upper triangle is read.
      r_tilde: `[..., M, M]`, raw: any real matrix is valid; its upper triangle is read.
      b: `[..., M]`, any real vector.
      activation: The function h, "tanh" or "isru".
      validate_args: Whether to check that the parameters are finite.
      name: The name of this bijector and the scope of its operations.

    Raises:
      TypeError: If the dtypes differ or are not float32 or float64.
      ValueError: If the shapes do not fit together, M > D, `activation` is unknown, or
        `validate_args` finds a parameter that is not finite.
    """

    _AXES: ClassVar[Mapping[str, str]] = {"q": "DM", "r": "MM", "r_tilde": "MM", "b": "M"}


class OrthogonalSylvesterFlow(OrthogonalBase):
    """K `OrthogonalSylvester` steps as one bijector that loops: step `[..., 0, :, :]` acts first.

    The same map as a `tfb.Chain` of K of them, with log-dets added.

    Example:
      >>> flow = OrthogonalSylvesterFlow(  # raw zeros are the identity
      ...     q=tf.random.normal([16, 8, 4]),
      ...     r=tf.zeros([16, 4, 4]),
      ...     r_tilde=tf.zeros([16, 4, 4]),
      ...     b=tf.zeros([16, 4]),
      ... )
      >>> y, log_det = flow.forward_and_log_det(tf.random.normal([100, 8]))

    Args:
      q: `[..., K, D, M]`, raw. All arguments are those of `OrthogonalSylvester` for each step.
      r: `[..., K, M, M]`, raw.
      r_tilde: `[..., K, M, M]`, raw.
      b: `[..., K, M]`.
      activation: As for `OrthogonalSylvester`.
      validate_args: As for `OrthogonalSylvester`.
      name: As for `OrthogonalSylvester`.

    Raises:
      TypeError: As `OrthogonalSylvester`.
      ValueError: As `OrthogonalSylvester`, or if K is 0.
    """

    _AXES: ClassVar[Mapping[str, str]] = {"q": "KDM", "r": "KMM", "r_tilde": "KMM", "b": "KM"}
    _IS_STACK = True


class HouseholderSylvester(HouseholderBase):
    """A Sylvester step with M = D, between a product of K Householder reflections and its inverse.

    The mathematics is at the head of this module. Q = (H(v_K) ... H(v_1)), as `HouseholderFlow(v)`
    has it, is orthogonal for every `v`, and never formed: both directions cost O(DK + D^2) for a
    point, gradients of the inverse O(D^3).

    Example:
      >>> sylvester = HouseholderSylvester(  # r = 0 is the identity
      ...     v=tf.random.normal([4, 3]), r=tf.zeros([3, 3]), r_tilde=tf.eye(3), b=tf.zeros([3])
      ... )
      >>> sylvester.forward_log_det_jacobian([1.0, 2.0, 3.0])
      <tf.Tensor: shape=(), dtype=float32, numpy=0.0>

    Args:
      v: `[..., K, D]`, the normals of the mirrors, of any lengths; a zero vector is no reflection.
        Float32 or float64, as all parameters.
      r: `[..., D, D]`, raw: any real matrix is valid; its upper triangle is read.
      r_tilde: `[..., D, D]`, raw: any real matrix is valid; its upper triangle is read.
      b: `[..., D]`, any real vector.
      activation: The function h, "tanh" or "isru".
      validate_args: Whether to check that the parameters are finite.
      name: The name of this bijector and the scope of its operations.

    Raises:
      TypeError: If the dtypes differ or are not float32 or float64.
      ValueError: If the shapes do not fit together, K is 0, `activation` is unknown, or
        `validate_args` finds a parameter that is not finite.
    """

    _AXES: ClassVar[Mapping[str, str]] = {"v": "KD", "r": "DD", "r_tilde": "DD", "b": "D"}


class HouseholderSylvesterFlow(HouseholderBase):
    """K `HouseholderSylvester` steps as one bijector that loops: step `[..., 0, :, :]` acts first.

    The same map as a `tfb.Chain` of K of them, with log-dets added.

    Example:
      >>> flow = HouseholderSylvesterFlow(  # r = 0 is the identity
      ...     v=tf.random.normal([16, 2, 8]),
      ...     r=tf.zeros([16, 8, 8]),
      ...     r_tilde=tf.zeros([16, 8, 8]),
      ...     b=tf.zeros([16, 8]),
      ... )
      >>> y, log_det = flow.forward_and_log_det(tf.random.normal([100, 8]))

    Args:
      v: `[..., K, J, D]`, the normals of J mirrors for each of K steps. All arguments are those of
        `HouseholderSylvester` for each step.
      r: `[..., K, D, D]`, raw.
      r_tilde: `[..., K, D, D]`, raw.
      b: `[..., K, D]`.
      activation: As for `HouseholderSylvester`.
      validate_args: As for `HouseholderSylvester`.
      name: As for `HouseholderSylvester`.

    Raises:
      TypeError: As `HouseholderSylvester`.
      ValueError: As `HouseholderSylvester`, or if K or J is 0.
    """

    _AXES: ClassVar[Mapping[str, str]] = {"v": "KJD", "r": "KDD", "r_tilde": "KDD", "b": "KD"}
    _IS_STACK = True


class TriangularSylvester(SylvesterBase):
    """A Sylvester step with M = D in the coordinates themselves, in any order.

    The mathematics is at the head of this module. Q is the identity, or a permutation:
    Q^T z = z[permutation], so that R and R~ are triangular in that order. The paper alternates
    between the identity and the reverse order, `permutation=range(D)[::-1]`. Both directions cost
    O(D^2) for a point, gradients of the inverse O(D^3).

    Example:
      >>> sylvester = TriangularSylvester(  # raw zeros are the identity
      ...     r=tf.zeros([3, 3]), r_tilde=tf.zeros([3, 3]), b=tf.zeros([3]), permutation=[2, 1, 0]
      ... )
      >>> sylvester.forward([1.0, 2.0, 3.0])
      <tf.Tensor: shape=(3,), dtype=float32, numpy=array([1., 2., 3.], dtype=float32)>

    Args:
      r: `[..., D, D]`, raw: any real matrix is valid; its upper triangle is read. Float32 or
        float64, as all parameters.
      r_tilde: `[..., D, D]`, raw: any real matrix is valid; its upper triangle is read.
      b: `[..., D]`, any real vector.
      permutation: `[..., D]` int32 or int64, each of 0 to D - 1 once; None is the identity.
      activation: The function h, "tanh" or "isru".
      validate_args: Whether to check that the parameters are finite, and a `permutation` that is
        only known when the graph runs.
      name: The name of this bijector and the scope of its operations.

    Raises:
      TypeError: If the dtypes differ or are not float32 or float64, or `permutation` holds no
        integers.
      ValueError: If the shapes do not fit together, `permutation` is no permutation, `activation`
        is unknown, or `validate_args` finds a parameter that is not finite.
    """

    _AXES: ClassVar[Mapping[str, str]] = {"r": "DD", "r_tilde": "DD", "b": "D"}
    _PERMUTES = True
    permutation = parameter("permutation", "The order of the coordinates, as it was given.")

    def __init__(
        self,
        r: TensorLike,
        r_tilde: TensorLike,
        b: TensorLike,
        permutation: TensorLike | None = None,
        activation: str = "tanh",
        validate_args: bool = False,
        name: str = "triangular_sylvester",
    ) -> None:
        super().__init__(dict(locals()))

    def _frames(self) -> tf.Tensor | None:
        return None if self.permutation is None else tf.convert_to_tensor(self.permutation)

    def _frame_of(self, part: tf.Tensor | None) -> Frame:
        if part is None:
            return Frame(tf.identity, tf.identity)
        back = permute.invert(part)
        return Frame(lambda x: permute.gather(x, part), lambda x: permute.gather(x, back))
