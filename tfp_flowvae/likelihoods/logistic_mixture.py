"""Grey levels with probabilities of their own: the discretised mixture of logistics."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from tensorflow_probability import distributions as tfd

from tfp_flowvae._typing import TensorLike
from tfp_flowvae.errors import UserError
from tfp_flowvae.likelihoods.base import Likelihood, check_levels, check_pixels

# Far beyond any use; further up a bin's share of the width would underflow in float32.
_LARGEST_LOG_SCALE = 40.0


@keras.saving.register_keras_serializable(package="tfp_flowvae")
@dataclass(frozen=True)
class DiscretizedLogisticMixture(Likelihood):
    """Each pixel a mixture of K logistic distributions, rounded to L grey levels.

    On the scale y = 2 x - 1, with bins of half width h = 1 / (L - 1) (Salimans et al. 2017,
    https://arxiv.org/abs/1701.05517, section 2.1 and 2.2):

        P(y) = sum_k pi_k prod_c [F((y_c + h - m_kc) / s_kc) - F((y_c - h - m_kc) / s_kc)]
        m_kc = a_kc + sum_{j < c} tanh(t_kcj) y_j,    F the logistic function,

    where the darkest and the brightest bin reach out to infinity, so the L^C probabilities sum to
    one, and each channel's mean moves with the channels before it. For each pixel the output holds
    K (C + 1) (C + 2) / 2 numbers: the logits of pi, a, the log-scales and t. A log-scale r becomes
    log s = b + softplus(r - b) with b = log(h / 5): s stays above a tenth of a bin, below which
    nothing is gained, and the gradient does not vanish there as it would with a clip.

    With d = 2 h / s the bracket is, exactly and without cancellation anywhere,

        F(u) - F(u - d) = F(u) F(d - u) (1 - e^-d).

    `mean` takes, within each component, E[x] of the logistic clipped to [0, 1], which is less than
    half a level from the mean of the rounded one, and follows the channels' dependence with the
    means of the channels before, exact as long as nothing is clipped.

    Example:
      >>> DiscretizedLogisticMixture(levels=256, components=5).output_channels(1)
      15

    Attributes:
      levels: L, the images' number of grey levels.
      components: K.

    Raises:
      UserError: If a value is not allowed.
    """

    levels: int = 256
    components: int = 10
    discrete = True

    def __post_init__(self) -> None:
        check_levels(self.levels, optional=False)
        if type(self.components) is not int or self.components < 1:
            raise UserError(
                f"components must be a whole number from 1 up. Received: {self.components!r}."
            )

    def output_channels(self, channels: int) -> int:
        """K (C + 1) (C + 2) / 2: 3 K for grey images, 10 K for colour."""
        return self.components * (channels + 1) * (channels + 2) // 2

    def distribution(self, output: tf.Tensor) -> tfd.Distribution:
        """p(x|z) over x = k / (L - 1), batch shape `[...]` and event shape `[H, W, C]`."""
        return _LogisticMixtureImage(output, self)

    def log_prob(self, output: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        """log p(x|z) in nats, `[...]`, summed in float32; x is rounded to the nearest level."""
        mixture = self._mixture(output)
        level = tf.round(tf.cast(x, tf.float32) * float(self.levels - 1))[..., tf.newaxis]
        is_first, is_last = level < 0.5, level > self.levels - 1.5
        # The upper edge of a bin and the lower edge of the next are the same number.
        y, lower, upper = (
            (2.0 * level + shift) / float(self.levels - 1) - 1.0 for shift in (0.0, -1.0, 1.0)
        )
        log_joint = mixture.logits
        for c, log_scale in enumerate(mixture.log_scales):
            loc = mixture.loc(c, [y[..., j, :] for j in range(c)])
            inverse_scale = tf.exp(-log_scale)
            below = -tf.math.softplus((loc - upper[..., c, :]) * inverse_scale)
            above = -tf.math.softplus((lower[..., c, :] - loc) * inverse_scale)
            width = tf.math.log(-tf.math.expm1(inverse_scale * (-2.0 / (self.levels - 1))))
            first, last = is_first[..., c, :], is_last[..., c, :]
            log_joint += (
                tf.where(last, 0.0, below)
                + tf.where(first, 0.0, above)
                + tf.where(first | last, 0.0, width)
            )
        pixels = _log_sum_exp(log_joint) - _log_sum_exp(mixture.logits)
        return tf.reduce_sum(pixels, axis=[-2, -1])

    def mean(self, output: tf.Tensor) -> tf.Tensor:
        """The mean image, `[..., H, W, C]`, in [0, 1].

        For X logistic, E[clip(X, 0, 1)] is the integral of 1 - F over [0, 1], which is
        s (softplus(m / s) - softplus((m - 1) / s)).
        """
        mixture = self._mixture(output)
        means: list[tf.Tensor] = []
        for c, log_scale in enumerate(mixture.log_scales):
            m = 0.5 * (1.0 + mixture.loc(c, [2.0 * mean - 1.0 for mean in means]))
            s = 0.5 * tf.exp(log_scale)
            mean = s * (tf.math.softplus(m / s) - tf.math.softplus((m - 1.0) / s))
            means.append(tf.clip_by_value(mean, 0.0, 1.0))
        weights = tf.nn.softmax(mixture.logits)[..., tf.newaxis, :]
        mean = tf.reduce_sum(weights * tf.stack(means, axis=-2), axis=-1)
        return tf.clip_by_value(mean, 0.0, 1.0)

    def check_data(self, images: np.ndarray, levels: int | None = None) -> None:
        """Refuses pixels that are not one of the L levels."""
        way_out = "give it the images' own number of levels, or take a likelihood with a density"
        check_pixels(self, images, levels, way_out)

    def _mixture(self, output: tf.Tensor) -> _Mixture:
        """The output's parts, in float32."""
        channels = self.image_channels(output.shape[-1])
        output = tf.cast(output, tf.float32)
        parts = tf.split(output, output.shape[-1] // self.components, axis=-1)
        smallest = math.log(0.2 / (self.levels - 1))
        log_scales = [
            smallest + tf.math.softplus(tf.minimum(raw, _LARGEST_LOG_SCALE) - smallest)
            for raw in parts[1 + channels : 1 + 2 * channels]
        ]
        slopes = [tf.tanh(raw) for raw in parts[1 + 2 * channels :]]
        return _Mixture(parts[0], parts[1 : 1 + channels], log_scales, slopes)


def _log_sum_exp(x: tf.Tensor) -> tf.Tensor:
    """log sum_k e^x_k, `[...]`, of finite x `[..., K]`.

    The maximum is taken over slices: XLA would fuse `tf.reduce_max` into the exponential of every
    k, and compute all that x comes from K times over.
    """
    largest = tf.stop_gradient(functools.reduce(tf.maximum, tf.unstack(x, axis=-1)))
    return largest + tf.math.log(tf.reduce_sum(tf.exp(x - largest[..., tf.newaxis]), axis=-1))


class _Mixture(NamedTuple):
    """A pixel's parameters on the scale y = 2 x - 1, `[..., H, W, K]` each.

    Attributes:
      logits: Of the weights.
      shifts: C of them: a.
      log_scales: C of them.
      slopes: tanh(t), C (C - 1) / 2 of them, in the order (1, 0), (2, 0), (2, 1), (3, 0), ...
    """

    logits: tf.Tensor
    shifts: list[tf.Tensor]
    log_scales: list[tf.Tensor]
    slopes: list[tf.Tensor]

    def loc(self, c: int, before: list[tf.Tensor]) -> tf.Tensor:
        """m of channel c, given the channels before it on the scale of y."""
        first = c * (c - 1) // 2
        loc = self.shifts[c]
        for slope, y in zip(self.slopes[first : first + c], before, strict=True):
            loc += slope * y
        return loc


class _LogisticMixtureImage(tfd.Distribution):
    """The distribution of an image `[H, W, C]` from a decoder's output `[..., H, W, P]`."""

    def __init__(
        self,
        output: TensorLike,
        likelihood: DiscretizedLogisticMixture,
        validate_args: bool = False,
        allow_nan_stats: bool = True,
        name: str = "LogisticMixtureImage",
    ) -> None:
        parameters = dict(locals())
        self._output = tf.convert_to_tensor(output)
        self._likelihood = likelihood
        super().__init__(
            dtype=tf.float32,
            reparameterization_type=tfd.NOT_REPARAMETERIZED,
            validate_args=validate_args,
            allow_nan_stats=allow_nan_stats,
            parameters=parameters,
            name=name,
        )

    @classmethod
    def _parameter_properties(cls, dtype: Any, num_classes: Any = None) -> dict[str, Any]:
        return {"output": tfp.util.ParameterProperties(event_ndims=3)}

    @property
    def output(self) -> tf.Tensor:
        """The decoder's output."""
        return self._output

    def _event_shape(self) -> tf.TensorShape:
        shape = self._output.shape
        return shape[-3:-1].concatenate([self._likelihood.image_channels(shape[-1])])

    def _event_shape_tensor(self) -> tf.Tensor:
        channels = self._likelihood.image_channels(self._output.shape[-1])
        return tf.concat([tf.shape(self._output)[-3:-1], [channels]], axis=0)

    def _log_prob(self, x: tf.Tensor) -> tf.Tensor:
        return self._likelihood.log_prob(self._output, x)

    def _sample_n(self, n: TensorLike, seed: TensorLike = None) -> tf.Tensor:
        mixture, top = self._likelihood._mixture(self._output), self._likelihood.levels - 1
        seeds = tfp.random.split_seed(seed, n=1 + len(mixture.shifts), salt="logistic_mixture")
        component = tfd.Categorical(logits=mixture.logits).sample(n, seed=seeds[0])
        chosen = tf.one_hot(component, self._likelihood.components)

        def pick(parameter: tf.Tensor) -> tf.Tensor:
            return tf.reduce_sum(chosen * parameter, axis=-1)

        picked = _Mixture(component, *([pick(part) for part in parts] for parts in mixture[1:]))
        pixels: list[tf.Tensor] = []
        for c, log_scale in enumerate(picked.log_scales):
            loc = picked.loc(c, [2.0 * pixel - 1.0 for pixel in pixels])
            logistic = tfd.Logistic(loc, tf.exp(log_scale))
            level = tf.round(0.5 * top * (logistic.sample(seed=seeds[1 + c]) + 1.0))
            pixels.append(tf.clip_by_value(level, 0.0, float(top)) / float(top))
        return tf.stack(pixels, axis=-1)
