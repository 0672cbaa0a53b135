"""An invertible linear map in LU form, whose log-det costs O(D).

The map of Kingma & Dhariwal (2018, equation 10), on vectors or on the channels of an image (their
1x1 convolution), is W x + shift with

    W = P L U,         log |det dy/dx| = sum_i log |u_ii|,

P a fixed permutation, L lower triangular with ones on its diagonal, and U upper triangular with the
diagonal sign_i exp(log_diag_i), so that W is invertible for all parameters. Products with L and U
are one way, triangular solves the other. W is the identity where all parameters are 0.

`tfb.ScaleMatvecLU` computes the same W from one packed matrix: its diagonal may pass through 0, its
log-det takes a logarithm, and its parameters have to come from a decomposition.

References:
  Diederik P. Kingma and Prafulla Dhariwal. Glow: Generative Flow with Invertible 1x1 Convolutions.
  NeurIPS 2018. https://arxiv.org/abs/1807.03039
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import tensorflow as tf

from tfp_flowvae._typing import TensorLike
from tfp_flowvae.bijectors.internal import numerics, permute, validate
from tfp_flowvae.bijectors.internal.linear import multiply, solve_triangular
from tfp_flowvae.bijectors.internal.parametric import ParametricBijector, parameter


class LULinear(ParametricBijector):
    """y = P L U x + shift, a linear map that all of its parameters leave invertible.

    The mathematics is at the head of this module. Both directions cost O(D^2), the log-det O(D).
    P and `sign` have no gradient: with all others free they choose one of the 2^D D! parts that the
    invertible matrices fall into. `from_matrix` finds both for a given W.

    Example:
      >>> linear = LULinear(tf.zeros([3, 3]), tf.zeros([3]), tf.zeros([3, 3]))
      >>> linear.forward([1.0, 2.0, 3.0])  # all 0 is the identity
      <tf.Tensor: shape=(3,), dtype=float32, numpy=array([1., 2., 3.], dtype=float32)>

    Args:
      lower: `[..., D, D]`, of which the part below the diagonal is read. Float32 or float64, as
        all parameters.
      log_diag: `[..., D]`, the logarithm of the size of U's diagonal.
      upper: `[..., D, D]`, of which the part above the diagonal is read.
      permutation: `[..., D]` int32 or int64, each of 0 to D - 1 once, applied as by `tfb.Permute`:
        y_i = (L U x)[permutation_i]. None is the identity.
      shift: `[..., D]`, or None for 0.
      sign: `[..., D]`: where it is negative, so is U's diagonal. None is positive everywhere.
      validate_args: Whether to check that the parameters are finite, and a `permutation` that is
        only known when the graph runs.
      name: The name of this bijector and the scope of its operations.

    Raises:
      TypeError: If the dtypes differ or are not float32 or float64, or `permutation` holds no
        integers.
      ValueError: If the shapes do not fit together, `permutation` is no permutation, or
        `validate_args` finds a parameter that is not finite.
    """

    _AXES: ClassVar[Mapping[str, str]] = {
        "lower": "DD",
        "log_diag": "D",
        "upper": "DD",
        "shift": "D",
        "sign": "D",
    }
    _PERMUTES = True
    lower = parameter("lower", "The matrix that holds L below its diagonal, as it was given.")
    log_diag = parameter("log_diag", "The logarithm of the size of U's diagonal, as it was given.")
    upper = parameter("upper", "The matrix that holds U above its diagonal, as it was given.")
    permutation = parameter("permutation", "The permutation P, as it was given.")
    shift = parameter("shift", "The vector that is added, as it was given.")
    sign = parameter("sign", "The signs of U's diagonal, as they were given.")

    def __init__(
        self,
        lower: TensorLike,
        log_diag: TensorLike,
        upper: TensorLike,
        permutation: TensorLike | None = None,
        shift: TensorLike | None = None,
        sign: TensorLike | None = None,
        validate_args: bool = False,
        name: str = "lu_linear",
    ) -> None:
        super().__init__(dict(locals()), is_constant_jacobian=True)

    @classmethod
    def from_matrix(
        cls,
        matrix: TensorLike,
        shift: TensorLike | None = None,
        validate_args: bool = False,
        name: str = "lu_linear",
    ) -> LULinear:
        """Returns the `LULinear` whose W is `matrix`, from its decomposition with pivots.

        Glow begins with a random rotation; `copy(lower=tf.Variable(linear.lower), ...)` makes what
        is found here trainable.

        Args:
          matrix: `[..., D, D]`, invertible. Float32 or float64.
          shift: `[..., D]`, or None for 0.
          validate_args: As in the constructor.
          name: As in the constructor.

        Raises:
          TypeError: If the dtype is not float32 or float64.
          ValueError: If `matrix` is not square, or singular: then a graph raises
            `tf.errors.InvalidArgumentError` when it runs.
        """
        tensors = validate.convert_parameters(cls.__name__, {"matrix": "DD"}, {"matrix": matrix})
        try:
            packed, pivots = tf.linalg.lu(tensors["matrix"])
        except tf.errors.InvalidArgumentError as error:
            raise ValueError(
                f"{cls.__name__}.from_matrix takes an invertible matrix. "
                f"Received: a singular one of shape {tuple(tensors['matrix'].shape)}."
            ) from error
        diagonal = tf.linalg.diag_part(packed)
        return cls(
            lower=_strict(packed, lower=True),
            log_diag=tf.math.log(tf.abs(diagonal)),
            upper=_strict(packed, lower=False),
            permutation=permute.invert(pivots),  # TensorFlow's pivots take W to L U
            shift=shift,
            sign=tf.where(diagonal < 0.0, -tf.ones_like(diagonal), tf.ones_like(diagonal)),
            validate_args=validate_args,
            name=name,
        )

    @classmethod
    def _parameter_properties(cls, dtype: Any) -> dict[str, Any]:
        properties = super()._parameter_properties(dtype)
        return properties | {"sign": properties["sign"]._replace(is_preferred=False)}

    def _factors(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns L and U, `[..., D, D]`."""
        lower, log_diag, upper = (
            tf.convert_to_tensor(p) for p in (self.lower, self.log_diag, self.upper)
        )
        diagonal = tf.exp(log_diag)
        if self.sign is not None:
            sign = tf.convert_to_tensor(self.sign)
            diagonal = tf.where(sign < 0.0, -diagonal, diagonal)
        lower = _strict(lower, lower=True)
        lower = numerics.with_diagonal(lower, tf.ones_like(lower[..., 0]))
        upper = _strict(upper, lower=False) + tf.zeros_like(diagonal)[..., tf.newaxis]
        return lower, numerics.with_diagonal(upper, diagonal + tf.zeros_like(upper[..., 0]))

    def _forward_and_log_det(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        x = self._checked(x)
        lower, upper = self._factors()
        y = multiply(lower, multiply(upper, x))
        if self.permutation is not None:
            y = permute.gather(y, tf.convert_to_tensor(self.permutation))
        if self.shift is not None:
            y += self.shift
        return y, self._log_det(y)

    def _inverse_and_log_det(self, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        x = self._checked(y)
        if self.shift is not None:
            x -= self.shift
        if self.permutation is not None:
            x = permute.gather(x, permute.invert(tf.convert_to_tensor(self.permutation)))
        lower, upper = self._factors()
        x = solve_triangular(lower, x, lower=True)
        x = solve_triangular(upper, x, lower=False)
        return x, -self._log_det(x)

    def _log_det(self, value: tf.Tensor) -> tf.Tensor:
        """The log-det of the forward map, of the batch shape of `value`, which has them all."""
        return tf.reduce_sum(self.log_diag, axis=-1) + tf.zeros_like(value[..., 0])


def _strict(matrix: tf.Tensor, *, lower: bool) -> tf.Tensor:
    """What of `matrix` is below its diagonal, or above it."""
    triangle = tf.linalg.band_part(matrix, -1, 0) if lower else tf.linalg.band_part(matrix, 0, -1)
    return numerics.with_diagonal(triangle, tf.zeros_like(matrix[..., 0]))
