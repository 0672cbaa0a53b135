"""Monotone marginal transforms: a normal base becomes data with given one-dimensional marginals.

If F_d is the distribution function of the d-th coordinate of the data and Phi the normal one, then

    f_d(z) = F_d^-1(Phi(z))

turns a standard normal coordinate into one with the data's marginal, and f^-1 Gaussianises. Here
f_d is given by N knots x_i and their normal scores z_i = Phi^-1(F_d(x_i)), through which it is a
strictly increasing rational-quadratic spline; see `_monotone_spline.py`.

Why scores and not F(x_i) itself: in float32 no F between 1 - 6e-8 and 1 can be told from 1, that
is no point beyond z = 5.3, and Phi and its inverse would have to be evaluated for each point. A
score is an ordinary number wherever it is, and f is arithmetic alone. Beyond the outer knots f is
linear in z: the tails of x are Gaussian, with the standard deviation of the outermost bin's slope.
The density is continuous and positive on all of R, and exact to a few eps in any tail.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from tensorflow_probability import bijectors as tfb

from tfp_flowvae._typing import TensorLike
from tfp_flowvae.bijectors.internal import marginal_fit, validate
from tfp_flowvae.bijectors.internal.monotone_spline import MonotoneSpline
from tfp_flowvae.bijectors.internal.parametric import ParametricBijector, parameter

_DEFAULT_KNOTS = 16


class MarginalInverseCDF(ParametricBijector):
    """The elementwise f(z) = F^-1(Phi(z)): from a standard normal base to the data.

    So `tfd.TransformedDistribution(tfd.MultivariateNormalDiag(tf.zeros([D])), this)` has the
    marginals F, and `inverse` Gaussianises data. `fit_marginals` fits one to data. The mathematics
    is at the head of this module.

    Example:
      >>> marginal = MarginalInverseCDF(knots=[[0.0, 1.0, 4.0]], scores=[[-1.0, 0.0, 1.0]])
      >>> marginal.forward([0.0])  # the median
      <tf.Tensor: shape=(1,), dtype=float32, numpy=array([1.], dtype=float32)>

    Args:
      knots: x_i, `[..., D, N]`, strictly increasing, N at least 2. Float32 or float64, as `scores`.
      scores: z_i = Phi^-1(F(x_i)), `[..., D, N]`, strictly increasing.
      validate_args: Whether to check that both are finite and strictly increasing.
      name: The name of this bijector and the scope of its operations.

    Raises:
      TypeError: If the dtypes differ or are not float32 or float64.
      ValueError: If the shapes do not fit together, N is below 2, or `validate_args` finds knots or
        scores that are not finite and strictly increasing.
    """

    _AXES: ClassVar[Mapping[str, str]] = {"knots": "DN", "scores": "DN"}
    knots = parameter("knots", "The positions x_i, as they were given.")
    scores = parameter("scores", "The normal scores z_i, as they were given.")

    def __init__(
        self,
        knots: TensorLike,
        scores: TensorLike,
        validate_args: bool = False,
        name: str = "marginal_inverse_cdf",
    ) -> None:
        super().__init__(dict(locals()))

    def _keep_others(self, arguments: Mapping[str, Any]) -> None:
        shape = self.knots.shape
        if shape.rank is not None and shape[-1] == 1:
            raise ValueError(
                f"{type(self).__name__} takes at least 2 knots for each dimension. "
                f"Received: knots.shape={tuple(shape.as_list())}."
            )

    @classmethod
    def _parameter_properties(cls, dtype: Any) -> dict[str, Any]:
        properties = tfp.util.ParameterProperties(
            event_ndims=2,
            shape_fn=lambda shape: tf.concat([shape, [_DEFAULT_KNOTS]], axis=0),
            default_constraining_bijector_fn=tfb.Ascending,
        )
        return {"knots": properties, "scores": properties}

    def _parameter_control_dependencies(self, is_init: bool) -> list:
        found = super()._parameter_control_dependencies(is_init)
        if not self.validate_args:
            return found
        owner = type(self).__name__
        for name in self._AXES:
            found += validate.assertions(
                getattr(self, name),
                is_init,
                f"{owner} with validate_args=True takes strictly increasing {name}",
                _smallest_step,
                lambda values, message: tf.debugging.assert_positive(
                    values[..., 1:] - values[..., :-1], message=message
                ),
            )
        return found

    def _forward_and_log_det(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        y, log_slope = self._spline().forward(self._checked(x))
        return y, tf.reduce_sum(log_slope, axis=-1)

    def _inverse_and_log_det(self, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        x, log_slope = self._spline().inverse(self._checked(y))
        return x, tf.reduce_sum(log_slope, axis=-1)

    def _spline(self) -> MonotoneSpline:
        return MonotoneSpline(tf.convert_to_tensor(self.scores), tf.convert_to_tensor(self.knots))


def fit_marginals(
    x: TensorLike, num_knots: int = 32, smoothing: float = 1.0, name: str = "marginal_inverse_cdf"
) -> MarginalInverseCDF:
    """Fits the marginals of data, each on its own and without gradients.

    The distribution function is the kernel estimate with a Gaussian kernel, strictly increasing
    whatever ties the data has, of Silverman's bandwidth h = 0.9 min(std, IQR / 1.34) n^(-1/5) times
    `smoothing`. It is tabled at quantiles with evenly spaced normal scores and, as many, evenly
    spaced points between the outer of them. The Gaussian tails
    beyond the outer ones match the mean excess of the points there (about 10 on either side, more
    where there are more than 10000 points), since the kernel's own tails would be far too thin.

    Example:
      >>> data = np.exp(np.random.default_rng(0).normal(size=(200, 2)))
      >>> marginals = fit_marginals(data)
      >>> z = marginals.inverse(data)  # about standard normal, column by column
      >>> z.shape
      TensorShape([200, 2])

    Args:
      x: `[n, D]`, float32 or float64, finite; n at least 8, no column constant.
      num_knots: N, the number of knots for each dimension, at least 4.
      smoothing: A positive factor on the bandwidth.
      name: The name of the bijector.

    Returns:
      A `MarginalInverseCDF` with parameters `[D, N]` of the dtype of x.

    Raises:
      TypeError: If x is not float32 or float64.
      ValueError: If x has another rank, fewer than 8 rows, values that are not finite or a constant
        column, or another argument is out of its range.
    """
    data = marginal_fit.checked_data("fit_marginals", x, num_knots, smoothing)
    knots, scores = marginal_fit.fit(data, num_knots, smoothing)
    dtype = tf.as_dtype(data.dtype)
    return MarginalInverseCDF(tf.constant(knots, dtype), tf.constant(scores, dtype), name=name)


def _smallest_step(values: np.ndarray) -> str:
    smallest = np.min(np.diff(values, axis=-1))
    return "" if smallest > 0 else f"a smallest step of {smallest}"
