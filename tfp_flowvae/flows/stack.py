"""A stack of flows, which is a flow; the empty stack is the identity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from tensorflow_probability import bijectors as tfb

from tfp_flowvae.flows.base import Flow, composed
from tfp_flowvae.flows.registry import FLOWS
from tfp_flowvae.networks.building import ensure_built


@keras.saving.register_keras_serializable(package="tfp_flowvae")
class FlowStack(Flow):
    """Flows applied one after the other, the first one to the base sample.

    Args:
      flows: The flows, all of the same `event_size` and `context_size`. None for none.
      event_size: D.
      context_size: Size of the context vector, or None.
      **kwargs: See `keras.layers.Layer`.

    Raises:
      ValueError: If a flow's sizes are not the stack's.
    """

    def __init__(
        self,
        flows: Sequence[Flow] = (),
        *,
        event_size: int,
        context_size: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(event_size, context_size, **kwargs)
        for flow in flows:
            if (flow.event_size, flow.context_size) != (event_size, context_size):
                raise ValueError(
                    f"Every flow of this stack must have {event_size=} and {context_size=}. "
                    f"Received: {flow.name} with event_size={flow.event_size}, "
                    f"context_size={flow.context_size}."
                )
        self.flows = list(flows)

    def build(self, input_shape: Any = None) -> None:
        """Builds every flow."""
        for flow in self.flows:
            ensure_built(flow, self.event_size)

    def _bijector(self, context: tf.Tensor | None) -> tfb.Bijector:
        return composed([flow.bijector(context) for flow in self.flows])

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, each flow serialised."""
        flows = [keras.saving.serialize_keras_object(flow) for flow in self.flows]
        return {**super().get_config(), "flows": flows}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> FlowStack:
        """Rebuilds the stack and every flow in it."""
        for entry in FLOWS.values():
            entry.load()  # Keras finds a registered class only once its module is imported
        flows = [keras.saving.deserialize_keras_object(flow) for flow in config.pop("flows")]
        return cls(flows, **config)
