"""The flow VAE: an encoder, a posterior, a prior, a decoder and a likelihood, trained by `fit`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_flowvae._typing import TensorLike
from tfp_flowvae.bijectors import forward_and_log_det
from tfp_flowvae.models.likelihood import Bernoulli, Likelihood
from tfp_flowvae.models.objective import ElboTerms, Objective
from tfp_flowvae.models.posterior import FlowPosterior
from tfp_flowvae.models.prior import FlowPrior
from tfp_flowvae.networks.building import ensure_built

METRICS = ("elbo", "log_likelihood", "kl")


@keras.saving.register_keras_serializable(package="tfp_flowvae")
class FlowVAE(keras.Model):
    """A variational autoencoder whose posterior and prior are flows.

        q(z|x): z0 ~ N(mu(x), sigma(x)^2), z = f_x(z0)      Rezende & Mohamed (2015), eq. 13-15
        p(z):   z  = g(e), e ~ N(0, I)
        loss = E_q[log q(z|x) - log p(z) - log p(x|z)], in nats per image, from one sample

    Train it with `compile` (an optimizer is all it takes) and `fit` on images; there are no
    targets. The logged metrics are `loss`, `elbo`, `log_likelihood` and `kl`.

    Args:
      encoder: From images `[B, H, W, C]` to features `[B, F]`.
      posterior: From features to q(z|x).
      prior: p(z), over vectors of the posterior's size D.
      decoder: From latent vectors `[B, D]` to the likelihood's parameters.
      likelihood: p(x|z); Bernoulli pixels by default.
      objective: How the terms of the bound become a loss.
      seed: Of the noise in training and in `evaluate`.
      **kwargs: See `keras.Model`.

    Raises:
      ValueError: If the parts' sizes do not fit together.

    Example:
    ```python
    from tfp_flowvae import models, networks
    from tfp_flowvae.flows import make_flow

    vae = models.FlowVAE(
        encoder=networks.MLPEncoder((8, 8, 1), hidden=(128, 128)),
        posterior=models.FlowPosterior(make_flow("iaf:2", event_size=16, context_size=128)),
        prior=models.FlowPrior(make_flow("realnvp:4", event_size=16)),
        decoder=networks.MLPDecoder((8, 8, 1), event_size=16, hidden=(128, 128)),
    )
    vae.compile(optimizer="adam", jit_compile=True)
    vae.fit(images, batch_size=100, epochs=10)
    vae.sample(64, seed=0)  # [64, 8, 8, 1]
    ```
    """

    def __init__(
        self,
        encoder: keras.layers.Layer,
        posterior: FlowPosterior,
        prior: FlowPrior,
        decoder: keras.layers.Layer,
        likelihood: Likelihood | None = None,
        objective: Objective | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        # Under mixed precision Keras would round the images to 8 bits of mantissa before `call`.
        super().__init__(**{"autocast": False, **kwargs})
        if prior.event_size != posterior.event_size:
            raise ValueError(
                "The prior and the posterior must have the same latent size. Received: "
                f"prior.event_size={prior.event_size}, posterior.event_size={posterior.event_size}."
            )
        self.encoder = encoder
        # `posterior` and `prior` are methods: a layer of that name would hide them.
        self.posterior_layer = posterior
        self.prior_layer = prior
        self.decoder = decoder
        self.likelihood = Bernoulli() if likelihood is None else likelihood
        self.objective = Objective() if objective is None else objective
        self.event_size = posterior.event_size
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self._trackers = [keras.metrics.Mean(name=name) for name in METRICS]
        self._build_parts()

    def _build_parts(self) -> None:
        """Builds every part now: every size is known, and a built model needs no symbolic call."""
        ensure_built(self.posterior_layer)
        ensure_built(self.prior_layer)
        output = _trial("decoder", self._decode_parameters, [self.event_size])
        if output.shape.rank != 4:
            raise ValueError(
                f"The decoder must map latent vectors [B, {self.event_size}] to images "
                "[B, H, W, C * params]. "
                f"Received: a decoder whose output has shape {tuple(output.shape)} for B = 1."
            )
        event_shape = self.likelihood.distribution(output).event_shape
        self.image_shape = tuple(event_shape.as_list())
        features = _trial("encoder", self.encoder, self.image_shape)
        wanted = self.posterior_layer.flow.context_size
        if tuple(features.shape) != (1, wanted):
            raise ValueError(
                f"The encoder must map images [B, {', '.join(map(str, self.image_shape))}] to the "
                f"features [B, {wanted}] that the posterior was built for. "
                f"Received: an encoder whose output has shape {tuple(features.shape)} for B = 1."
            )
        self.built = True

    # ---- distributions -------------------------------------------------------------------------

    def posterior(self, x: TensorLike) -> tfd.TransformedDistribution:
        """q(z|x) with batch shape `[B]` and event shape `[D]`, for images `[B, H, W, C]`."""
        return self.posterior_layer.distribution(self.encoder(self._images(x)))

    def prior(self) -> tfd.TransformedDistribution:
        """p(z) with batch shape `[]` and event shape `[D]`; its variables are the live weights."""
        return self.prior_layer.distribution()

    def elbo_terms(
        self, x: TensorLike, num_samples: int = 1, seed: TensorLike | None = None
    ) -> ElboTerms:
        """The terms of the evidence lower bound, each `[S, B]`, in nats.

        z and log q(z|x) come from one pass through the flow, and log p(z) from one through the
        prior's: every conditioner runs once.

        Args:
          x: Images `[B, H, W, C]`.
          num_samples: S, how many z to draw for each image.
          seed: An int, an integer scalar or a stateless seed `[2]`; None draws a fresh one.
        """
        x = self._images(x)
        posterior = self.posterior(x)
        base = posterior.distribution
        z0 = base.sample(num_samples, seed=self._stateless(seed))
        log_base = base.log_prob(z0)
        z, log_det = forward_and_log_det(posterior.bijector, z0)
        return ElboTerms(
            log_likelihood=self.likelihood.log_prob(self._decode_parameters(z), x),
            log_prior=self.prior_layer(z),
            log_posterior=log_base - log_det,
            log_base=log_base,
            log_det=tf.broadcast_to(log_det, tf.shape(log_base)),
        )

    def elbo(
        self, x: TensorLike, num_samples: int = 1, seed: TensorLike | None = None
    ) -> tf.Tensor:
        """The evidence lower bound of each image, `[B]`, in nats: the mean over S samples."""
        return tf.reduce_mean(self.elbo_terms(x, num_samples, seed).elbo, axis=0)

    def log_marginal(
        self, x: TensorLike, num_samples: int = 500, seed: TensorLike | None = None
    ) -> tf.Tensor:
        """The importance-weighted estimate of log p(x), `[B]`, in nats.

        log 1/S sum_s p(x, z_s) / q(z_s|x), a lower bound that tightens as S grows (Burda et al.
        2016, https://arxiv.org/abs/1509.00519). All S samples are held at once.
        """
        log_weights = self.elbo_terms(x, num_samples, seed).elbo
        return tf.reduce_logsumexp(log_weights, axis=0) - tf.math.log(
            tf.cast(num_samples, log_weights.dtype)
        )

    # ---- what users call -----------------------------------------------------------------------

    def sample(self, n: TensorLike, seed: TensorLike | None = None) -> tf.Tensor:
        """Mean images `[n, H, W, C]` in [0, 1] of n draws from the prior."""
        return self.decode(self.prior().sample(n, seed=self._stateless(seed)))

    def encode(self, x: TensorLike, seed: TensorLike | None = None) -> tf.Tensor:
        """One draw from q(z|x) for each image `[B, H, W, C]`; `[B, D]`."""
        posterior = self.posterior(x)
        # In a graph `posterior.sample` cannot take a batch of size 0.
        z0 = posterior.distribution.sample(seed=self._stateless(seed))
        return posterior.bijector.forward(z0)

    def decode(self, z: TensorLike) -> tf.Tensor:
        """The mean image p(x|z) `[..., H, W, C]`, in [0, 1], of latent vectors `[..., D]`."""
        z = tf.cast(tf.convert_to_tensor(z, dtype_hint=tf.float32), tf.float32)
        if z.shape.rank == 0 or z.shape[-1] not in (None, self.event_size):
            raise ValueError(
                f"z must have shape [..., {self.event_size}]. Received: z.shape={tuple(z.shape)}."
            )
        return self.likelihood.mean(self._decode_parameters(z))

    def reconstruct(self, x: TensorLike, seed: TensorLike | None = None) -> tf.Tensor:
        """Mean images `[B, H, W, C]` of one posterior draw for each image."""
        return self.decode(self.encode(x, seed))

    def _images(self, x: TensorLike) -> tf.Tensor:
        x = tf.cast(tf.convert_to_tensor(x, dtype_hint=tf.float32), tf.float32)
        if not x.shape.is_compatible_with([None, *self.image_shape]):
            wanted = ", ".join(map(str, self.image_shape))
            raise ValueError(f"Images must be [B, {wanted}]. Received: x.shape={tuple(x.shape)}.")
        return x

    def _decode_parameters(self, z: tf.Tensor) -> tf.Tensor:
        """The decoder over any leading dimensions: nets built for `[B, D]` refuse `[S, B, D]`.

        In float32 from here on, whatever the precision policy.
        """
        leading = tf.shape(z)[:-1]
        output = tf.cast(self.decoder(tf.reshape(z, [-1, self.event_size])), tf.float32)
        return tf.reshape(output, tf.concat([leading, output.shape[1:]], axis=0))

    def _stateless(self, seed: TensorLike | None) -> tf.Tensor:
        """TFP's stateless seed, int32 `[2]`, from an int, a scalar, such a seed, or None."""
        if seed is None:
            return tf.cast(self.seed_generator.next(), tf.int32)
        seed = tf.convert_to_tensor(seed, dtype_hint=tf.int32)
        if seed.shape.rank == 0:
            return tf.stack([tf.cast(seed, tf.int32), 0])
        return seed

    # ---- Keras ---------------------------------------------------------------------------------

    def call(self, x: tf.Tensor, training: bool = False) -> dict[str, tf.Tensor]:
        """The terms of the bound by name, `[S, B]` each; `fit` turns them into loss and metrics."""
        return self.elbo_terms(x, self.objective.num_samples)._asdict()

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> tf.Tensor:
        """The mean loss over the batch, with what layers added by `add_loss`."""
        loss = self.objective.loss(ElboTerms(**y_pred))
        if sample_weight is not None:
            loss = loss * tf.cast(sample_weight, loss.dtype)
        return tf.add_n([tf.reduce_mean(loss), *self.losses])

    def compute_metrics(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None
    ) -> dict[str, tf.Tensor]:
        """Updates and returns the metrics."""
        terms = ElboTerms(**y_pred)
        for tracker in self._trackers:
            values = tf.reduce_mean(getattr(terms, tracker.name), axis=0)
            tracker.update_state(values, sample_weight=sample_weight)
        return super().compute_metrics(x, y, y_pred, sample_weight)

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
        serialized = {k: keras.saving.serialize_keras_object(v) for k, v in parts.items()}
        return {**super().get_config(), **serialized, "seed": self.seed}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> FlowVAE:
        """Rebuilds the model and every part of it."""
        parts = ("encoder", "posterior", "prior", "decoder", "likelihood", "objective")
        built = {
            k: keras.saving.deserialize_keras_object(config.pop(k), custom_objects=custom_objects)
            for k in parts
        }
        return cls(**built, **config)


def _trial(
    part: str, function: Callable[[tf.Tensor], tf.Tensor], shape: Sequence[int]
) -> tf.Tensor:
    """What `function` makes of one all-zero input; in plain words if it refuses it."""
    try:
        return function(tf.zeros([1, *shape]))
    except (ValueError, tf.errors.InvalidArgumentError) as error:
        raise ValueError(
            f"The {part} must take inputs of shape [B, {', '.join(map(str, shape))}]. "
            "Received: a network that refuses zeros of that shape with B = 1."
        ) from error
