"""Learnable base distributions of a prior: what stands in the standard normal's place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import bijectors as tfb
from tensorflow_probability import distributions as tfd
from tensorflow_probability import random as tfp_random
from tensorflow_probability import util as tfp_util

from tfp_flowvae import _compat
from tfp_flowvae.models.full_covariance import FullCovarianceNormal
from tfp_flowvae.models.posterior import UNIT_SCALE

_register = keras.saving.register_keras_serializable(package="tfp_flowvae")

# Standard deviation of a mixture's means at the start.
_MEANS_SPREAD = 0.3


class GaussianMixture(tfd.MixtureSameFamily):
    """A `tfd.MixtureSameFamily` of normals that draws only what it returns.

    Its components are a `tfd.Independent` of `tfd.Normal`s or a `FullCovarianceNormal`.

    TFP's own draws every component for each sample and keeps one: `[n, K, D]` numbers for 10,000
    images from 500 components of 40 dimensions are 800 MB.
    """

    def _sample_n(self, n: tf.Tensor, seed: Any = None) -> tf.Tensor:
        mixture_seed, noise_seed = tfp_random.split_seed(seed, n=2)
        component = self.mixture_distribution.sample(n, seed=mixture_seed)
        normals = self.components_distribution
        is_full = isinstance(normals, FullCovarianceNormal)
        normals = normals if is_full else normals.distribution
        loc = tf.gather(tf.convert_to_tensor(normals.loc), component)
        noise = tfd.Normal(tf.zeros([], loc.dtype), 1.0).sample(tf.shape(loc), seed=noise_seed)
        if is_full:
            return loc + tf.linalg.matvec(tf.gather(normals.scale_tril, component), noise)
        return loc + tf.gather(tf.convert_to_tensor(normals.scale), component) * noise


class PriorBase(keras.layers.Layer):
    """A layer that owns weights and answers with a distribution over vectors of `event_size`.

    In float32 whatever the precision policy.

    Args:
      event_size: D.
      components: K, how many distributions are mixed.
      **kwargs: See `keras.layers.Layer`.

    Raises:
      ValueError: If a size is below 1.
    """

    def __init__(self, event_size: int, components: int, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        if event_size < 1 or components < 1:
            raise ValueError(
                "event_size and components must be at least 1. "
                f"Received: {event_size=}, {components=}."
            )
        self.event_size, self.components = event_size, components

    def distribution(self) -> tfd.Distribution:
        """The base, with batch shape `[]` and event shape `[D]`."""
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "event_size": self.event_size,
            "components": self.components,
        }


@_register
class GaussianMixtureBase(PriorBase):
    """sum_k w_k N(mu_k, diag(sigma_k)^2), everything learnable.

    Starts close to the standard normal: means drawn near 0, apart enough to part ways, and widths
    that make up the rest of the variance. In many dimensions means that are far apart would leave
    the mixture empty between them.

    Args:
      event_size: D.
      components: K.
      **kwargs: See `keras.layers.Layer`.
    """

    def __init__(self, event_size: int, components: int = 10, **kwargs: Any) -> None:
        super().__init__(event_size, components, **kwargs)

    def build(self, input_shape: Any = None) -> None:
        """Creates the weights; every size is known from the constructor."""
        shape = (self.components, self.event_size)
        spread = _MEANS_SPREAD
        width = np.log(np.expm1(np.sqrt(1.0 - spread**2))) - UNIT_SCALE
        self._loc = self.add_weight(
            name="loc",
            shape=shape,
            initializer=keras.initializers.RandomNormal(stddev=spread),
            autocast=False,
        )
        self._raw_scale = self.add_weight(
            name="raw_scale",
            shape=shape,
            initializer=keras.initializers.Constant(width),
            autocast=False,
        )
        self._logits = self.add_weight(
            name="logits", shape=(self.components,), initializer="zeros", autocast=False
        )

    def distribution(self) -> tfd.Distribution:
        """The mixture, its variables live."""
        positive = tfb.Chain([tfb.Softplus(), tfb.Shift(UNIT_SCALE)])
        normal = tfd.Normal(
            _compat.live(self._loc),
            tfp_util.DeferredTensor(_compat.live(self._raw_scale), positive),
        )
        return GaussianMixture(
            tfd.Categorical(logits=_compat.live(self._logits)),
            tfd.Independent(normal, reinterpreted_batch_ndims=1),
        )


@_register
class VampBase(PriorBase):
    """The variational mixture of posteriors: sum_k w_k q0(z|u_k).

    Tomczak & Welling (2018), https://arxiv.org/abs/1705.07120, equation 9, with learnable weights:
    u_k are pseudo-inputs, learnable images, and q0 is the posterior's Gaussian base, before its
    flow: a flow's density at z under every u_k would cost K inverses.

    What is mixed is the posterior of the same moment. Batch norms therefore normalise the
    pseudo-inputs by the statistics of the images: in training those of the batch, else the moving
    ones, which pseudo-inputs never move. In an encoder of one's own that takes
    `networks.BatchNormalization`; Keras's own uses the moving statistics in training, too, and they
    lag behind.

    Args:
      event_size: D.
      components: K.
      image_shape: `(H, W, C)`.
      **kwargs: See `keras.layers.Layer`.
    """

    def __init__(
        self, event_size: int, components: int, image_shape: Sequence[int], **kwargs: Any
    ) -> None:
        super().__init__(event_size, components, **kwargs)
        self.image_shape = tuple(image_shape)
        self._base_of: Callable[[tf.Tensor], tfd.Distribution] | None = None

    def attach(self, base_of: Callable[[tf.Tensor], tfd.Distribution]) -> None:
        """Ties the layer to the model whose posterior it mixes; `FlowVAE` calls it.

        Args:
          base_of: From images `[K, H, W, C]` to the posterior's base of batch shape `[K]`.
        """
        self._base_of = base_of

    def build(self, input_shape: Any = None) -> None:
        """Creates the pseudo-inputs, grey with a little noise; see `adapt`."""
        self._raw_images = self.add_weight(
            name="pseudo_inputs",
            shape=(self.components, *self.image_shape),
            initializer=keras.initializers.RandomNormal(mean=0.5, stddev=0.05),
            autocast=False,
        )
        self._logits = self.add_weight(
            name="logits", shape=(self.components,), initializer="zeros", autocast=False
        )

    def adapt(self, images: np.ndarray, seed: int) -> None:
        """Starts the pseudo-inputs at images drawn from the data.

        Args:
          images: `[N, H, W, C]` in [0, 1].
          seed: Of the draw; with replacement only where N is below K.
        """
        rng = np.random.default_rng(seed)
        few = len(images) < self.components
        self._raw_images.assign(images[rng.choice(len(images), self.components, replace=few)])

    @property
    def pseudo_inputs(self) -> tf.Tensor:
        """u `[K, H, W, C]`, in [0, 1]."""
        return tf.clip_by_value(_compat.live(self._raw_images), 0.0, 1.0)

    def distribution(self) -> tfd.Distribution:
        """The mixture at the present weights of the encoder."""
        if self._base_of is None:
            raise ValueError(
                "A VampBase mixes the posterior of a FlowVAE: give it to one as part of its prior. "
                "Received: a VampBase on its own."
            )
        with _compat.inference():
            components = self._base_of(self.pseudo_inputs)
        mixture = tfd.Categorical(logits=_compat.live(self._logits))
        return GaussianMixture(mixture, components)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "image_shape": self.image_shape}
