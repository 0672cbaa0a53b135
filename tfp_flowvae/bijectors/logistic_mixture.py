"""The distribution function of a mixture of logistics, as an elementwise map of the real line.

Ho et al. (2019, equations 12 to 14) move the entries of a coupling by

    y = logit F(x),    F(x) = sum_k pi_k sigmoid(t_k),    t_k = (x - loc_k) exp(-log_scale_k),

    log dy/dx = log f(x) - log F(x) - log(1 - F(x)),    f = dF/dx .

With one component it is (x - loc) / scale. All three logarithms are log-sum-exps of log sigmoid
functions, so that nothing cancels in the tails, where F is 0 or 1 to rounding.

The inverse is the root of a monotone equation. The quantiles loc_k + scale_k y of the components
are a bracket, since F(x) of the mixture is between those of its components; Newton's method inside
it, with bisection where a step would leave it, ends at rounding.

References:
  Jonathan Ho, Xi Chen, Aravind Srinivas, Yan Duan, and Pieter Abbeel. Flow++: Improving Flow-Based
  Generative Models with Variational Dequantization and Architecture Design. ICML 2019.
  https://arxiv.org/abs/1902.00275
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf
import tensorflow_probability as tfp
from tensorflow_probability import bijectors as tfb

from tfp_flowvae._typing import TensorLike
from tfp_flowvae.bijectors.internal import numerics, validate
from tfp_flowvae.bijectors.internal.parametric import parameter
from tfp_flowvae.bijectors.joint import JointEvaluation

# Newton's method takes some ten steps; a bisection alone would take as many as these.
_MAX_ITERATIONS = {tf.float32: 60, tf.float64: 120}


class LogisticMixtureLogit(JointEvaluation, tfb.AutoCompositeTensorBijector):
    """y = logit of the distribution function of a mixture of K logistics, elementwise.

    The mathematics is at the head of this module. Derivatives of the inverse are those of the
    implicit function; second derivatives of it are not right.

    Example:
      >>> bijector = LogisticMixtureLogit(tf.zeros([2]), [-1.0, 1.0], tf.zeros([2]))
      >>> bijector.forward([0.0])
      <tf.Tensor: shape=(1,), dtype=float32, numpy=array([0.], dtype=float32)>

    Args:
      logits: `[..., K]`, logarithms of the weights pi, up to a constant. Float32 or float64, as all
        parameters.
      loc: `[..., K]`.
      log_scale: `[..., K]`.
      validate_args: Whether to check that the parameters are finite.
      name: The name of this bijector and the scope of its operations.

    Raises:
      TypeError: If the dtypes differ or are not float32 or float64.
      ValueError: If the shapes do not fit together, or `validate_args` finds a parameter that is
        not finite.
    """

    _AXES = {"logits": "K", "loc": "K", "log_scale": "K"}  # noqa: RUF012
    logits = parameter("logits", "The logarithms of the weights, as they were given.")
    loc = parameter("loc", "The locations, as they were given.")
    log_scale = parameter("log_scale", "The logarithms of the scales, as they were given.")

    def __init__(
        self,
        logits: TensorLike,
        loc: TensorLike,
        log_scale: TensorLike,
        validate_args: bool = False,
        name: str = "logistic_mixture_logit",
    ) -> None:
        parameters = dict(locals())
        with tf.name_scope(name) as name:
            given = {key: parameters[key] for key in self._AXES}
            tensors = validate.convert_parameters(type(self).__name__, self._AXES, given)
            self._logits, self._loc, self._log_scale = tensors.values()
            super().__init__(
                forward_min_event_ndims=0,
                validate_args=validate_args,
                dtype=self._loc.dtype,
                parameters=parameters,
                name=name,
            )

    @classmethod
    def _parameter_properties(cls, dtype: Any) -> dict[str, tfp.util.ParameterProperties]:
        return validate.parameter_properties(cls._AXES)

    def _parameter_control_dependencies(self, is_init: bool) -> list:
        if not self.validate_args:
            return []
        given = {key: getattr(self, f"_{key}") for key in self._AXES}
        return validate.finite_assertions(type(self).__name__, given, is_init)

    def _forward_and_log_det(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return _evaluate(x, *self._parts())

    def _inverse_and_log_det(self, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        parts = self._parts()
        x = _solve(tf.stop_gradient(y), *map(tf.stop_gradient, parts))
        # One step of Newton's method moves x by rounding, and gives it the derivatives of the root.
        value, log_slope = _evaluate(x, *parts)
        x -= (value - y) * tf.stop_gradient(tf.exp(-log_slope))
        return x, -_evaluate(x, *parts)[1]

    def _parts(self) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """The logarithms of the weights, locations and logarithms of the scales."""
        weights = tf.nn.log_softmax(tf.convert_to_tensor(self.logits), axis=-1)
        return weights, tf.convert_to_tensor(self.loc), tf.convert_to_tensor(self.log_scale)


def _evaluate(
    x: tf.Tensor, log_weights: tf.Tensor, loc: tf.Tensor, log_scale: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """y and log dy/dx, `[...]`."""
    t = (x[..., tf.newaxis] - loc) * tf.exp(-log_scale)
    below, above = tf.math.log_sigmoid(t), tf.math.log_sigmoid(-t)
    log_cdf = tf.reduce_logsumexp(log_weights + below, axis=-1)
    log_survival = tf.reduce_logsumexp(log_weights + above, axis=-1)
    log_density = tf.reduce_logsumexp(log_weights + below + above - log_scale, axis=-1)
    return log_cdf - log_survival, log_density - log_cdf - log_survival


def _solve(y: tf.Tensor, log_weights: tf.Tensor, loc: tf.Tensor, log_scale: tf.Tensor) -> tf.Tensor:
    """The x of y, by Newton's method in a bracket; not differentiable."""
    quantiles = loc + tf.exp(log_scale) * y[..., tf.newaxis]
    low, high = tf.reduce_min(quantiles, axis=-1), tf.reduce_max(quantiles, axis=-1)
    tolerance = 4.0 * numerics.epsilon(y.dtype)
    size = tf.abs(low) + tf.abs(high)

    def step(x: tf.Tensor, low: tf.Tensor, high: tf.Tensor, _: tf.Tensor) -> tuple:
        value, log_slope = _evaluate(x, log_weights, loc, log_scale)
        low, high = tf.where(value < y, x, low), tf.where(value < y, high, x)
        newton = x - (value - y) * tf.exp(-log_slope)
        inside = (newton >= low) & (newton <= high)
        following = tf.where(inside, newton, 0.5 * (low + high))
        return following, low, high, tf.abs(following - x) <= tolerance * size

    return tf.while_loop(
        lambda x, low, high, done: tf.logical_not(tf.reduce_all(done)),
        step,
        (0.5 * (low + high), low, high, tf.zeros_like(y, tf.bool)),
        maximum_iterations=_MAX_ITERATIONS[y.dtype],
    )[0]


def logistic_mixture_from_raw(
    raw: TensorLike, components: int, name: str = "logistic_mixture"
) -> tfb.Bijector:
    """The map of Flow++ that unconstrained numbers stand for; zeros are the identity.

        y = exp(a) logit F(x) + b

    The logarithms of all scales are between -3 and 3, and a between -2 and 2.

    Args:
      raw: `[..., 3 K + 2]`: an elementwise bijector for points `[...]`. Float32 or float64.
      components: K, at least 1.
      name: The name of the bijector.

    Returns:
      The bijector.

    Raises:
      ValueError: If K is below 1 or the last dimension of `raw` is not 3 K + 2.

    Example:
      >>> bijector = logistic_mixture_from_raw(tf.random.normal([2, 14]), components=4)
      >>> y = bijector.forward([1.0, -2.0])  # a mixture for each of the two numbers
      >>> y.shape
      TensorShape([2])
    """
    raw = tf.convert_to_tensor(raw)
    validate.check_count("logistic_mixture_from_raw", "components", components)
    if raw.shape[-1] != 3 * components + 2:
        raise ValueError(
            f"A mixture of {components} logistics takes raw parameters whose last dimension is "
            f"{3 * components + 2}. Received: raw.shape={raw.shape}."
        )
    logits, loc, log_scale, ends = tf.split(raw, [*[components] * 3, 2], axis=-1)
    mixture = LogisticMixtureLogit(logits, loc, _clip(log_scale, 3.0))
    ends_scale = tfb.Scale(log_scale=_clip(ends[..., 0], 2.0))
    return tfb.Chain([tfb.Shift(ends[..., 1]), ends_scale, mixture], name=name)


class LogisticMixtureTransform(tf.Module):
    """A network's output as the map of Flow++, for use as `bijector_fn` in couplings.

        flow = ChannelCoupling(bijector_fn=LogisticMixtureTransform(network, components=8))

    Args:
      conditioner: `fn(kept, units)`: to raw parameters `[..., M, 3 K + 2]` for M points. Zeros are
        the identity.
      components: K, at least 1.
      name: The name of the module.

    Raises:
      ValueError: If K is below 1, or the conditioner's output does not fit.

    Example:
      >>> network = lambda kept, units: tf.random.normal([*kept.shape[:-1], units, 14])
      >>> flow = ChannelCoupling(bijector_fn=LogisticMixtureTransform(network, components=4))
      >>> flow.forward(tf.zeros([2, 4, 4, 2])).shape
      TensorShape([2, 4, 4, 2])
    """

    def __init__(
        self,
        conditioner: Callable[..., tf.Tensor],
        components: int = 8,
        name: str = "logistic_mixture_transform",
    ) -> None:
        super().__init__(name=name)
        validate.check_count(type(self).__name__, "components", components)
        self._conditioner, self._components = conditioner, components

    def __call__(self, kept: tf.Tensor, units: int) -> tfb.Bijector:
        """Returns the bijector of the points that move."""
        return logistic_mixture_from_raw(self._conditioner(kept, units), self._components)


def _clip(raw: tf.Tensor, limit: float) -> tf.Tensor:
    return limit * tf.tanh(raw / limit)
