"""Dequantisation: noise that makes images of whole numbers continuous, so that flows fit them.

A density that is fitted to whole numbers x in 0 .. L - 1 grows without bound at these points. With
noise u in [0, 1)^D and P(x) the integral of p over the cell x + [0, 1)^D,

    log P(x) >= E_{u ~ q(u|x)}[log p(x + u) - log q(u|x)]

for every q (Theis et al. 2016; Ho et al. 2019, equation 12). The right-hand side is a lower bound
of log P(x), and is called a bound wherever it is reported. Uniform noise has q = 1. Variational
dequantisation learns q, and the bound gets tighter.

This is no `tfb.Bijector`: x + u is a random function of x, and has no log-det. It is the part of an
`ImageDensity` that draws u, and a Keras layer because a learned q has weights.

References:
  Lucas Theis, Aaron van den Oord, and Matthias Bethge. A note on the evaluation of generative
  models. ICLR 2016. https://arxiv.org/abs/1511.01844
  Jonathan Ho, Xi Chen, Aravind Srinivas, Yan Duan, and Pieter Abbeel. Flow++: Improving Flow-Based
  Generative Models with Variational Dequantization and Architecture Design. ICML 2019.
  https://arxiv.org/abs/1902.00275
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tfp_flowvae._typing import TensorLike
from tfp_flowvae.bijectors import forward_and_log_det
from tfp_flowvae.errors import UserError
from tfp_flowvae.flows.base import composed
from tfp_flowvae.flows.image_step import ImageStep
from tfp_flowvae.models.names import DEQUANTIZE
from tfp_flowvae.networks.building import ConfiguredLayer
from tfp_flowvae.training.noise import Noise

_STREAM = 0xDE9A  # the stream of the noise
_EVENT = [-3, -2, -1]


@keras.saving.register_keras_serializable(package="tfp_flowvae")
class Dequantize(ConfiguredLayer):
    """Uniform noise, u ~ U[0, 1)^D.

    Args:
      **kwargs: See `keras.layers.Layer`.

    Example:
      >>> from tfp_flowvae.training.noise import Noise
      >>> x = tf.constant([0.0, 3.0], shape=[1, 1, 2, 1])
      >>> u, log_q = Dequantize().draw(x, 5, Noise(seed=0))
      >>> u.shape, log_q.shape
      (TensorShape([5, 1, 1, 2, 1]), TensorShape([5, 1]))
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})

    def draw(self, x: tf.Tensor, n: TensorLike, noise: Noise) -> tuple[tf.Tensor, tf.Tensor]:
        """n draws of u for each image, and their log-densities.

        Args:
          x: `[B, H, W, C]`, whole numbers.
          n: How many draws.
          noise: Where they come from.

        Returns:
          u `[n, B, H, W, C]` in [0, 1], and log q(u|x) `[n, B]`, in nats.
        """
        u = noise.stream(_STREAM).uniform([n, *tf.unstack(tf.shape(x))], batch_axis=1)
        return u, tf.zeros(tf.shape(u)[:2])


@keras.saving.register_keras_serializable(package="tfp_flowvae")
class VariationalDequantize(Dequantize):
    """Noise whose distribution depends on the image, and is learned with the density.

        u = sigmoid(f_x(e)),    e ~ Logistic(0, 1)^D

    f_x are couplings of a checkerboard's pixels, whose networks see x. They start as the identity,
    which gives uniform noise.

    Args:
      steps: K, the number of couplings.
      width: The channels of their networks, see `CouplingNetwork`.
      levels: L of the images.
      coupling: As in `ImageFlow`.
      **kwargs: See `keras.layers.Layer`.

    Example:
      >>> density = fv.FlowDensity(
      ...     "glow:levels=1,steps=1,width=8",
      ...     event_shape=(4, 4, 1),
      ...     levels=16,
      ...     dequantize=VariationalDequantize(steps=2, width=8, levels=16),
      ... )
      >>> density.log_prob(np.zeros([3, 4, 4, 1], int), num_samples=5, seed=0).shape
      TensorShape([3])
    """

    def __init__(
        self,
        steps: int = 4,
        width: int = 32,
        levels: int = 256,
        coupling: str = "affine",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.steps, self.width, self.levels, self.coupling = steps, width, levels, coupling

    def build(self, image_shape: Sequence[int]) -> None:
        """Creates the networks for images `[B, H, W, C]`."""
        shape = tuple(image_shape[1:])
        self._couplings = [
            ImageStep(
                shape,
                self.coupling,
                self.width,
                checkerboard=True,
                reverse=bool(k % 2),
                normalizes=False,
                context_channels=shape[-1],
                dtype=self.dtype_policy,
            )
            for k in range(self.steps)
        ]

    def draw(self, x: tf.Tensor, n: TensorLike, noise: Noise) -> tuple[tf.Tensor, tf.Tensor]:
        """n draws of u for each image, and their log-densities; see `Dequantize`."""
        uniform, _ = super().draw(x, n, noise)
        # Uniform draws are multiples of 2^-24, 0 among them, where the logarithm would be infinite.
        e = tf.math.log(uniform + 2.0**-25) - tf.math.log(1.0 - uniform)
        context = 2.0 * tf.cast(x, tf.float32) / (self.levels - 1.0) - 1.0
        flow = composed([coupling.bijector(context) for coupling in self._couplings])
        h, log_det = forward_and_log_det(flow, e, event_ndims=3)
        return tf.sigmoid(h), tf.reduce_sum(_logistic(e) - _logistic(h), axis=_EVENT) - log_det


def make_dequantize(kind: str, levels: int) -> Dequantize:
    """The layer of a word in `DEQUANTIZE`, for images of so many levels.

    Raises:
      UserError: If there is no such word.
    """
    if kind not in DEQUANTIZE:
        raise UserError(f"dequantize must be {' or '.join(DEQUANTIZE)}. Received: {kind!r}.")
    return Dequantize() if kind == "uniform" else VariationalDequantize(levels=levels)


def kind_of(layer: Dequantize) -> str:
    """The word of a layer in `DEQUANTIZE`."""
    return "uniform" if type(layer) is Dequantize else "variational"


def _logistic(e: tf.Tensor) -> tf.Tensor:
    """The log-density of the logistic distribution, which is log d sigmoid(e) / de."""
    return tf.math.log_sigmoid(e) + tf.math.log_sigmoid(-e)
