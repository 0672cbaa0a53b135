"""The density of images of whole numbers: a flow of images, trained by `fit`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import bijectors as tfb

from tfp_flowvae._endpoints import Endpoint
from tfp_flowvae._typing import TensorLike
from tfp_flowvae.bijectors import inverse_and_log_det
from tfp_flowvae.distributions.flow_distribution import FlowDistribution, as_distribution
from tfp_flowvae.distributions.spec import parse_image_flow
from tfp_flowvae.errors import UserError
from tfp_flowvae.flows.image import ImageFlow
from tfp_flowvae.likelihoods.base import check_levels
from tfp_flowvae.models.card import write_card
from tfp_flowvae.models.card_subjects import image_density_subject
from tfp_flowvae.models.density import FlowDensity
from tfp_flowvae.models.dequantize import Dequantize, make_dequantize
from tfp_flowvae.models.endpoints import image_density_endpoints
from tfp_flowvae.models.facts import Facts
from tfp_flowvae.models.importance import estimates_of
from tfp_flowvae.models.objective import importance_bound
from tfp_flowvae.models.pixels import Pixels, check_pixels
from tfp_flowvae.models.rows import batches_of, is_array, training_rows
from tfp_flowvae.training.model import FastModel
from tfp_flowvae.training.noise import Noise, as_noise

# The statistics of so many images set every ActNorm.
_FIRST = 512


@keras.saving.register_keras_serializable(package="tfp_flowvae")
class ImageDensity(FlowDensity):
    """P(x) of images x with pixels 0, ..., L - 1, of which a flow bounds the logarithm.

        x + u = L logit^-1(f(z0)),   z0 from the base,   f the flow,   u ~ q(u|x) in [0, 1)^D
        loss = -E[log p(x + u) - log q(u|x)] >= -log P(x), in nats per image

    `fv.FlowDensity(flow, event_shape=(H, W, C))` makes one. `Dequantize` has the mathematics of u.
    `fit(x)` takes `[N, H, W, C]` of whole numbers of any dtype. The first `fit` sets every ActNorm
    from the training images, unless `adapt` has been called. `loss` is logged in nats, and the same
    number as `bits_per_dim`, loss / (H W C log 2).

    With `num_classes` it is P(x|y), as in `FlowDensity`, and every method takes a `label`. A flow
    of images is the same for every class: the base has a mean and a scale for each class, which are
    alike at the start, as in the class-conditional models of Glow (Kingma & Dhariwal 2018,
    https://arxiv.org/abs/1807.03039). A flow of vectors takes the class, too.

    Args:
      flow: The spec string of a flow in `IMAGE_FLOWS`, such as `"glow:levels=2,steps=8"`; an
        `ImageFlow`; or a flow of vectors of H W C numbers, as `FlowDensity` takes it.
      event_shape: `(H, W, C)`.
      levels: L.
      dequantize: "uniform", "variational", or a `Dequantize`.
      base: See `FlowDensity`.
      num_classes: See `FlowDensity`.
      label_dropout: See `FlowDensity`.
      seed: Of the noise in training and of samples that are drawn without a seed.
      **kwargs: See `keras.Model`.

    Raises:
      UserError: If a spec does not parse, or the flow does not fit the images.

    Example:
      >>> images = np.random.default_rng(0).integers(0, 16, (20, 4, 4, 1))  # [N, H, W, C]
      >>> density = fv.FlowDensity(
      ...     "glow:levels=1,steps=2,width=8", event_shape=(4, 4, 1), levels=16
      ... )
      >>> density.compile("adam")
      >>> history = density.fit(images, batch_size=10, epochs=1, verbose=0)
      >>> density.log_prob(images[:3], seed=0).shape  # lower bounds, in nats
      TensorShape([3])
      >>> density.sample(5, seed=0, temperature=0.8).dtype  # whole numbers from 0 to 15
      tf.int32
    """

    metric_names = ("bits_per_dim",)
    # The networks of a flow hold many channels of every sample.
    samples_at_once = 1000
    conditions = "num_classes for p(x|y)"

    def __init__(
        self,
        flow: Any = "glow",
        *,
        event_shape: Sequence[int],
        levels: int = 256,
        dequantize: str | Dequantize = "uniform",
        base: Any = "normal",
        num_classes: int | None = None,
        label_dropout: float = 0.1,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        # Not FlowDensity's constructor, which makes the units of columns.
        FastModel.__init__(self, seed=seed, **kwargs)
        check_levels(levels, optional=False)
        self.set_condition(num_classes, label_dropout)
        self.event_shape, self.levels = _checked_shape(event_shape), levels
        self.standardize = True
        if isinstance(dequantize, str):
            dequantize = make_dequantize(dequantize, levels)
        self.dequantize = dequantize
        if not dequantize.built:
            dequantize.build((None, *self.event_shape))
        parts = _parts_of(flow, base, self.event_shape)
        self._assemble(parts, Pixels(levels, name="x"), math.prod(self.event_shape))

    def log_prob(
        self,
        x: TensorLike,
        context: TensorLike | None = None,
        num_samples: TensorLike = 1,
        seed: TensorLike | None = None,
        *,
        label: TensorLike | None = None,
    ) -> tf.Tensor:
        """A lower bound of log P(x) of each image, `[B]`, in nats.

        log 1/S sum_s p(x + u_s) / q(u_s|x), which tightens as S grows. It is random: the mean over
        seeds is below log P(x). `distribution()` is the density of x + u as a vector, without a
        bound.

        Args:
          x: `[B, H, W, C]`, whole numbers from 0 to L - 1.
          context: None.
          num_samples: S.
          seed: An int, an integer scalar or a stateless seed `[2]`; None draws a fresh one.
          label: The label, or the labels `[B]`, of a density with classes.
        """
        self.context_rows(context)
        seed = self.stateless_seed(seed)
        return importance_bound(self.log_weights(x, num_samples, seed, label))

    def log_weights(
        self,
        x: TensorLike,
        n: TensorLike,
        seed: TensorLike | Noise,
        label: TensorLike | None = None,
    ) -> tf.Tensor:
        """log p(x + u) - log q(u|x) of n draws of u for each image, `[n, B]`, in nats."""
        noisy, log_q = self._noisy(x, n, seed)
        return self.layer.log_prob(noisy, self.condition_of_rows(label, None, noisy)) - log_q

    def nll(
        self,
        x: TensorLike,
        num_samples: int = 1,
        batch_size: int | None = None,
        seed: int | None = None,
        label: TensorLike | None = None,
    ) -> np.ndarray:
        """-`log_prob` of any number of images, float64 `[N]`: upper bounds of -log P(x), in nats.

        Args:
          x: `[N, H, W, C]`.
          num_samples: S.
          batch_size: How many images to take at once; by default 100, or fewer for more than 10
            draws.
          seed: Of the noise; None draws a fresh one.
          label: The label, or the labels `[N]`, of a density with classes.
        """
        check_pixels(x, self.event_shape, self.levels)
        return estimates_of(self, np.asarray(x), num_samples, batch_size, seed, label=label).nll

    def bits_per_dim(self, nats: Any) -> Any:
        """nats / (H W C log 2)."""
        return nats / (self.event_size * math.log(2.0))

    def sample(
        self,
        n: TensorLike,
        context: TensorLike | None = None,
        seed: TensorLike | None = None,
        temperature: TensorLike | None = None,
        label: TensorLike | None = None,
    ) -> tf.Tensor:
        """n images, int32 `[n, H, W, C]` of 0, ..., L - 1; arguments as for `FlowDensity`."""
        return self.images_of(super().sample(n, context, seed, temperature, label))

    def sample_and_log_prob(
        self,
        n: TensorLike,
        context: TensorLike | None = None,
        seed: TensorLike | None = None,
        label: TensorLike | None = None,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """n images, and lower bounds of their log P(x), `[n]`; see `sample` and `log_prob`."""
        images = self.sample(n, context, seed, label=label)
        return images, self.log_prob(images, seed=seed, label=label)

    def encode(
        self, x: TensorLike, seed: TensorLike | None = None, label: TensorLike | None = None
    ) -> tf.Tensor:
        """The z0 `[B, D]` of images `[B, H, W, C]`, with one draw of the noise."""
        noisy, _ = self._noisy(x, 1, self.stateless_seed(seed))
        return inverse_and_log_det(self._bijector(label, noisy[0]), noisy[0])[0]

    def decode(self, z: TensorLike, label: TensorLike | None = None) -> tf.Tensor:
        """The images, int32 `[B, H, W, C]`, of z0 `[B, D]`: `decode(encode(x))` is x."""
        z = tf.convert_to_tensor(z, dtype_hint=tf.float32)
        return self.images_of(self._bijector(label, z).forward(tf.identity(z)))

    def _bijector(self, label: TensorLike | None, rows: tf.Tensor) -> tfb.Bijector:
        """From z0 to x + u, for the labels of the rows `[B, D]`."""
        return self.layer.flow.bijector(self.condition_of_rows(label, None, rows))

    def images_of(self, x: tf.Tensor) -> tf.Tensor:
        """int32 images `[..., H, W, C]` of vectors `[..., D]` on the scale of the pixels."""
        whole = tf.cast(tf.floor(tf.clip_by_value(x, 0.0, self.levels - 1.0)), tf.int32)
        return tf.reshape(whole, tf.concat([tf.shape(x)[:-1], self.event_shape], axis=0))

    def example_terms(
        self, x: Any, y: Any = None, training: bool = False
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Minus the bound of each image, `[B]`, in nats, and the same in bits per dimension."""
        loss = -self(x, **self.condition_of_batch(y, training))
        return loss, {"bits_per_dim": self.bits_per_dim(loss)}

    def adapt(
        self, x: Any, context: Any = None, sample_weight: Any = None, steps: int | None = None
    ) -> None:
        """Sets every ActNorm from images: as its outputs, they have mean 0 and variance 1.

        Args:
          x: As for `fit`; of an array, 512 images from all over it are taken, and of a dataset the
            first batch.
          context: Not used.
          sample_weight: Not used.
          steps: Not used.
        """
        if is_array(x):
            x = x[:: max(1, len(x) // _FIRST)][:_FIRST]
        images = np.asarray(next(batches_of(x, steps=1))[0])
        check_pixels(images, self.event_shape, self.levels)
        noisy, _ = self._noisy(images, 1, 0 if self.seed is None else self.seed)
        condition = self.condition(None, None, 1)
        values = self._pixels.bijector(condition).inverse(tf.identity(noisy[0]))
        for flow in reversed(self.layer.flow.flows[0].flows):
            if isinstance(flow, ImageFlow):
                flow.initialize(values)
            values = flow.bijector(condition).inverse(tf.identity(values))
        self._pixels.adapted.assign(1.0)

    def prepare_fit(self, arguments: Mapping[str, Any]) -> None:
        """Checks arrays, and sets every ActNorm from the training images if need be."""
        x = arguments.get("x")
        if x is not None and is_array(x):
            self.check_condition(arguments.get("y"), len(x))
            check_pixels(x, self.event_shape, self.levels)
            x = x[: training_rows(arguments)]
        if not self._pixels.adapted.numpy():
            self.adapt(x)

    def endpoints(self) -> dict[str, Endpoint]:
        """The functions of the exported SavedModel; see `tfp_flowvae.export`."""
        return image_density_endpoints(self)

    def write_card(self, folder: Path, facts: Facts | None = None) -> None:
        """Writes README.md into an export's folder; see `FastModel.write_card`."""
        write_card(folder, image_density_subject(self), facts or Facts())

    @property
    def _pixels(self) -> Pixels:
        return self.layer.flow.flows[-1]

    def _noisy(
        self, x: TensorLike, n: TensorLike, seed: TensorLike | Noise
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """x + u as vectors `[n, B, D]`, and log q(u|x), `[n, B]`."""
        x = tf.cast(tf.convert_to_tensor(x), tf.float32)
        if not x.shape.is_compatible_with([None, *self.event_shape]):
            sizes = ", ".join(map(str, self.event_shape))
            raise UserError(f"Images must be [B, {sizes}]. Received: shape {tuple(x.shape)}.")
        u, log_q = self.dequantize.draw(x, n, as_noise(seed))
        shape = tf.concat([tf.shape(u)[:2], [self.event_size]], axis=0)
        return tf.reshape(x + u, shape), log_q

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, every part serialised."""
        parts = {
            "flow": self.layer.flow.flows[0],
            "base": self.layer.base,
            "dequantize": self.dequantize,
        }
        return {
            **FastModel.get_config(self),
            **keras.saving.serialize_keras_object(parts),
            "event_shape": self.event_shape,
            "levels": self.levels,
            "seed": self.seed,
            **self.condition_config(),
        }


def _parts_of(flow: Any, base: Any, event_shape: tuple[int, ...]) -> FlowDistribution:
    """The base and the flows, not built yet."""
    if isinstance(flow, str):
        spec = parse_image_flow(flow)
        flow = flow if spec is None else spec.build(image_shape=event_shape)
    plain = isinstance(base, str) and base == "normal"
    return as_distribution(flow) if plain else FlowDistribution(flow, base)


def _checked_shape(event_shape: Sequence[int]) -> tuple[int, ...]:
    shape = tuple(int(size) for size in event_shape)
    if len(shape) != 3 or min(shape) < 1:
        raise UserError(
            f"event_shape must be (H, W, C), such as (28, 28, 1). Received: {event_shape}."
        )
    return shape
