"""The flow VAE: an encoder, a posterior, a prior, a decoder and a likelihood, trained by `fit`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfp_flowvae._endpoints import Endpoint
from tfp_flowvae._typing import TensorLike
from tfp_flowvae.distributions.flow_distribution import as_distribution
from tfp_flowvae.errors import UserError
from tfp_flowvae.likelihoods import make_likelihood
from tfp_flowvae.likelihoods.base import Likelihood
from tfp_flowvae.models.card import write_card
from tfp_flowvae.models.card_subjects import vae_subject
from tfp_flowvae.models.endpoints import vae_endpoints
from tfp_flowvae.models.facts import Facts
from tfp_flowvae.models.gradients import for_training
from tfp_flowvae.models.labels import check_fit, checked_labels
from tfp_flowvae.models.latent_variable import LatentVariableModel
from tfp_flowvae.models.objective import ElboTerms, Objective
from tfp_flowvae.models.parts import build_parts, check_dropout, check_free_bits
from tfp_flowvae.models.rows import is_array, training_rows
from tfp_flowvae.networks.registry import make_decoder, make_encoder
from tfp_flowvae.training.noise import Noise

_DROPOUT_STREAM = 0xD407  # the stream of the noise that hides pixels from the encoder


@keras.saving.register_keras_serializable(package="tfp_flowvae")
class FlowVAE(LatentVariableModel):
    """A variational autoencoder whose posterior and prior are flows.

        q(z|x): z0 ~ N(mu(x), sigma(x)^2), z = f_x(z0)      Rezende & Mohamed (2015), eq. 13-15
        p(z):   z  = g(e), e ~ N(0, I) or a learnable base
        loss = E_q[log q(z|x) - log p(z) - log p(x|z)], in nats per image: see `Objective`

    Train it with `compile` (an optimizer is all it takes) and `fit` on images; there are no
    targets. The logged metrics are `loss`, `elbo`, `log_likelihood` and `kl`, in nats per image.

    With `num_classes`, q(z|x, y) and p(z|y) depend on the class y of an image: `fit(images,
    labels)`, `sample(n, label=3)`, `elbo(x, label=y)`. The class is a one-hot vector in the context
    of the posterior and the prior; p(x|z) depends on it only with `conditional_decoder`. A class
    that is not known, the label -1, is a vector of zeros: p(x) is the density of an image whose
    class is not known, which `fit` learns from images without a label, and from a tenth of the
    others, whose labels it hides (`label_dropout`, as Ho & Salimans 2022,
    https://arxiv.org/abs/2207.12598, do for diffusion).

    With `context_size`, y is a vector in place of a class: `fit(images, context)`,
    `elbo(x, context=c)`, `sample(n, context=c)`. The first `fit` learns the mean and the scale of
    its columns.

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
      num_classes: K, the number of classes, whose labels are 0 to K - 1; None for none.
      label_dropout: The share of the labels that are hidden in training.
      context_size: C, the size of the context; None for none. Not with `num_classes`.
      conditional_decoder: Whether the decoder takes the class or the context, too: p(x|z, y). Its
        input is then `[B, D + K]` or `[B, D + C]`, z and after it the one-hot vector or context.
      **kwargs: See `keras.Model`.

    Raises:
      UserError: If a spec string does not parse.
      ValueError: If the parts do not fit together.

    Example:
      >>> images = np.random.default_rng(0).integers(0, 2, (20, 8, 8, 1))  # [N, H, W, C]
      >>> vae = fv.FlowVAE(
      ...     image_shape=(8, 8, 1), latent_size=4, posterior="iaf:2", prior="realnvp:2"
      ... )
      >>> vae.compile("adam")
      >>> history = vae.fit(images, batch_size=10, epochs=1, verbose=0)
      >>> vae.sample(3, seed=0).shape
      TensorShape([3, 8, 8, 1])
    """

    metric_names = ("elbo", "log_likelihood", "kl")

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
        num_classes: int | None = None,
        label_dropout: float = 0.1,
        context_size: int | None = None,
        conditional_decoder: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(seed=seed, **kwargs)
        self.set_condition(num_classes, label_dropout, context_size)
        if conditional_decoder and self.condition_size is None:
            raise ValueError(
                "conditional_decoder needs classes or a context: give num_classes or context_size. "
                f"Received: {conditional_decoder=}."
            )
        self.conditional_decoder = conditional_decoder
        self.image_shape, self.latent_size = tuple(image_shape), latent_size
        if isinstance(likelihood, str):
            likelihood = make_likelihood(likelihood)
        self.likelihood = likelihood
        if isinstance(encoder, str):
            encoder = make_encoder(encoder, self.image_shape)
        self.encoder = encoder
        if isinstance(decoder, str):
            channels = self.likelihood.output_channels(self.image_shape[-1])
            size = latent_size + (self.condition_size or 0) * conditional_decoder
            decoder = make_decoder(decoder, self.image_shape, size, output_channels=channels)
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
            self.condition_size,
            conditional_decoder,
        )
        check_free_bits(self.objective.free_bits, self.posterior_layer, self.prior_layer)
        self.built = True

    def call(
        self,
        x: tf.Tensor,
        training: bool = False,
        label: tf.Tensor | None = None,
        context: tf.Tensor | None = None,
    ) -> dict[str, tf.Tensor]:
        """The terms of the bound by name, `[S, B]` each; `fit` turns them into loss and metrics."""
        objective, seed = self.objective, self.stateless_seed(None)
        seen = self._dropped_out(x, seed) if training and self.input_dropout else x
        if training and label is not None:
            label = self.seen_labels(label, Noise(seed))
        draw = self.draw(seen, objective.num_samples, seed, label, context)
        scaled = None
        if training:
            draw, scaled = for_training(draw, objective)
        per_dimension = objective.free_bits > 0
        terms = self.terms_of(draw, x, seed, per_dimension, label, context)
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
        """The loss and the metrics of each image, `[B]` each, in nats; y is label or context."""
        if training and self.num_classes is not None:
            check_fit(y, self.num_classes)
        terms = ElboTerms(**self(x, training=training, **self._condition_of_fit(y)))
        means = {name: tf.reduce_mean(getattr(terms, name), axis=0) for name in self.metric_names}
        return self.objective.loss(terms, self.step if training else None), means

    def predict_step(self, data: Any) -> tf.Tensor:
        """Reconstructions `[B, H, W, C]`, for `predict`."""
        x, y, _ = keras.utils.unpack_x_y_sample_weight(data)
        return self.reconstruct(
            x, **({} if self.condition_size is None else self._condition_of_fit(y))
        )

    def _condition_of_fit(self, y: Any) -> dict[str, Any]:
        """The labels or the context of a batch, as arguments; raises `UserError` for no use."""
        if y is None:
            return {}
        if self.num_classes is not None:
            return {"label": checked_labels(y, self.num_classes)}
        if self.context_size is not None:
            return {"context": y}
        raise UserError(
            "This FlowVAE has no classes and no context, and fit takes labels only with classes: "
            "give its constructor num_classes or context_size, or fit images alone. "
            "Received: labels."
        )

    def prepare_fit(self, arguments: Mapping[str, Any]) -> None:
        """Refuses what does not suit the model, and learns the units of the context if need be.

        Raises:
          UserError: If images do not suit the likelihood; or labels or contexts are missing, or
            not one for each image.
        """
        images, y, weight = (arguments.get(name) for name in ("x", "y", "sample_weight"))
        if isinstance(images, (np.ndarray, tf.Tensor)):
            self.likelihood.check_data(np.asarray(images))
            if self.condition_size is not None:
                self.check_condition(y, len(images))
        if self.context_units is not None and not self.context_units.adapted:
            if is_array(images):
                count = training_rows(arguments)
                images, y, weight = (
                    array if array is None else array[:count] for array in (images, y, weight)
                )
            self.adapt_context(images, y, weight, arguments.get("steps_per_epoch"))

    def adapt(
        self,
        images: TensorLike,
        labels: TensorLike | None = None,
        context: TensorLike | None = None,
    ) -> None:
        """Starts from data the parts that start from data, before training.

        They are the pseudo-inputs of a `Vamp` base, and the units of the context.

        Args:
          images: `[N, H, W, C]` in [0, 1].
          labels: Their labels `[N]`, for a model with classes.
          context: Their contexts `[N, C]`, for a model with a context.
        """
        images, own = self._images(images).numpy(), []
        if labels is not None:
            self.condition(labels, None, len(images))  # checks them
            own = [np.asarray(labels)]
        self.prior_layer.base.adapt(images, self.seed or 0, *own)
        if context is not None:
            self.adapt_context(images, context)

    def endpoints(self) -> dict[str, Endpoint]:
        """The functions of the exported SavedModel; see `tfp_flowvae.export`."""
        return vae_endpoints(self)

    def write_card(self, folder: Path, facts: Facts | None = None) -> None:
        """Writes README.md into an export's folder; see `FastModel.write_card`."""
        write_card(folder, vae_subject(self), facts or Facts())

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
            **self.condition_config(),
            **({"conditional_decoder": True} if self.conditional_decoder else {}),
        }
