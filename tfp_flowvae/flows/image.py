"""Flows of images: Glow, and Real NVP with its checkerboards.

Both are L scales, see `bijectors/multi_scale.py`: an image is squeezed, goes through K steps, and
half of its channels leave as latents. A step is an ActNorm and a coupling, whose network is
convolutional and puts out zeros at first; log-scales are bounded. So a flow starts close to a
linear map with outputs of variance 1 for the data that `initialize` was given.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from tensorflow_probability import bijectors as tfb

from tfp_flowvae import bijectors as fvb
from tfp_flowvae.flows.amortised import amortised
from tfp_flowvae.flows.base import Flow, checked_word, composed
from tfp_flowvae.flows.image_registry import COUPLINGS, check_levels
from tfp_flowvae.flows.image_step import ImageStep


class ImageFlow(Flow):
    """A flow from latent vectors `[..., D]` to images as vectors, D = H W C: the base class.

    A vector is an image in the order of `tf.reshape`, so that a flow of images is a flow like any
    other. It is the same for every context, on which only the base depends. A subclass defines
    `make_scale`.

    Args:
      levels: L, how many scales there are; each halves the height and the width.
      steps: K, how many steps a scale has.
      width: The channels of the couplings' networks, see `CouplingNetwork`.
      coupling: How a coupling moves numbers: "affine", "additive", "spline" (Durkan et al. 2019,
        8 bins on [-4, 4]) or "mixture" (of 4 logistics, Ho et al. 2019).
      image_shape: `(H, W, C)`.
      **kwargs: See `Flow`.

    Raises:
      ValueError: If an argument is not allowed.
      UserError: From `build`, if the images cannot be halved L times.

    Example:
      >>> class Boards(ImageFlow):
      ...     def make_scale(self, shape):
      ...         return [self.step(shape, k, checkerboard=True) for k in range(self.steps)]
      >>> flow = Boards(levels=1, steps=2, width=8, image_shape=(4, 4, 1))
      >>> flow(tf.zeros([5, 16]))[0].shape
      TensorShape([5, 16])
    """

    name_in_specs = ""

    def __init__(
        self,
        levels: int = 2,
        steps: int = 8,
        width: int = 64,
        coupling: str = "affine",
        *,
        image_shape: Sequence[int],
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"event_size": math.prod(image_shape), **kwargs})
        for name, value in (("levels", levels), ("steps", steps), ("width", width)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1. Received: {name}={value}.")
        self.levels, self.steps, self.width = levels, steps, width
        self.coupling = checked_word("coupling", coupling, COUPLINGS)
        self.image_shape = tuple(image_shape)
        check_levels(self.name_in_specs, levels, self.image_shape)

    def build(self, z_shape: Any = None, context_shape: Any = None) -> None:
        """Creates the steps."""
        super().build(z_shape, context_shape)
        height, width, channels = self.image_shape
        # One flat list: Keras saves the layers of a list, and not those of a list of lists.
        self._steps: list[ImageStep] = []
        for _ in range(self.levels):
            height, width, channels = height // 2, width // 2, 4 * channels
            self._steps += self.make_scale((height, width, channels))
            channels //= 2

    def make_scale(self, shape: tuple[int, int, int]) -> list[ImageStep]:
        """The steps of a scale, the first one on the side of the data.

        Args:
          shape: `(H, W, C)` of the squeezed images.
        """
        raise NotImplementedError

    def step(self, shape: Sequence[int], k: int, **kwargs: Any) -> ImageStep:
        """A step with the settings of the flow; every other one keeps the other part."""
        return ImageStep(
            shape,
            self.coupling,
            self.width,
            reverse=bool(k % 2),
            dtype=self.dtype_policy,
            **kwargs,
        )

    def scale_parts(self, steps: Sequence[ImageStep]) -> list[tfb.Bijector]:
        """The bijectors of a scale's steps, the first one on the side of the data."""
        return [step.bijector() for step in steps]

    def make_bijector(self, context: tf.Tensor | None) -> tfb.Bijector:
        """From latent vectors to images as vectors."""
        return amortised(context, self._map)

    def _map(self, context: tf.Tensor | None) -> tfb.Bijector:
        flat = tfb.Reshape([self.event_size], self.image_shape)
        return composed([self._scales(), flat])

    def _scales(self) -> fvb.MultiScale:
        count = len(self._steps) // self.levels
        parts = [
            self.scale_parts(self._steps[count * level : count * (level + 1)])
            for level in range(self.levels)
        ]
        return fvb.MultiScale([tfb.Invert(composed(part)) for part in parts], self.image_shape)

    def initialize(self, x: tf.Tensor) -> None:
        """Sets every ActNorm from data, so that its outputs have mean 0 and variance 1.

        Args:
          x: Images on the side of the data, as vectors `[N, D]`.
        """
        image, squeeze = tf.reshape(x, [-1, *self.image_shape]), fvb.Squeeze()
        for scale in self._scales().scales:
            # tf.identity: TFP's cache may know this tensor from before.
            image = fvb.initialize_act_norms(scale, tf.identity(squeeze.forward(image)), "inverse")
            image = tf.split(image, 2, axis=-1)[0]


@keras.saving.register_keras_serializable(package="tfp_flowvae")
class Glow(ImageFlow):
    """L scales of K steps: ActNorm, invertible 1 x 1 convolution and coupling of channels.

    Kingma & Dhariwal (2018), https://arxiv.org/abs/1807.03039. The arguments are those of
    `ImageFlow`.

    Example:
      >>> flow = Glow(levels=2, steps=2, width=8, image_shape=(4, 4, 1))
      >>> z, log_det = flow(tf.zeros([5, 16]))
    """

    name_in_specs = "glow"

    def make_scale(self, shape: tuple[int, int, int]) -> list[ImageStep]:
        """K steps that split the channels."""
        return [self.step(shape, k, convolves=True) for k in range(self.steps)]


@keras.saving.register_keras_serializable(package="tfp_flowvae")
class RealNVPImage(ImageFlow):
    """L scales of K couplings of a checkerboard's pixels and K couplings of channels.

    Dinh et al. (2017), https://arxiv.org/abs/1605.08803, section 3.6, with ActNorm in place of
    batch normalisation. The arguments are those of `ImageFlow`.

    Example:
      >>> flow = RealNVPImage(levels=2, steps=2, width=8, image_shape=(4, 4, 1))
      >>> z, log_det = flow(tf.zeros([5, 16]))
    """

    name_in_specs = "realnvp-image"

    def __init__(
        self,
        levels: int = 2,
        steps: int = 3,
        width: int = 64,
        coupling: str = "affine",
        *,
        image_shape: Sequence[int],
        **kwargs: Any,
    ) -> None:
        super().__init__(levels, steps, width, coupling, image_shape=image_shape, **kwargs)

    def make_scale(self, shape: tuple[int, int, int]) -> list[ImageStep]:
        """K steps before the squeezing and K after it."""
        height, width, channels = shape
        before = (2 * height, 2 * width, channels // 4)
        boards = [self.step(before, k, checkerboard=True) for k in range(self.steps)]
        return [*boards, *(self.step(shape, k) for k in range(self.steps))]

    def scale_parts(self, steps: Sequence[ImageStep]) -> list[tfb.Bijector]:
        """The checkerboards act on images that are not squeezed yet: see `MultiScale`."""
        bijectors, squeeze = super().scale_parts(steps), fvb.Squeeze()
        half = len(bijectors) // 2
        return [tfb.Invert(squeeze), *bijectors[:half], squeeze, *bijectors[half:]]
