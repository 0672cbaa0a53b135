"""A distribution that its user built in TFP, as the base of a flow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import keras
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_flowvae.distributions.base import Base
from tfp_flowvae.errors import UserError
from tfp_flowvae.flows.adopted import Factory, adopt, factory_config, factory_from, made


@keras.saving.register_keras_serializable(package="tfp_flowvae", name="AdoptedBase")
class Adopted(Base):
    """A `tfd.Distribution` of the user's; its variables are trained, saved and exported.

    With a context it is the same for every example.

    Args:
      source: A `tfd.Distribution` over float32 vectors, with batch shape `[]` and event shape
        `[D]`, or a function without arguments that returns one. A function that is registered with
        `keras.saving.register_keras_serializable` makes the model's `.keras` file complete;
        otherwise `tfp_flowvae.load` needs `prior=`.
      **kwargs: See `SizedLayer`.

    Raises:
      UserError: If it is not such a distribution, or cannot be scored.

    Example:
      >>> @keras.saving.register_keras_serializable(package="mine")
      ... def student_prior():
      ...     scale = tf.Variable(tf.ones(16), name="scale")
      ...     return tfd.Independent(tfd.StudentT(4.0, tf.zeros(16), scale), 1)
      >>> vae = fv.FlowVAE(image_shape=(8, 8, 1), latent_size=16, prior=student_prior)
    """

    def __init__(self, source: tfd.Distribution | Factory, **kwargs: Any) -> None:
        distribution, factory = made(source, tfd.Distribution, "A distribution of your own")
        _check_distribution(distribution)
        super().__init__(**{"event_size": distribution.event_shape[0], **kwargs})
        self._factory = factory
        self._adopted = adopt(distribution.variables)
        # In a closure: Keras would walk the distribution's attributes as well.
        self._get: Callable[[], tfd.Distribution] = lambda: distribution

    def distribution(self, context: tf.Tensor | None = None) -> tfd.Distribution:
        """The user's distribution, for a context `[B, F]` with batch shape `[B]`."""
        self.check_context(context)
        if context is None:
            return self._get()
        return tfd.BatchBroadcast(self._get(), tf.shape(context)[:-1])

    def get_config(self) -> dict[str, Any]:
        """The factory's registered name, or None."""
        return {**super().get_config(), "factory": factory_config(self._factory)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Rebuilds the layer around what the factory returns."""
        return cls(factory_from(config, "prior", "prior"), **config)


def _check_distribution(distribution: tfd.Distribution) -> None:
    def refuse(must: str, received: str) -> UserError:
        name = type(distribution).__name__
        return UserError(f"A distribution of your own must {must}. Received: {name}{received}.")

    batch, event = distribution.batch_shape, distribution.event_shape
    if batch.rank != 0 or event.rank != 1 or event[0] is None:
        raise refuse(
            "have batch shape [] and event shape [D], with D known; tfd.Independent turns batch "
            "dimensions into event dimensions",
            f" with batch_shape={tuple(batch)} and event_shape={tuple(event)}",
        )
    if distribution.dtype != tf.float32:
        raise refuse("be over float32 vectors", f" with dtype {distribution.dtype!r}")
    z = tf.fill([1, event[0]], 0.1)
    try:
        with tf.GradientTape() as tape:
            tape.watch(z)
            value = distribution.log_prob(z)
    except NotImplementedError as error:
        raise refuse("have a log_prob", ", which has none") from error
    if value.shape != [1]:
        raise refuse("score [B, D] as [B]", f", whose log_prob has shape {value.shape}")
    if tape.gradient(value, z) is None:
        raise refuse(
            "have a log_prob that can be differentiated by z: training follows its gradient",
            ", whose log_prob has none",
        )
