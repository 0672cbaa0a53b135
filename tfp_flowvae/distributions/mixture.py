"""Mixtures as the base of a flow: of normals, and of posteriors (VampPrior)."""

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
from tfp_flowvae._typing import TensorLike
from tfp_flowvae.distributions.base import Base
from tfp_flowvae.distributions.full_covariance import FullCovarianceNormal
from tfp_flowvae.distributions.normal import UNIT_SCALE
from tfp_flowvae.flows.sized import ParametricLayer
from tfp_flowvae.training.noise import Noise

_register = keras.saving.register_keras_serializable(package="tfp_flowvae")

# Standard deviation of a mixture's means at the start.
_MEANS_SPREAD = 0.3
# By how much the logit of a component is above the others at the start for its own class: the 10 of
# 100 components that are of one of 10 classes have 86% of the weight.
_OWN_CLASS = 4.0


class NormalMixture(tfd.MixtureSameFamily):
    """A `tfd.MixtureSameFamily` of normals that draws only the components that it returns.

    Its components are a `tfd.Independent` of `tfd.Normal`s or a `FullCovarianceNormal`.

    TFP's own draws every component for each sample and keeps one: `[n, K, D]` numbers for 10,000
    images from 500 components of 40 dimensions are 800 MB.
    """

    def _sample_n(self, n: tf.Tensor, seed: Any = None) -> tf.Tensor:
        return self.tempered(n, 1.0, seed)

    def tempered(self, n: TensorLike, temperature: TensorLike, seed: Any = None) -> tf.Tensor:
        """n draws `[n, *B, D]`, each T times as far from the mean of its component.

        The components are drawn with their weights at every T.

        Args:
          n: The number of draws.
          temperature: T, at least 0.
          seed: See `tfd.Distribution.sample`, whose draws have T = 1.
        """
        mixture_seed, noise_seed = tfp_random.split_seed(seed, n=2)
        component = self.mixture_distribution.sample(n, seed=mixture_seed)
        shape = tf.concat([tf.shape(component), self.event_shape], axis=0)
        noise = tfd.Normal(tf.zeros([], self.dtype), 1.0).sample(shape, seed=noise_seed)
        return self._from_noise(temperature * noise, component)

    def from_noise(self, noise: tf.Tensor, uniform: tf.Tensor) -> tf.Tensor:
        """Draws of a mixture as a function of noise, `[n, D]`.

        Args:
          noise: From N(0, I), `[n, D]`.
          uniform: From U[0, 1), `[n]`: the component is the first whose cumulative weight is above.

        The batch shape of the mixture is `[]`, or `[n]` for a draw from each.
        """
        below = tf.cumsum(self.mixture_distribution.probs_parameter(), axis=-1)[..., :-1]
        passed = tf.cast(uniform[:, tf.newaxis] >= below, tf.int32)
        component = tf.reduce_sum(passed, axis=-1)
        return self._from_noise(noise[tf.newaxis], component[tf.newaxis])[0]

    def _from_noise(self, noise: tf.Tensor, component: tf.Tensor) -> tf.Tensor:
        normals = self.components_distribution
        batch_rank = normals.batch_shape.rank - 1
        if isinstance(normals, FullCovarianceNormal):
            scale_tril = _pick(normals.scale_tril, component, batch_rank)
            loc = _pick(normals.loc, component, batch_rank)
            return loc + tf.linalg.matvec(scale_tril, noise)
        normals = normals.distribution
        loc, scale = (_pick(part, component, batch_rank) for part in (normals.loc, normals.scale))
        return loc + scale * noise


def _pick(parameter: tf.Tensor, component: tf.Tensor, batch_rank: int) -> tf.Tensor:
    """The chosen components' parameters `[n, *B, ...]`, of `[*B, K, ...]` and `[n, *B]`.

    Args:
      parameter: Of the components; with `batch_rank` 0 it is the same for all of a batch.
      component: Which of them.
      batch_rank: The rank of B in the parameter.
    """
    parameter = tf.convert_to_tensor(parameter)
    if batch_rank == 0:
        return tf.gather(parameter, component)
    # tf.gather wants the batch in front of both.
    order = [*range(1, batch_rank + 1), 0]
    picked = tf.gather(parameter, tf.transpose(component, order), batch_dims=batch_rank)
    rank = picked.shape.rank
    back = [batch_rank, *range(batch_rank), *range(batch_rank + 1, rank)]
    return tf.transpose(picked, back)


class _NormalMixtureBase(Base):
    """A base whose distribution is a `NormalMixture`."""

    def sample(
        self,
        distribution: tfd.Distribution,
        n: TensorLike,
        noise: Noise,
        temperature: TensorLike | None = None,
    ) -> tf.Tensor:
        """n draws, `[n, B, D]` or `[n, D]`; a temperature scales each about its component's mean.

        See `Base.sample` and `NormalMixture.tempered`.
        """
        if temperature is None:
            return distribution.sample(n, seed=noise.seed)
        return distribution.tempered(n, temperature, noise.seed)


def _check_components(components: int) -> int:
    if components < 1:
        raise ValueError(f"components must be at least 1. Received: {components=}.")
    return components


@_register
class Mixture(_NormalMixtureBase, ParametricLayer):
    """sum_k w_k N(mu_k, diag(sigma_k)^2), everything learnable; with a context, functions of it.

    Starts close to the standard normal: the means are drawn near 0, far enough apart to separate in
    training, and the widths make up the rest of the variance. In many dimensions means that are far
    apart would leave the mixture empty between them.

    Example:
      >>> base = Mixture(10, event_size=2)
      >>> base.distribution().sample(5).shape
      TensorShape([5, 2])

    Args:
      components: K.
      **kwargs: See `SizedLayer`.

    Raises:
      ValueError: If K is below 1.
    """

    def __init__(self, components: int = 10, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.components = _check_components(components)

    def parameter_initializers(self) -> dict[str, tuple[tuple[int, ...], Any]]:
        """Shapes and starting values of the means, the raw scales and the logits."""
        shape = (self.components, self.event_size)
        width = np.log(np.expm1(np.sqrt(1.0 - _MEANS_SPREAD**2))) - UNIT_SCALE
        return {
            "loc": (shape, keras.initializers.RandomNormal(stddev=_MEANS_SPREAD)),
            "raw_scale": (shape, keras.initializers.Constant(width)),
            "logits": ((self.components,), "zeros"),
        }

    def distribution(self, context: tf.Tensor | None = None) -> tfd.Distribution:
        """The mixture; its variables are live."""
        self.check_context(context)
        loc, raw_scale, logits = self.parameters(context).values()
        if isinstance(raw_scale, tf.Variable):
            positive = tfb.Chain([tfb.Softplus(), tfb.Shift(UNIT_SCALE)])
            scale = tfp_util.DeferredTensor(raw_scale, positive)
        else:
            # TFP's softplus has operations that ONNX lacks.
            scale = tf.math.softplus(raw_scale + UNIT_SCALE)
        return NormalMixture(
            tfd.Categorical(logits=logits), tfd.Independent(tfd.Normal(loc, scale), 1)
        )


@_register
class Vamp(_NormalMixtureBase):
    """The variational mixture of posteriors: sum_k w_k q0(z|u_k), a base for the prior of a VAE.

    Tomczak & Welling (2018), https://arxiv.org/abs/1705.07120, equation 9, with learnable weights:
    u_k are pseudo-inputs, learnable images, and q0 is the posterior's base, before its flow: a
    flow's density at z under every u_k would cost K inverses.

    The posteriors are those of the same step. Batch norm therefore normalises the pseudo-inputs by
    the statistics of the images: in training those of the batch, otherwise the moving ones, which
    pseudo-inputs never change. An encoder of your own needs `networks.BatchNormalization` for that;
    Keras's own uses the moving statistics in training, too, which lag behind.

    In a VAE with classes the weights are functions of the class, sum_k w_k(y) q0(z|u_k), and the
    pseudo-inputs are images of an unknown class.

    Example:
      >>> vae = fv.FlowVAE(image_shape=(8, 8, 1), latent_size=4, prior="vamp:20")
      >>> vae.prior().sample(5).shape
      TensorShape([5, 4])

    Args:
      components: K.
      image_shape: `(H, W, C)`. The model that the prior stands in fills it in.
      **kwargs: See `SizedLayer`.

    Raises:
      ValueError: If K is below 1, or from `build`, outside of a VAE.
    """

    starts_from_data = True

    def __init__(
        self, components: int = 100, image_shape: Sequence[int] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.components = _check_components(components)
        self.image_shape = None if image_shape is None else tuple(image_shape)
        self._posterior_base: Callable[[tf.Tensor], tfd.Distribution] | None = None

    def attach(
        self, posterior_base: Callable[[tf.Tensor], tfd.Distribution], image_shape: Sequence[int]
    ) -> None:
        """Ties the layer to the model whose posterior it mixes."""
        self._posterior_base, self.image_shape = posterior_base, tuple(image_shape)

    def build(self, z_shape: Any = None, context_shape: Any = None) -> None:
        """Creates the pseudo-inputs, grey with a little noise; see `adapt`."""
        super().build(z_shape, context_shape)
        if self.image_shape is None:
            raise ValueError(
                "The base 'vamp' mixes the posterior of a FlowVAE: give it to one as part of its "
                f"prior. Received: image_shape={self.image_shape}."
            )
        self._raw_images = self.add_weight(
            name="pseudo_inputs",
            shape=(self.components, *self.image_shape),
            initializer=keras.initializers.RandomNormal(mean=0.5, stddev=0.05),
            autocast=False,
        )
        self._logits = self.add_weight(
            name="logits", shape=(self.components,), initializer="zeros", autocast=False
        )
        if self.context_size is not None:
            self._logits_kernel = self.add_weight(
                name="logits_kernel",
                shape=(self.context_size, self.components),
                initializer="zeros",
                autocast=False,
            )

    def adapt(self, images: np.ndarray, seed: int, labels: np.ndarray | None = None) -> None:
        """Starts the pseudo-inputs at images drawn from the data.

        Args:
          images: `[N, H, W, C]` in [0, 1].
          seed: Seed of the draw, which is with replacement only where N is below K.
          labels: The label of each image, int32 `[N]`, or None. The components that start at images
            of a class have most of the weight for this class.
        """
        rng = np.random.default_rng(seed)
        few = len(images) < self.components
        chosen = rng.choice(len(images), self.components, replace=few)
        self._raw_images.assign(images[chosen])
        if labels is not None and self.context_size is not None:
            own = labels[chosen] == np.arange(self.context_size)[:, np.newaxis]
            self._logits_kernel.assign(np.where(own, _OWN_CLASS, 0.0))

    @property
    def pseudo_inputs(self) -> tf.Tensor:
        """u `[K, H, W, C]`, in [0, 1]."""
        return tf.clip_by_value(_compat.live(self._raw_images), 0.0, 1.0)

    def distribution(self, context: tf.Tensor | None = None) -> tfd.Distribution:
        """The mixture at the present weights of the encoder."""
        if self._posterior_base is None:
            raise ValueError(
                "The base 'vamp' mixes the posterior of a FlowVAE: give it to one as part of its "
                "prior. Received: a Vamp on its own."
            )
        with _compat.inference():
            components = self._posterior_base(self.pseudo_inputs)
        logits = _compat.live(self._logits)
        if context is not None:
            logits = logits + tf.matmul(context, _compat.live(self._logits_kernel))
        return NormalMixture(tfd.Categorical(logits=logits), components)
