"""Builds the model and the optimizer of a config."""

from __future__ import annotations

from typing import Any

import keras

from tfp_flowvae.likelihoods import make_likelihood
from tfp_flowvae.models import FlowVAE, Objective
from tfp_flowvae.networks.registry import NETWORKS, make_decoder, make_encoder
from tfp_flowvae.runs.config import TrainConfig

_OPTIMIZERS = {
    "adam": keras.optimizers.Adam,
    "adamax": keras.optimizers.Adamax,
    "adamw": keras.optimizers.AdamW,
}


def build_model(
    config: TrainConfig,
    image_shape: tuple[int, int, int],
    levels: int | None,
    steps: int,
    num_classes: int | None = None,
) -> FlowVAE:
    """Returns the model that a config describes, with new weights.

    The weights depend on `keras.utils.set_random_seed`, which the caller must have called.

    Args:
      config: The config.
      image_shape: `(H, W, C)`.
      levels: The number of grey levels of the images, or None.
      steps: The number of steps per epoch.
      num_classes: The number of classes of the images, or None.

    Raises:
      UserError: If the likelihood does not fit the images.
    """
    likelihood = make_likelihood(config.likelihood, levels=levels, components=config.components)
    decoder = config.decoder or config.encoder
    return FlowVAE(
        image_shape=image_shape,
        latent_size=config.latent_dim,
        encoder=make_encoder(config.encoder, image_shape, **_sizes(config, config.encoder, 1)),
        posterior=str(config.posterior_spec),
        prior=str(config.prior_spec),
        decoder=make_decoder(
            decoder,
            image_shape,
            config.latent_dim,
            output_channels=likelihood.output_channels(image_shape[-1]),
            **_sizes(config, decoder, -1),
        ),
        likelihood=likelihood,
        objective=build_objective(config, steps),
        seed=config.seed,
        input_dropout=config.input_dropout,
        num_classes=num_classes,
        label_dropout=config.label_dropout,
    )


def _sizes(config: TrainConfig, kind: str, order: int) -> dict[str, Any]:
    """The arguments of a network's constructor; with order -1, the sizes in reverse order."""
    takes = NETWORKS[kind].options
    sizes = {"hidden": config.hidden, "channels": config.channels}
    given = {k: v[::order] for k, v in sizes.items() if v is not None and k in takes}
    return {
        **given,
        "activation": config.activation,
        "norm": None if config.norm == "none" else config.norm,
    }


def build_objective(config: TrainConfig, steps: int) -> Objective:
    """Returns the objective that a config describes, given the number of steps per epoch."""
    return Objective(
        num_samples=config.samples,
        beta=config.beta,
        bound=config.bound,
        gradient=config.gradient,
        warmup=config.warmup,
        warmup_steps=steps * config.warmup_epochs if config.warmup != "none" else 0,
        cycles=config.cycles,
        free_bits=config.free_bits,
        min_information=config.min_information,
    )


def build_optimizer(config: TrainConfig, steps: int) -> keras.optimizers.Optimizer:
    """Returns the optimizer that a config describes, given the number of steps per epoch."""
    rate: Any = config.learning_rate
    schedules = keras.optimizers.schedules
    if config.schedule == "cosine":
        rate = schedules.CosineDecay(rate, decay_steps=steps * config.epochs)
    elif config.schedule == "inverse-time":
        # rate / (1 + t / 100) at epoch t, as in Henrion & Welleck.
        rate = schedules.InverseTimeDecay(rate, decay_steps=100 * steps, decay_rate=1.0)
    more: dict[str, Any] = {}
    if config.ema is not None:
        more |= {"use_ema": True, "ema_momentum": config.ema}
    if config.weight_decay is not None:
        more["weight_decay"] = config.weight_decay
    return _OPTIMIZERS[config.optimizer](rate, global_clipnorm=config.clip_norm, **more)
