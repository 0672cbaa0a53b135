"""The functions of a `FlowVAE` without random numbers: noise is an argument."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfp_flowvae._endpoints import Endpoint, named
from tfp_flowvae.distributions.flow_distribution import FlowDistribution
from tfp_flowvae.distributions.mixture import NormalMixture
from tfp_flowvae.models import FlowVAE


def noise_functions(vae: FlowVAE, batch_size: int | None = None) -> dict[str, Endpoint]:
    """`decode`, `encode`, `log_prior` and `sample_from_noise`, each with one result.

    Args:
      vae: The model.
      batch_size: B, or None for any.
    """
    x = tf.TensorSpec([batch_size, *vae.image_shape], tf.float32, name="x")
    z, e = (
        tf.TensorSpec([batch_size, vae.latent_size], tf.float32, name=name) for name in ("z", "e")
    )
    noise = [e]
    if isinstance(vae.prior().distribution, NormalMixture):
        noise.append(tf.TensorSpec([batch_size], tf.float32, name="u"))

    def encode(x: Any, e: Any) -> dict[str, tf.Tensor]:
        return {"z": _draw(vae.posterior_layer, [e], vae.encoder(x))}

    def sample_from_noise(*noise: Any) -> dict[str, tf.Tensor]:
        return {"images": vae.decode(_draw(vae.prior_layer, noise))}

    return {
        "decode": named(lambda z: {"images": vae.decode(z)}, [z]),
        "encode": named(encode, [x, e]),
        "log_prior": named(lambda z: {"log_prior": vae.prior_layer.log_prob(z)}, [z]),
        "sample_from_noise": named(sample_from_noise, noise),
    }


def _draw(layer: FlowDistribution, noise: Any, context: tf.Tensor | None = None) -> tf.Tensor:
    """z of noise: e from N(0, I), `[B, D]`, and for a mixture u from U[0, 1), `[B]`."""
    distribution = layer.distribution(context)
    base = distribution.distribution
    if isinstance(base, NormalMixture):
        z0 = base.from_noise(*noise)
    elif layer.base.reparameterized:
        z0 = layer.base.from_noise(base, *noise)[0]
    else:
        raise NotImplementedError(f"draws of {base.name} are no function of normal noise")
    return distribution.bijector.forward(z0)
