"""The base classes of likelihoods: of all, and of those with a density."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_flowvae._configurable import Configurable
from tfp_flowvae.errors import UserError
from tfp_flowvae.training.noise import Noise

# The number of `prepare`'s stream of noise.
_STREAM = 0x0DE9
_CHUNK = 1 << 20  # pixels checked at once
_OFF_GRID = 0.01  # of a level: float32 holds k / (levels - 1) far closer than this


class Likelihood(Configurable, ABC):
    """The distribution of an image `[H, W, C]` given the decoder's output for it, `[H, W, P]`.

    `prepare` turns an image x into what `log_prob` scores:

        log_prob(output, prepare(x, noise)),

    which is log p(x|z), or an unbiased estimate of a lower bound on it. The encoder sees x.

    A subclass is a frozen dataclass, its fields its Keras config.

    Example:
      >>> class SharpLaplace(Likelihood):
      ...     def distribution(self, output):
      ...         return tfd.Independent(tfd.Laplace(output, 0.1), 3)
      ...
      ...     def mean(self, output):
      ...         return tf.clip_by_value(output, 0.0, 1.0)
      >>> SharpLaplace().log_prob(tf.zeros([5, 4, 4, 1]), tf.ones([5, 4, 4, 1])).shape
      TensorShape([5])
    """

    def output_channels(self, channels: int) -> int:
        """P, how many numbers the decoder gives for a pixel of C channels; C if not overridden."""
        return channels

    def image_channels(self, output_channels: int) -> int:
        """C, from P: the inverse of `output_channels`.

        Raises:
          ValueError: If no number of channels takes an output of that size.
        """
        for channels in range(1, output_channels + 1):
            if self.output_channels(channels) == output_channels:
                return channels
        wanted = ", ".join(str(self.output_channels(channels)) for channels in (1, 2, 3))
        raise ValueError(
            f"For {self!r} a decoder's output must have {wanted}, ... channels, for images of 1, "
            f"2, 3, ... channels. Received: an output of {output_channels} channels."
        )

    @property
    def discrete(self) -> bool:
        """Whether images are discrete: `log_prob` is a log-probability or a lower bound on one.

        Only then is -log2 p(x) / (H W C) a number of bits per dimension.
        """
        return False

    @abstractmethod
    def distribution(self, output: tf.Tensor) -> tfd.Distribution:
        """p(x|z) of prepared images, with batch shape `[...]` and event shape `[H, W, C]`."""

    @abstractmethod
    def mean(self, output: tf.Tensor) -> tf.Tensor:
        """The mean image, `[..., H, W, C]`, in [0, 1]."""

    def sample(self, output: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """One image drawn from p(x|z), `[..., H, W, C]`, on the scale of x.

        Args:
          output: `[..., H, W, P]`.
          seed: A stateless seed, `[2]`.
        """
        return self.distribution(output).sample(seed=seed)

    def prepare(self, x: tf.Tensor, noise: Noise) -> tf.Tensor:
        """The images as `log_prob` takes them: here, as they are.

        Args:
          x: `[B, H, W, C]` in [0, 1].
          noise: The source of random numbers; it may be that of z, whose stream is another.
        """
        return x

    def log_prob(self, output: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        """log p(x|z) in nats, `[...]`, of prepared x `[..., H, W, C]`; leading dims broadcast."""
        return self.distribution(output).log_prob(x)

    def check_data(self, images: np.ndarray, levels: int | None = None) -> None:
        """Refuses images that the likelihood does not fit; here, those that are not finite.

        Args:
          images: `[N, H, W, C]`, whole numbers 0 .. levels - 1, or intensities.
          levels: What the images' values are divided by, plus 1; None for intensities.

        Raises:
          UserError: If a pixel is not allowed.
        """
        if images.size and not math.isfinite(float(np.max(images)) - float(np.min(images))):
            raise UserError(
                "Pixels must be finite numbers. "
                f"Received: values from {np.min(images)} to {np.max(images)}."
            )


def check_pixels(
    likelihood: Likelihood, images: np.ndarray, levels: int | None, way_out: str = ""
) -> None:
    """Checks that pixels lie in [0, 1] and, if the likelihood has levels L, are k / (L - 1).

    Args:
      likelihood: The likelihood of the images.
      images: As in `Likelihood.check_data`.
      levels: As in `Likelihood.check_data`.
      way_out: What to do about pixels between the levels.

    Raises:
      UserError: If a pixel is outside or between the levels.
    """
    if not images.size:
        return
    name, low, high = type(likelihood).__name__, float(np.min(images)), float(np.max(images))
    top = 1 if levels is None else levels - 1
    # As one comparison that holds, because NaN fails it.
    if not 0.0 <= low <= high <= top:
        hint = ": divide 8-bit images by 255" if levels is None and 1 < high <= 255 else ""
        raise UserError(
            f"A {name} likelihood needs pixels in [0, {top}]{hint}. "
            f"Received: values from {low:g} to {high:g}."
        )
    wanted = getattr(likelihood, "levels", None)
    if wanted in (None, levels):
        return
    flat = images.reshape(-1)
    for start in range(0, flat.size, _CHUNK):
        steps = flat[start : start + _CHUNK] * np.float64((wanted - 1) / top)
        off = np.abs(steps - np.rint(steps)) > _OFF_GRID
        if np.any(off):
            raise UserError(
                f"A {name} likelihood with levels={wanted} needs pixels k / {wanted - 1} for whole "
                f"k: {way_out}. Received: a pixel of {steps[off][0] / (wanted - 1):g}."
            )


def check_levels(levels: int | None, optional: bool) -> None:
    """Raises a `UserError` if this is no number of grey levels."""
    if levels is None and optional:
        return
    if type(levels) is not int or not 2 <= levels <= 1 << 16:
        allowed = "from 2 to 65536" + (", or None for images that have none" if optional else "")
        raise UserError(f"levels must be a whole number {allowed}. Received: {levels!r}.")


@dataclass(frozen=True)
class DensityLikelihood(Likelihood):
    """A likelihood with a density, for images in [0, 1] with or without grey levels.

    A density on images of L levels can be made as large as one likes by spikes on the levels.
    Uniform dequantisation prevents that: with k = (L - 1) x the level of a pixel and u ~ U[0, 1),

        x' = (k + u) / L,    P(k) = E_u[p(x')] / L,
        log P(x) >= E_u[log p(x')] - H W C log L                           (Jensen)

    where P, the probability of the pixel's bin [k / L, (k + 1) / L], is a distribution over images
    of L levels (Uria et al. 2013, https://arxiv.org/abs/1306.0186; Theis et al. 2016,
    https://arxiv.org/abs/1511.01844, section 3.1). `prepare` draws x', `log_prob` includes the
    constant, and `mean` goes back to the scale of x: level k is the bin with centre (k + 1/2) / L.

    Attributes:
      levels: L, the number of grey levels; None scores the density of x itself, no dequantisation.

    Raises:
      UserError: If `levels` is not allowed.

    Example:
      >>> from dataclasses import dataclass
      >>> @dataclass(frozen=True)
      ... class Flat(DensityLikelihood):  # the uniform density on [0, 1]
      ...     def distribution(self, output):
      ...         return tfd.Independent(tfd.Uniform(tf.zeros_like(output), 1.0), 3)
      ...
      ...     def pixel_log_density(self, output, x):
      ...         return tf.zeros_like(x)
      ...
      ...     def pixel_mean(self, output):
      ...         return 0.5 * tf.ones_like(output)
      >>> Flat(levels=16).log_prob(tf.zeros([1, 2, 2, 1]), tf.ones([1, 2, 2, 1]))  # -4 log 16
      <tf.Tensor: shape=(1,), dtype=float32, numpy=array([-11.0904], dtype=float32)>
    """

    levels: int | None = 256

    def __post_init__(self) -> None:
        check_levels(self.levels, optional=True)

    @property
    def discrete(self) -> bool:
        """Whether `log_prob` bounds a log-probability: with `levels`."""
        return self.levels is not None

    @abstractmethod
    def pixel_log_density(self, output: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        """log p of every prepared pixel, `[..., H, W, C]`, in nats, from float32 arguments."""

    @abstractmethod
    def pixel_mean(self, output: tf.Tensor) -> tf.Tensor:
        """The mean of every prepared pixel, `[..., H, W, C]`, from float32 `output`."""

    def mean(self, output: tf.Tensor) -> tf.Tensor:
        """The mean image, `[..., H, W, C]`, on the scale of x, clipped to [0, 1]."""
        mean = self.pixel_mean(tf.cast(output, tf.float32))
        if self.levels is not None:
            mean = (self.levels * mean - 0.5) / (self.levels - 1)
        return tf.clip_by_value(mean, 0.0, 1.0)

    def sample(self, output: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """One image drawn from p(x|z), `[..., H, W, C]`: the levels whose bins x' falls in.

        A density's mass below 0 goes to the first level, that above 1 to the last; without
        `levels` the draw may lie outside [0, 1].
        """
        x = super().sample(output, seed)
        if self.levels is None:
            return x
        top = float(self.levels - 1)
        return tf.clip_by_value(tf.floor(float(self.levels) * x), 0.0, top) / top

    def prepare(self, x: tf.Tensor, noise: Noise) -> tf.Tensor:
        """x' as above, in [0, 1], from x `[B, H, W, C]`."""
        x = tf.cast(x, tf.float32)
        if self.levels is None:
            return x
        u = noise.stream(_STREAM).uniform(tf.unstack(tf.shape(x)), batch_axis=0)
        # Rounded, because x (L - 1) may fall just short of the level and end in the bin below.
        return (tf.round(x * float(self.levels - 1)) + u) / float(self.levels)

    def log_prob(self, output: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        """log p(x'|z) - H W C log L in nats, `[...]`, of prepared x' `[..., H, W, C]`.

        Summed in float32. The constant is taken off pixel by pixel, where it nearly cancels the
        density of a pixel that is well known.
        """
        pixels = self.pixel_log_density(tf.cast(output, tf.float32), tf.cast(x, tf.float32))
        return tf.reduce_sum(pixels - math.log(self.levels or 1), axis=[-3, -2, -1])

    def check_data(self, images: np.ndarray, levels: int | None = None) -> None:
        """Refuses pixels outside [0, 1] and, with `levels`, between the levels."""
        way_out = "give it the images' own number of levels, or None for images without"
        check_pixels(self, images, levels, way_out)
