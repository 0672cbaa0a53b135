"""K Sylvester steps in a row as one bijector; `sylvester.py` has the mathematics of a step.

What makes a step invertible and Q orthonormal is computed for all K steps at once, and the steps
themselves are a loop, so that tracing and compilation take the same time for every K. Of the
triangular kind, whose steps take turns in the order of the coordinates, several are a `tfb.Chain`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

import tensorflow as tf

from tfp_flowvae._typing import TensorLike
from tfp_flowvae.bijectors.internal import stack
from tfp_flowvae.bijectors.internal.sylvester import (
    FramedSylvester,
    Mirrors,
    SpanningColumns,
    System,
    forward_step,
    inverse_step,
)


class _SylvesterStack(FramedSylvester):
    """What the stacks share."""

    def _forward_and_log_det(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return self._run(forward_step, x)

    def _inverse_and_log_det(self, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return self._run(inverse_step, y, reverse=True)

    def _run(
        self, step: Callable[..., tuple[tf.Tensor, tf.Tensor]], x: tf.Tensor, reverse: bool = False
    ) -> tuple[tf.Tensor, tf.Tensor]:
        h = self._h()

        def one(x: tf.Tensor, hint: None, part: tf.Tensor, *system: tf.Tensor) -> tuple:
            return (*step(h, self._frame_of(part), System(*system), x), None)

        parameters = (self._frames(), *self._system())
        return stack.run_stack(
            one, self._checked(x), parameters, (2, 2, 2, 1, 1, 1), reverse=reverse
        )


class OrthogonalSylvesterFlow(SpanningColumns, _SylvesterStack):
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
      q: `[..., K, D, M]` with M <= D, raw: any real matrices are valid. Float32 or float64, as all
        parameters.
      r: `[..., K, M, M]`, raw: any real matrices are valid; their upper triangles are read.
      r_tilde: `[..., K, M, M]`, raw, in the same way.
      b: `[..., K, M]`, any real vectors.
      activation: The function h, "tanh" or "isru".
      validate_args: Whether to check that the parameters are finite.
      name: The name of this bijector and the scope of its operations.

    Raises:
      TypeError: If the dtypes differ or are not float32 or float64.
      ValueError: If the shapes do not fit together, K is 0, M > D, `activation` is unknown, or
        `validate_args` finds a parameter that is not finite.
    """

    _AXES: ClassVar[Mapping[str, str]] = {"q": "KDM", "r": "KMM", "r_tilde": "KMM", "b": "KM"}

    def __init__(
        self,
        q: TensorLike,
        r: TensorLike,
        r_tilde: TensorLike,
        b: TensorLike,
        activation: str = "tanh",
        validate_args: bool = False,
        name: str = "orthogonal_sylvester_flow",
    ) -> None:
        super().__init__(dict(locals()))


class HouseholderSylvesterFlow(Mirrors, _SylvesterStack):
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
      v: `[..., K, J, D]`, the normals of J mirrors for each step, of any lengths; a zero vector is
        no reflection. Float32 or float64, as all parameters.
      r: `[..., K, D, D]`, raw: any real matrices are valid; their upper triangles are read.
      r_tilde: `[..., K, D, D]`, raw, in the same way.
      b: `[..., K, D]`, any real vectors.
      activation: The function h, "tanh" or "isru".
      validate_args: Whether to check that the parameters are finite.
      name: The name of this bijector and the scope of its operations.

    Raises:
      TypeError: If the dtypes differ or are not float32 or float64.
      ValueError: If the shapes do not fit together, K or J is 0, `activation` is unknown, or
        `validate_args` finds a parameter that is not finite.
    """

    _AXES: ClassVar[Mapping[str, str]] = {"v": "KJD", "r": "KDD", "r_tilde": "KDD", "b": "KD"}

    def __init__(
        self,
        v: TensorLike,
        r: TensorLike,
        r_tilde: TensorLike,
        b: TensorLike,
        activation: str = "tanh",
        validate_args: bool = False,
        name: str = "householder_sylvester_flow",
    ) -> None:
        super().__init__(dict(locals()))
