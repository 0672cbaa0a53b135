"""Builds the parts of a flow VAE, and refuses those that do not fit together."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_flowvae.distributions import FlowDistribution
from tfp_flowvae.likelihoods.base import Likelihood
from tfp_flowvae.networks.building import ensure_built


def build_parts(
    image_shape: tuple[int, ...],
    latent_size: int,
    encoder: keras.layers.Layer,
    posterior: FlowDistribution,
    prior: FlowDistribution,
    decoder: keras.layers.Layer,
    likelihood: Likelihood,
    condition_size: int | None = None,
    conditional_decoder: bool = False,
) -> None:
    """Builds every part at once: a built model needs no symbolic call before training.

    Args:
      image_shape: `(H, W, C)`.
      latent_size: D.
      encoder: See `FlowVAE`, for the other parts too.
      posterior: q(z|x).
      prior: p(z).
      decoder: The decoder.
      likelihood: The likelihood.
      condition_size: The size of the condition, or None.
      conditional_decoder: Whether the decoder takes the condition after z.

    Raises:
      ValueError: If two parts do not fit together.
    """
    images, latents = (None, *image_shape), (None, latent_size)
    code_size = latent_size + (condition_size if conditional_decoder and condition_size else 0)
    for part, shape in ((encoder, images), (decoder, (None, code_size))):
        if type(part).build is not keras.layers.Layer.build:
            ensure_built(part, shape)
    features = _trial("encoder", encoder, image_shape)
    if features.shape.rank != 2:
        raise ValueError(
            f"The encoder must map images {batch_of(image_shape)} to features [B, F]. "
            f"Received: an encoder whose output has shape {tuple(features.shape)} for B = 1."
        )
    ensure_built(posterior, latents, (None, features.shape[-1] + (condition_size or 0)))

    def posterior_base(x: tf.Tensor) -> tfd.Distribution:
        features = encoder(x)
        unknown = [[0, 0], [0, condition_size or 0]]
        return posterior.base.distribution(
            tf.pad(features, unknown) if condition_size else features
        )

    prior.base.attach(posterior_base, image_shape)
    ensure_built(prior, latents, *([] if condition_size is None else [(None, condition_size)]))
    _check_distributions(posterior, prior, condition_size)
    output = _trial("decoder", decoder, [code_size])
    event_shape = None
    if output.shape.rank == 4:
        event_shape = likelihood.distribution(tf.cast(output, tf.float32)).event_shape
    if event_shape != image_shape:
        channels = likelihood.output_channels(image_shape[-1])
        raise ValueError(
            f"The decoder must map latent vectors {batch_of([code_size])} to "
            f"{batch_of([*image_shape[:2], channels])}, the parameters of the likelihood. "
            f"Received: a decoder whose output has shape {tuple(output.shape)} for B = 1."
        )


def _check_distributions(
    posterior: FlowDistribution, prior: FlowDistribution, condition_size: int | None
) -> None:
    if not posterior.base.reparameterized:
        raise ValueError(
            "The base of a posterior must have draws with a gradient, as 'normal' and 'tril' "
            f"have. Received: {type(posterior.base).__name__}."
        )
    if prior.context_size != condition_size:
        wanted = "without a context"
        if condition_size is not None:
            wanted = f"for a context of {condition_size}"
        raise ValueError(
            f"The prior's context is the class or the context of the model: build it {wanted}. "
            f"Received: a prior with context_size={prior.context_size}."
        )


def check_dropout(input_dropout: float) -> None:
    """Raises `ValueError` for a share of pixels that cannot be dropped."""
    if not 0.0 <= input_dropout < 1.0:
        raise ValueError(
            "input_dropout must be at least 0 and below 1. "
            f"Received: input_dropout={input_dropout}."
        )


def check_free_bits(free_bits: float, posterior: FlowDistribution, prior: FlowDistribution) -> None:
    """Raises `ValueError` for free bits with a KL that is no sum over dimensions."""
    standard = prior.factorises and prior.context_size is None
    if free_bits and not (posterior.factorises and standard):
        raise ValueError(
            "free_bits needs a KL that is a sum over dimensions: a diagonal posterior without "
            "a flow and the standard normal prior; use min_information, which works with all. "
            f"Received: free_bits={free_bits} and another posterior or prior."
        )


def batch_of(sizes: Sequence[int]) -> str:
    """The shape of a batch as error messages write it, `[B, H, W, C]` for example."""
    return f"[B, {', '.join(map(str, sizes))}]"


def _trial(
    part: str, function: Callable[[tf.Tensor], tf.Tensor], shape: Sequence[int]
) -> tf.Tensor:
    """What `function` makes of one all-zero input; in plain words if it refuses it."""
    try:
        return function(tf.zeros([1, *shape]))
    except (ValueError, tf.errors.InvalidArgumentError) as error:
        raise ValueError(
            f"The {part} must take inputs of shape {batch_of(shape)}. "
            "Received: a network that refuses zeros of that shape with B = 1."
        ) from error
