"""The flow VAE: an encoder, a posterior, a prior, a decoder and a likelihood, trained by `fit`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_flowvae._endpoints import Endpoint
from tfp_flowvae._typing import TensorLike
from tfp_flowvae.distributions.flow_distribution import Draw, as_distribution
from tfp_flowvae.distributions.interpolation import interpolate
from tfp_flowvae.likelihoods import make_likelihood
from tfp_flowvae.likelihoods.base import Likelihood
from tfp_flowvae.models.card import write_card
from tfp_flowvae.models.card_subjects import vae_subject
from tfp_flowvae.models.endpoints import vae_endpoints
from tfp_flowvae.models.facts import Facts
from tfp_flowvae.models.gradients import for_training
from tfp_flowvae.models.importance import importance_estimates
from tfp_flowvae.models.objective import ElboTerms, Objective
from tfp_flowvae.models.parts import batch_of, build_parts, check_dropout, check_free_bits
from tfp_flowvae.networks.registry import make_decoder, make_encoder
from tfp_flowvae.training.model import FastModel
from tfp_flowvae.training.noise import Noise
from tfp_flowvae.training.xla import xla_suits

# The streams of the noise that drops pixels of the encoder's input, and of drawn pixels.
_DROPOUT_STREAM, _PIXEL_STREAM = 0xD407, 0x91C5


@keras.saving.register_keras_serializable(package="tfp_flowvae")
class FlowVAE(FastModel):
    """A variational autoencoder whose posterior and prior are flows.

        q(z|x): z0 ~ N(mu(x), sigma(x)^2), z = f_x(z0)      Rezende & Mohamed (2015), eq. 13-15
        p(z):   z  = g(e), e ~ N(0, I) or a learnable base
        loss = E_q[log q(z|x) - log p(z) - log p(x|z)], in nats per image: see `Objective`

    Train it with `compile` (an optimizer is all it takes) and `fit` on images; there are no
    targets. The logged metrics are `loss`, `elbo`, `log_likelihood` and `kl`, in nats per image.

    Args:
      image_shape: `(H, W, C)`.
      latent_size: D, the size of z.
      encoder: The network from images `[B, H, W, C]` to features `[B, F]`: a name or spec string in
        `NETWORKS`, such as `"mlp:128x128"`, or a Keras layer or model.
      posterior: q(z|x), given the features: the spec string of a flow, with the base before it if
        it is not the normal, such as `"tril+iaf:2"`; a `FlowDistribution`; a `Flow`; or a
        `tfb.Bijector`.
      prior: p(z): a spec string, such as `"vamp:100+realnvp:4"`; a `FlowDistribution`; a `Flow`; or
        a `tfd.Distribution` of your own, or a function that returns one.
      decoder: The network from latent vectors `[B, D]` to the likelihood's parameters
        `[B, H, W, P]`, as for `encoder`.
      likelihood: p(x|z): a name or spec string in `LIKELIHOODS`, or a `Likelihood`.
      objective: How the terms of the bound become a loss; the evidence lower bound by default.
      seed: Of the noise in training and in `evaluate`.
      input_dropout: The share of the image's pixels that the encoder does not see in training, as
        in `keras.layers.Dropout`; the likelihood is that of the whole image. It keeps the encoder
        from overfitting (Shu et al. 2018, https://arxiv.org/abs/1805.08913).
      **kwargs: See `keras.Model`.

    Raises:
      UserError: If a spec string does not parse.
      ValueError: If the parts do not fit together.

    Example:
    ```python
    vae = fv.FlowVAE(
        image_shape=(28, 28, 1), latent_size=40, posterior="iaf:2", prior="realnvp:6"
    )
    vae.compile("adam")
    vae.fit(images, batch_size=100, epochs=10)  # [N, 28, 28, 1] in [0, 1]
    vae.sample(64, seed=0)  # [64, 28, 28, 1]
    ```
    """

    metric_names = ("elbo", "log_likelihood", "kl")
    encoder: keras.layers.Layer
    decoder: keras.layers.Layer
    likelihood: Likelihood

    def __init__(
        self,
        *,
        image_shape: Sequence[int],
        latent_size: int,
        encoder: str | keras.layers.Layer = "mlp",
        posterior: Any = "none",
        prior: Any = "none",
        decoder: str | keras.layers.Layer = "mlp",
        likelihood: str | Likelihood = "bernoulli",
        objective: Objective | None = None,
        seed: int | None = None,
        input_dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(seed=seed, **kwargs)
        self.image_shape, self.latent_size = tuple(image_shape), latent_size
        if isinstance(likelihood, str):
            likelihood = make_likelihood(likelihood)
        self.likelihood = likelihood
        if isinstance(encoder, str):
            encoder = make_encoder(encoder, self.image_shape)
        self.encoder = encoder
        if isinstance(decoder, str):
            channels = self.likelihood.output_channels(self.image_shape[-1])
            decoder = make_decoder(decoder, self.image_shape, latent_size, output_channels=channels)
        self.decoder = decoder
        # `posterior` and `prior` are methods: a layer of that name would hide them.
        self.posterior_layer = as_distribution(posterior, name="posterior")
        self.prior_layer = as_distribution(prior, name="prior")
        self.objective = Objective() if objective is None else objective
        self.input_dropout = input_dropout
        check_dropout(input_dropout)
        build_parts(
            self.image_shape,
            latent_size,
            self.encoder,
            self.posterior_layer,
            self.prior_layer,
            self.decoder,
            self.likelihood,
        )
        check_free_bits(self.objective.free_bits, self.posterior_layer, self.prior_layer)
        self.built = True

    def posterior(self, x: TensorLike) -> tfd.TransformedDistribution:
        """q(z|x) with batch shape `[B]` and event shape `[D]`, for images `[B, H, W, C]`."""
        return self.posterior_layer.distribution(self.encoder(self._images(x)))

    def prior(self) -> tfd.TransformedDistribution:
        """p(z) with batch shape `[]` and event shape `[D]`; its variables are the live weights."""
        return self.prior_layer.distribution()

    def draw(self, x: TensorLike, num_samples: int = 1, seed: TensorLike | None = None) -> Draw:
        """S draws from q(z|x) for each image `[B, H, W, C]`, and the terms of their densities."""
        features = self.encoder(self._images(x))
        return self.posterior_layer.draw(num_samples, features, self.stateless_seed(seed))

    def elbo_terms(
        self, x: TensorLike, num_samples: int = 1, seed: TensorLike | None = None
    ) -> ElboTerms:
        """The terms of the evidence lower bound, each `[S, B]`, in nats.

        Args:
          x: Images `[B, H, W, C]`.
          num_samples: S, how many z to draw for each image.
          seed: An int, an integer scalar or a stateless seed `[2]`; None draws a fresh one.
        """
        seed = self.stateless_seed(seed)
        return self.terms_of(self.draw(x, num_samples, seed), x, seed)

    def terms_of(
        self,
        draw: Draw,
        x: TensorLike,
        seed: TensorLike | Noise | None = None,
        per_dimension: bool = False,
    ) -> ElboTerms:
        """The terms of the bound at draws from q(z|x).

        Args:
          draw: The result of `draw`, or the same values with other gradients.
          x: The images, `[B, H, W, C]`.
          seed: Of a likelihood's dequantisation, if it has one; or the `Noise` itself.
          per_dimension: Whether to give the KL of each dimension, where posterior and prior
            factorise.
        """
        kl_per_dimension = None
        if per_dimension:
            base = draw.distribution.distribution.distribution
            kl_per_dimension = base.log_prob(draw.z0) - tfd.Normal(0.0, 1.0).log_prob(draw.z)
        noise = seed if isinstance(seed, Noise) else Noise(self.stateless_seed(seed))
        seen = self.likelihood.prepare(self._images(x), noise)
        return ElboTerms(
            log_likelihood=self.likelihood.log_prob(self._decode_parameters(draw.z), seen),
            log_prior=self.prior_layer.log_prob(draw.z),
            log_posterior=draw.log_prob,
            log_base=draw.log_base,
            log_det=draw.log_det,
            kl_per_dimension=kl_per_dimension,
        )

    def elbo(
        self, x: TensorLike, num_samples: int = 1, seed: TensorLike | None = None
    ) -> tf.Tensor:
        """The evidence lower bound of each image, `[B]`, in nats: the mean over S samples."""
        return tf.reduce_mean(self.elbo_terms(x, num_samples, seed).elbo, axis=0)

    def nll(
        self,
        x: TensorLike,
        num_samples: int = 5000,
        batch_size: int | None = None,
        seed: int | None = None,
    ) -> np.ndarray:
        """The importance-weighted estimate of -log p(x) of each image, `[N]`, in nats.

        -log 1/S sum_s p(x, z_s) / q(z_s|x), z_s ~ q(z|x), an upper bound that tightens as S grows
        (Burda et al. 2016, https://arxiv.org/abs/1509.00519, equation 8). Memory grows with neither
        N nor S.

        Args:
          x: Images `[N, H, W, C]`.
          num_samples: S.
          batch_size: How many images to take at once; 100 by default.
          seed: Of the samples; None draws a fresh one.

        Raises:
          ValueError: If `num_samples` or `batch_size` is below 1.
        """
        return importance_estimates(
            lambda x, num_samples, seed: self.elbo_terms(x, num_samples, seed).elbo,
            self._images(x).numpy(),
            num_samples,
            batch_size,
            seed,
            jit_compile=xla_suits(self),
        ).nll

    def sample(
        self,
        n: TensorLike,
        seed: TensorLike | None = None,
        temperature: TensorLike | None = None,
    ) -> tf.Tensor:
        """Mean images `[n, H, W, C]` in [0, 1] of n draws from the prior.

        Args:
          n: The number of images.
          seed: An int, an integer scalar or a stateless seed `[2]`; None draws a fresh one.
          temperature: T, which scales the draws of the prior's base about their mean, before the
            prior's flow: below 1 images are more typical and less varied. See
            `FlowDistribution.sample`. None for 1, the prior itself.

        Raises:
          UserError: If there is a temperature and the prior's base is a distribution without a
            mean.
        """
        seed = self.stateless_seed(seed)
        return self.decode(self.prior_layer.sample(n, seed=seed, temperature=temperature))

    def draw_images(self, n: int, seed: TensorLike | None = None) -> tf.Tensor:
        """n images drawn from p(x), `[n, H, W, C]`: z from the prior, then x from p(x|z).

        They are comparable with data: binary for a Bernoulli likelihood, where `sample` gives the
        probability of each pixel. Both take the same z for the same n and seed.
        """
        seed = self.stateless_seed(seed)
        z = self.prior_layer.sample(n, seed=seed)
        pixels = Noise(seed).stream(_PIXEL_STREAM).seed
        return self.likelihood.sample(self._decode_parameters(z), pixels)

    def encode(self, x: TensorLike, seed: TensorLike | None = None) -> tf.Tensor:
        """One draw from q(z|x) for each image `[B, H, W, C]`; `[B, D]`."""
        features = self.encoder(self._images(x))
        return self.posterior_layer.sample(1, features, self.stateless_seed(seed))[0]

    def decode(self, z: TensorLike) -> tf.Tensor:
        """The mean image of p(x|z) `[..., H, W, C]`, in [0, 1], of latent vectors `[..., D]`."""
        z = tf.cast(tf.convert_to_tensor(z, dtype_hint=tf.float32), tf.float32)
        if z.shape.rank == 0 or z.shape[-1] not in (None, self.latent_size):
            raise ValueError(
                f"z must have shape [..., {self.latent_size}]. Received: z.shape={tuple(z.shape)}."
            )
        return self.likelihood.mean(self._decode_parameters(z))

    def reconstruct(self, x: TensorLike, seed: TensorLike | None = None) -> tf.Tensor:
        """Mean images `[B, H, W, C]` of one posterior draw for each image."""
        return self.decode(self.encode(x, seed))

    def interpolate(self, x1: TensorLike, x2: TensorLike, steps: TensorLike) -> tf.Tensor:
        """Mean images along the paths from x1 to x2, `[steps, B, H, W, C]`.

        Each end is the z of the mean of the posterior's base. The path between them is simple in
        the space of the prior's base: see `tfp_flowvae.distributions.interpolate`.

        Args:
          x1: Images `[B, H, W, C]`.
          x2: Images `[B, H, W, C]`.
          steps: The number of images on each path, with both ends.
        """
        first, second = (
            self.posterior_layer.sample(1, self.encoder(self._images(x)), 0, temperature=0.0)[0]
            for x in (x1, x2)
        )
        return self.decode(interpolate(self.prior_layer, first, second, steps))

    def call(self, x: tf.Tensor, training: bool = False) -> dict[str, tf.Tensor]:
        """The terms of the bound by name, `[S, B]` each; `fit` turns them into loss and metrics."""
        objective, seed = self.objective, self.stateless_seed(None)
        seen = self._dropped_out(x, seed) if training and self.input_dropout else x
        draw = self.draw(seen, objective.num_samples, seed)
        scaled = None
        if training:
            draw, scaled = for_training(draw, objective)
        terms = self.terms_of(draw, x, seed, per_dimension=objective.free_bits > 0)
        if scaled is not None:
            scaled.factors = objective.path_factors(terms, self.step)
        return terms.named()

    def _dropped_out(self, x: TensorLike, seed: tf.Tensor) -> tf.Tensor:
        """What the encoder sees of images `[B, H, W, C]` in training."""
        x = self._images(x)
        u = Noise(seed).stream(_DROPOUT_STREAM).uniform(tf.unstack(tf.shape(x)), batch_axis=0)
        return x * tf.cast(u >= self.input_dropout, x.dtype) / (1.0 - self.input_dropout)

    def example_terms(
        self, x: Any, y: Any = None, training: bool = False
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """The loss and the metrics of each image, `[B]` each, in nats."""
        terms = ElboTerms(**self(x, training=training))
        means = {name: tf.reduce_mean(getattr(terms, name), axis=0) for name in self.metric_names}
        return self.objective.loss(terms, self.step if training else None), means

    def predict_step(self, data: Any) -> tf.Tensor:
        """Reconstructions `[B, H, W, C]`, for `predict`."""
        x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        return self.reconstruct(x)

    def prepare_fit(self, arguments: Mapping[str, Any]) -> None:
        """Refuses images that do not suit the likelihood."""
        images = arguments.get("x")
        if isinstance(images, (np.ndarray, tf.Tensor)):
            self.likelihood.check_data(np.asarray(images))

    def adapt(self, images: TensorLike) -> None:
        """Starts from data the parts that start from data: the pseudo-inputs of a `Vamp` base.

        Args:
          images: `[N, H, W, C]` in [0, 1], before training.
        """
        self.prior_layer.base.adapt(self._images(images).numpy(), self.seed or 0)

    def endpoints(self) -> dict[str, Endpoint]:
        """The functions of the exported SavedModel; see `tfp_flowvae.export`."""
        return vae_endpoints(self)

    def write_card(self, folder: Path, facts: Facts | None = None) -> None:
        """Writes README.md into an export's folder; see `FastModel.write_card`."""
        write_card(folder, vae_subject(self), facts or Facts())

    def _images(self, x: TensorLike) -> tf.Tensor:
        x = tf.cast(tf.convert_to_tensor(x, dtype_hint=tf.float32), tf.float32)
        if not x.shape.is_compatible_with([None, *self.image_shape]):
            raise ValueError(
                f"Images must be {batch_of(self.image_shape)}. Received: x.shape={tuple(x.shape)}."
            )
        return x

    def _decode_parameters(self, z: tf.Tensor) -> tf.Tensor:
        """The decoder over any leading dimensions: nets built for `[B, D]` refuse `[S, B, D]`.

        In float32 from here on, whatever the precision policy.
        """
        leading = tf.shape(z)[:-1]
        output = tf.cast(self.decoder(tf.reshape(z, [-1, self.latent_size])), tf.float32)
        return tf.reshape(output, tf.concat([leading, output.shape[1:]], axis=0))

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, every part serialised."""
        parts = {
            "encoder": self.encoder,
            "posterior": self.posterior_layer,
            "prior": self.prior_layer,
            "decoder": self.decoder,
            "likelihood": self.likelihood,
            "objective": self.objective,
        }
        return {
            **super().get_config(),
            "image_shape": self.image_shape,
            "latent_size": self.latent_size,
            **keras.saving.serialize_keras_object(parts),
            "seed": self.seed,
            "input_dropout": self.input_dropout,
        }
