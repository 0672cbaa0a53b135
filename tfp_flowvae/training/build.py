"""From a config to a compiled model."""

from __future__ import annotations

import keras

from tfp_flowvae.flows import make_flow
from tfp_flowvae.models import FlowPosterior, FlowPrior, FlowVAE, Objective
from tfp_flowvae.networks import MLPDecoder, MLPEncoder
from tfp_flowvae.training.config import TrainConfig


def build_model(config: TrainConfig, image_shape: tuple[int, int, int]) -> FlowVAE:
    """The model that a config describes, for images of a shape, with fresh weights.

    The weights follow from `keras.utils.set_random_seed`, which the caller has called.
    """
    hidden, activation = config.hidden, config.activation
    return FlowVAE(
        encoder=MLPEncoder(image_shape, hidden=hidden, activation=activation),
        posterior=FlowPosterior(make_flow(config.flow, config.latent_dim, context_size=hidden[-1])),
        prior=FlowPrior(make_flow(config.prior, config.latent_dim)),
        decoder=MLPDecoder(
            image_shape,
            event_size=config.latent_dim,
            hidden=hidden[::-1],
            activation=activation,
        ),
        objective=Objective(num_samples=config.samples, beta=config.beta),
        seed=config.seed,
    )


def build_optimizer(config: TrainConfig, steps: int) -> keras.optimizers.Optimizer:
    """Adam, its rate falling along half a cosine to zero over `steps`, or constant."""
    rate = config.learning_rate
    if config.schedule == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(rate, decay_steps=steps)
    return keras.optimizers.Adam(rate)
