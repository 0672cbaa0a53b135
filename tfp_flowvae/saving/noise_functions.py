"""The functions of a `FlowVAE` without random numbers: noise is an argument."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfp_flowvae._endpoints import Endpoint, named
from tfp_flowvae.distributions.flow_distribution import FlowDistribution
from tfp_flowvae.distributions.mixture import NormalMixture
from tfp_flowvae.models import FlowVAE
from tfp_flowvae.models.endpoints import condition_arguments, condition_specs


def noise_functions(vae: FlowVAE, batch_size: int | None = None) -> dict[str, Endpoint]:
    """`decode`, `encode`, `log_prior` and `sample_from_noise`, each with one result.

    Those of a model with classes take int32 labels `[B]` after x or z and before the noise, those
    of a model with a context float32 contexts `[B, C]`; `decode` only with a conditional decoder. A
    label out of range is that of an unknown class.

    Args:
      vae: The model.
      batch_size: B, or None for any.
    """
    x = tf.TensorSpec([batch_size, *vae.image_shape], tf.float32, name="x")
    z, e = (
        tf.TensorSpec([batch_size, vae.latent_size], tf.float32, name=name) for name in ("z", "e")
    )
    _, each = condition_specs(vae, batch_size)
    of = functools.partial(condition_arguments, vae)
    of_code = each if vae.conditional_decoder else []
    noise = [e]
    condition = None if vae.condition_size is None else tf.zeros([1, vae.condition_size])
    if isinstance(vae.prior_layer.base.distribution(condition), NormalMixture):
        noise.append(tf.TensorSpec([batch_size], tf.float32, name="u"))

    def decode(z: Any, *y: Any) -> dict[str, tf.Tensor]:
        return {"images": vae.decode(z, **of(y))}

    def encode(x: Any, *rest: Any) -> dict[str, tf.Tensor]:
        *y, e = rest
        return {"z": _draw(vae.posterior_layer, [e], vae.features(x, **of(y)))}

    def log_prior(z: Any, *y: Any) -> dict[str, tf.Tensor]:
        return {"log_prior": vae.log_prior(z, **of(y))}

    def sample_from_noise(*rest: Any) -> dict[str, tf.Tensor]:
        y, noise = rest[: len(each)], rest[len(each) :]
        condition = vae.condition(**{"label": None, "context": None, **of(y)}, count=_rows(noise))
        return decode(_draw(vae.prior_layer, noise, condition), *y)

    return {
        "decode": named(decode, [z, *of_code]),
        "encode": named(encode, [x, *each, e]),
        "log_prior": named(log_prior, [z, *each]),
        "sample_from_noise": named(sample_from_noise, [*each, *noise]),
    }


def _rows(noise: Sequence[tf.Tensor]) -> tf.Tensor:
    return tf.shape(noise[0])[0]


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
