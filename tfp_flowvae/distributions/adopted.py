"""A prior that its user built in TFP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import keras
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_flowvae.errors import UserError
from tfp_flowvae.flows.adopted import Factory, adopt, factory_config, factory_from, made


@keras.saving.register_keras_serializable(package="tfp_flowvae")
class AdoptedPrior(keras.layers.Layer):
    """p(z) as the user built it in TFP; its variables are trained, saved and exported.

    Args:
      source: A `tfd.Distribution` over float32 vectors, with batch shape `[]` and event shape
        `[D]`, or a function without arguments that returns one. A function that is registered with
        `keras.saving.register_keras_serializable` makes the model's `.keras` file complete; else
        `tfp_flowvae.load` has to be told `prior=`.
      **kwargs: See `keras.layers.Layer`.

    Raises:
      UserError: If it is not such a distribution, or cannot be scored.

    Example:
    ```python
    @keras.saving.register_keras_serializable(package="mine")
    def student_prior():
        scale = tf.Variable(tf.ones(16), name="scale")
        return tfd.Independent(tfd.StudentT(4.0, tf.zeros(16), scale), 1)

    vae = models.FlowVAE(encoder, posterior, models.AdoptedPrior(student_prior), decoder)
    ```
    """

    factorises = False

    def __init__(self, source: tfd.Distribution | Factory, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        distribution, self._factory = made(source, tfd.Distribution, "A prior of your own")
        _check_distribution(distribution)
        self.event_size = distribution.event_shape[0]
        self._adopted = adopt(distribution.variables)
        # In a closure: Keras would walk the distribution's attributes as well.
        self._get: Callable[[], tfd.Distribution] = lambda: distribution

    def build(self, input_shape: Any = None) -> None:
        """Nothing to do: the variables are the user's."""

    def distribution(self) -> tfd.Distribution:
        """p(z) with batch shape `[]` and event shape `[D]`."""
        return self._get()

    def call(self, z: tf.Tensor) -> tf.Tensor:
        """log p(z) in nats, `[...]`, of z `[..., D]`."""
        # tf.identity: TFP's cache knows a tensor that it has seen, and not that weights changed.
        return self._get().log_prob(tf.identity(z))

    def get_config(self) -> dict[str, Any]:
        """The factory's registered name, or None."""
        return {**super().get_config(), "factory": factory_config(self._factory)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Rebuilds the layer around what the factory returns."""
        return cls(factory_from(config, "prior", "prior"), **config)


def _check_distribution(distribution: tfd.Distribution) -> None:
    batch, event = distribution.batch_shape, distribution.event_shape
    if batch.rank != 0 or event.rank != 1 or event[0] is None:
        raise UserError(
            "A prior of your own must have batch shape [] and event shape [D], with D known; "
            "tfd.Independent turns batch dimensions into event dimensions. "
            f"Received: {type(distribution).__name__} with batch_shape={tuple(batch)} and "
            f"event_shape={tuple(event)}."
        )
    if distribution.dtype != tf.float32:
        raise UserError(
            "A prior of your own must be over float32 vectors. "
            f"Received: {type(distribution).__name__} with dtype {distribution.dtype!r}."
        )
    z = tf.fill([1, event[0]], 0.1)
    try:
        with tf.GradientTape() as tape:
            tape.watch(z)
            value = distribution.log_prob(z)
    except NotImplementedError as error:
        raise UserError(
            "A prior of your own must have a log_prob. "
            f"Received: {type(distribution).__name__}, which has none."
        ) from error
    if value.shape != [1]:
        raise UserError(
            "A prior of your own must score [B, D] as [B]. "
            f"Received: {type(distribution).__name__}, whose log_prob has shape {value.shape}."
        )
    if tape.gradient(value, z) is None:
        raise UserError(
            "A prior of your own must have a log_prob that can be differentiated by z: training "
            f"follows its gradient. Received: {type(distribution).__name__}, whose log_prob has "
            "none."
        )
