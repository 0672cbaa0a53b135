"""The prior p(z): a standard normal or a learnable base, and a learnable flow over it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import keras
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_flowvae.bijectors import inverse_and_log_det
from tfp_flowvae.flows import format_spec, make_flow
from tfp_flowvae.flows.stack import FlowStack
from tfp_flowvae.likelihoods.configurable import FlowOwner
from tfp_flowvae.models.prior_bases import GaussianMixtureBase, PriorBase, VampBase
from tfp_flowvae.models.prior_spec import parse_prior
from tfp_flowvae.networks.building import ensure_built


@keras.saving.register_keras_serializable(package="tfp_flowvae")
class FlowPrior(FlowOwner):
    """p(z) as a `tfd.TransformedDistribution` of a base, its variables live.

    Args:
      flow: The flow, without a context; an empty `FlowStack` for the base as it is.
      base: What the flow acts on: a `GaussianMixtureBase`, a `VampBase`, or None for the standard
        normal.
      **kwargs: See `keras.layers.Layer`.

    Raises:
      ValueError: If the flow was built with a context, or the base has another size.
    """

    def __init__(self, flow: FlowStack, base: PriorBase | None = None, **kwargs: Any) -> None:
        super().__init__(flow, **kwargs)
        if flow.context_size is not None:
            raise ValueError(
                "A prior's flow has weights of its own: build it without a context. "
                f"Received: {flow.name} with context_size={flow.context_size}."
            )
        if base is not None and base.event_size != flow.event_size:
            raise ValueError(
                "The base and the flow must have the same event_size. "
                f"Received: {base.event_size} and {flow.event_size}."
            )
        self.base = base

    @property
    def factorises(self) -> bool:
        """Whether log p(z) is a sum over z's dimensions: whether it is the standard normal."""
        return self.base is None and not self.flow.flows

    def build(self, input_shape: Any = None) -> None:
        """Builds base and flow; their sizes are known from their constructors."""
        if self.base is not None:
            ensure_built(self.base)
        ensure_built(self.flow, self.event_size)

    def distribution(self) -> tfd.TransformedDistribution:
        """p(z) with batch shape `[]` and event shape `[D]`."""
        if self.base is None:
            zeros = tf.zeros([self.event_size])
            base = tfd.Independent(tfd.Normal(zeros, 1.0), reinterpreted_batch_ndims=1)
        else:
            base = self.base.distribution()
        return tfd.TransformedDistribution(base, self.flow.bijector(), name="prior")

    def call(self, z: tf.Tensor) -> tf.Tensor:
        """log p(z) in nats, `[...]`, of z `[..., D]`, from one pass through the flow.

        `distribution().log_prob(z)` asks TFP's cache first, which knows variables by identity, not
        by value: eagerly, for a z that it has seen, it may answer with the weights of that time.
        """
        prior = self.distribution()
        noise, log_det = inverse_and_log_det(prior.bijector, z)
        return prior.distribution.log_prob(noise) + log_det

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, flow and base serialised."""
        base = None if self.base is None else keras.saving.serialize_keras_object(self.base)
        return {**super().get_config(), "base": base}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Rebuilds the layer, its flow and its base."""
        base = config.pop("base", None)
        if base is not None:
            config["base"] = keras.saving.deserialize_keras_object(base)
        return super().from_config(config)


def make_prior(
    spec: str, event_size: int, image_shape: Sequence[int] | None = None, **kwargs: Any
) -> FlowPrior:
    """Builds the prior that a spec string names.

    Args:
      spec: For example `"realnvp:4"`, `"mixture:20"`, `"vamp:100+maf:2"`, `"none"`; see
        `tfp_flowvae.models.prior_spec`.
      event_size: D.
      image_shape: `(H, W, C)`, which `vamp` needs.
      **kwargs: See `FlowPrior`.

    Raises:
      UserError: If the spec does not parse or a flow cannot take the size.
      ValueError: If `vamp` is given no image shape.
    """
    parsed = parse_prior(spec)
    base: PriorBase | None = None
    if parsed.base == "mixture":
        base = GaussianMixtureBase(event_size, parsed.components)
    elif parsed.base == "vamp":
        if image_shape is None:
            raise ValueError("The prior 'vamp' needs image_shape, (H, W, C). Received: None.")
        base = VampBase(event_size, parsed.components, image_shape)
    return FlowPrior(make_flow(format_spec(parsed.flows), event_size), base, **kwargs)
