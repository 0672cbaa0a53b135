"""The flow VAE: an encoder, a posterior, a prior, a decoder and a likelihood, trained by `fit`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfp_flowvae import _compat
from tfp_flowvae._typing import TensorLike
from tfp_flowvae.models import replicas
from tfp_flowvae.models.adopted import AdoptedPrior
from tfp_flowvae.models.gradients import ScaledGradient, frozen_log_prob, with_frozen_base
from tfp_flowvae.models.latent_variable import LatentVariableModel
from tfp_flowvae.models.likelihood import Bernoulli, Likelihood
from tfp_flowvae.models.objective import ElboTerms, Objective
from tfp_flowvae.models.posterior import FlowPosterior
from tfp_flowvae.models.prior import FlowPrior
from tfp_flowvae.models.prior_bases import VampBase
from tfp_flowvae.models.stacked_fit import StackedFit
from tfp_flowvae.networks.building import ensure_built
from tfp_flowvae.networks.catalog import load_all

METRICS = ("elbo", "log_likelihood", "kl")
# Known in training alone.
TRAINING_METRICS = ("gradient_norm", "clipped")
_STEPS_PER_NORM = 10


@keras.saving.register_keras_serializable(package="tfp_flowvae")
class FlowVAE(_compat.BuiltAlready, StackedFit, LatentVariableModel):
    """A variational autoencoder whose posterior and prior are flows.

        q(z|x): z0 ~ N(mu(x), sigma(x)^2), z = f_x(z0)      Rezende & Mohamed (2015), eq. 13-15
        p(z):   z  = g(e), e ~ N(0, I) or a learnable base
        loss = E_q[log q(z|x) - log p(z) - log p(x|z)], in nats per image: see `Objective`

    Train it with `compile` (an optimizer is all it takes) and `fit` on images; there are no
    targets. The logged metrics are `loss`, `elbo`, `log_likelihood`, `kl` and, in training, the
    mean `gradient_norm` (before clipping; of every tenth step) and, with an optimizer that has a
    `global_clipnorm`, the share of steps whose gradient it has `clipped`.

    Args:
      encoder: From images `[B, H, W, C]` to features `[B, F]`.
      posterior: From features to q(z|x).
      prior: p(z), over vectors of the posterior's size D: a `FlowPrior`, or an `AdoptedPrior`
        around a distribution of one's own.
      decoder: From latent vectors `[B, D]` to the likelihood's parameters.
      likelihood: p(x|z); Bernoulli pixels by default.
      objective: How the terms of the bound become a loss.
      seed: Of the noise in training and in `evaluate`.
      **kwargs: See `keras.Model`.

    Raises:
      ValueError: If the parts do not fit together.

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
    vae.compile(optimizer="adam")
    vae.fit(images, batch_size=100, epochs=10)
    vae.sample(64, seed=0)  # [64, 8, 8, 1]
    ```
    """

    def __init__(
        self,
        encoder: keras.layers.Layer,
        posterior: FlowPosterior,
        prior: FlowPrior | AdoptedPrior,
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
        if self.objective.free_bits and not (posterior.factorises and prior.factorises):
            raise ValueError(
                "free_bits needs a KL that is a sum over dimensions: a diagonal posterior without "
                "a flow and the standard normal prior; use min_information, which works with all. "
                f"Received: free_bits={self.objective.free_bits} and another posterior or prior."
            )
        self.event_size = posterior.event_size
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self._trackers = [keras.metrics.Mean(name=name) for name in METRICS]
        self._training_trackers = [keras.metrics.Mean(name=name) for name in TRAINING_METRICS]
        self._evaluating = False
        self._build_parts()

    def _build_parts(self) -> None:
        """Builds every part now: every size is known, and a built model needs no symbolic call."""
        ensure_built(self.posterior_layer)
        base = getattr(self.prior_layer, "base", None)
        if isinstance(base, VampBase):
            base.attach(lambda x: self.posterior_layer.base_distribution(self.encoder(x)))
        ensure_built(self.prior_layer)
        output = _trial("decoder", self._decode_parameters, [self.event_size])
        if output.shape.rank != 4:
            raise ValueError(
                f"The decoder must map latent vectors [B, {self.event_size}] to images "
                "[B, H, W, parameters]. "
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

    def call(self, x: tf.Tensor, training: bool = False) -> dict[str, tf.Tensor]:
        """The terms of the bound by name, `[S, B]` each; `fit` turns them into loss and metrics."""
        objective, seed = self.objective, self._stateless(None)
        draw = self.draw(x, objective.num_samples, seed)
        scaled = ScaledGradient() if training and objective.bound == "dreg" else None
        if scaled is not None:
            draw = draw._replace(z=scaled(draw.z))
        if training and (scaled is not None or objective.gradient == "stl"):
            frozen = frozen_log_prob(draw.posterior, draw.z, draw.log_posterior)
            draw = draw._replace(log_posterior=frozen)
            if objective.free_bits:
                draw = draw._replace(posterior=with_frozen_base(draw.posterior))
        terms = self.terms_of(draw, x, seed, per_dimension=objective.free_bits > 0)
        if scaled is not None:
            scaled.factors = objective.path_factors(terms, self._step(training))
        return terms.named()

    def _step(self, training: bool) -> tf.Tensor | None:
        """The optimizer's step, where a warm-up needs it."""
        optimizer = getattr(self, "optimizer", None)
        return None if optimizer is None or not training else _compat.live(optimizer.iterations)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> tf.Tensor:
        """The mean loss over the batch, with what layers added by `add_loss`."""
        loss = self.objective.loss(ElboTerms(**y_pred), self._step(training))
        if sample_weight is not None:
            loss = loss * tf.cast(sample_weight, loss.dtype)
        return replicas.scaled(tf.add_n([replicas.mean(loss), *self.losses]))

    def fit(self, x: Any = None, *args: Any, **kwargs: Any) -> keras.callbacks.History:
        """`StackedFit`'s, after a look at whether images in an array suit the likelihood."""
        if isinstance(x, (np.ndarray, tf.Tensor)):
            self.likelihood.check_data(np.asarray(x))
        return super().fit(x, *args, **kwargs)

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        """One step of the optimizer, as Keras's own, which does not look at the gradients."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape() as tape:
            y_pred = self(x, training=True)
            loss = self.compute_loss(x, y, y_pred, sample_weight, training=True)
            share = replicas.share_of(tf.shape(x)[0])
            weighted = loss if share is None else loss * share.weight
            scaled = self.optimizer.scale_loss(weighted)
        _compat.track_loss(self, replicas.unscaled(loss), tf.shape(x)[0])
        weights = self.trainable_weights
        gradients = replicas.summed(tape.gradient(scaled, weights))
        self._track_gradients(gradients)
        _compat.apply_summed(self.optimizer, gradients, weights)
        return _compat.as_logs(self.compute_metrics(x, y, y_pred, sample_weight))

    def _track_gradients(self, gradients: Sequence[tf.Tensor]) -> None:
        """Measures the norm: in every step with clipping, in every tenth without, to save time."""
        (norms, clipped), limit = self._training_trackers, self.optimizer.global_clipnorm
        if limit is not None:
            norm = tf.linalg.global_norm(gradients)
            norms.update_state(norm)
            clipped.update_state(tf.cast(norm > limit, tf.float32))
            return
        step = _compat.live(self.optimizer.iterations)
        first = tf.equal(norms.count, 0.0)  # of an epoch, which may have fewer steps than that
        measured = tf.logical_or(first, tf.equal(step % _STEPS_PER_NORM, 0))
        norm = tf.cond(measured, lambda: tf.linalg.global_norm(gradients), lambda: 0.0)
        norms.update_state(norm, sample_weight=tf.cast(measured, tf.float32))

    def test_step(self, data: Any) -> dict[str, tf.Tensor]:
        """As Keras's own, without the metrics of training."""
        logs = super().test_step(data)
        return _compat.as_logs({k: v for k, v in logs.items() if k not in TRAINING_METRICS})

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """Keras's own, without the metrics of training."""
        self._evaluating = True
        try:
            return super().evaluate(*args, **kwargs)
        finally:
            self._evaluating = False

    def get_metrics_result(self) -> dict[str, Any]:
        """Keras's own, without `clipped` where nothing clips; in `evaluate` without both."""
        hidden: tuple[str, ...] = ()
        if self._evaluating:
            hidden = TRAINING_METRICS
        elif self.optimizer.global_clipnorm is None:
            hidden = ("clipped",)
        logs = super().get_metrics_result()
        return {name: value for name, value in logs.items() if name not in hidden}

    def adapt(self, images: TensorLike) -> None:
        """Starts from the data what starts from data: a `VampBase`'s pseudo-inputs.

        Args:
          images: `[N, H, W, C]` in [0, 1], before training.
        """
        base = getattr(self.prior_layer, "base", None)
        if isinstance(base, VampBase):
            base.adapt(self._images(images).numpy(), self.seed or 0)

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
        load_all()  # Keras finds a registered class only once its module is imported
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
