"""What Keras needs to write the model's parts into a config and read them back."""

from __future__ import annotations

import dataclasses
from typing import Any, Self

import keras

from tfp_flowvae.flows.stack import FlowStack


class Configurable:
    """Mixin for a dataclass: its fields are its Keras config."""

    def get_config(self) -> dict[str, Any]:
        """The fields, by name."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}  # type: ignore[arg-type]

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """The object with these fields."""
        return cls(**config)


class FlowOwner(keras.layers.Layer):
    """A layer around a stack of flows, in float32 whatever the precision policy.

    Args:
      flow: The stack.
      **kwargs: See `keras.layers.Layer`.
    """

    def __init__(self, flow: FlowStack, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        self.flow = flow
        self.event_size = flow.event_size

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, the flow serialised."""
        return {
            **super().get_config(),
            "flow": keras.saving.serialize_keras_object(self.flow),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Rebuilds the layer and its flow."""
        return cls(keras.saving.deserialize_keras_object(config.pop("flow")), **config)
