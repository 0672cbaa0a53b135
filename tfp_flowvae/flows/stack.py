"""A stack of flows, which is a flow, and how it is made from a spec string."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from tensorflow_probability import bijectors as tfb

from tfp_flowvae.flows.base import Flow, composed
from tfp_flowvae.flows.registry import FLOWS
from tfp_flowvae.flows.spec import check_event_size, parse_stack
from tfp_flowvae.networks.building import ensure_built


@keras.saving.register_keras_serializable(package="tfp_flowvae")
class Stack(Flow):
    """Flows applied one after the other, the first one to the base sample.

    Example:
      >>> stack = Stack([fv.flows.Permute(), fv.flows.IAF(1)], event_size=4)
      >>> z, log_det = stack(tf.random.normal([5, 4]))

    Args:
      flows: The flows; none for the identity.
      **kwargs: See `Flow`.
    """

    def __init__(self, flows: Sequence[Flow] = (), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.flows = list(flows)

    def build(self, z_shape: Any = None, context_shape: Any = None) -> None:
        """Builds every flow, for the same sizes."""
        for flow in self.flows:
            if z_shape is None and self.event_size is None and flow.event_size is not None:
                z_shape = (None, flow.event_size)
        super().build(z_shape, context_shape)
        for flow in self.flows:
            self.build_part(flow)

    def make_bijector(self, context: tf.Tensor | None) -> tfb.Bijector:
        """The flows' bijectors, chained."""
        return composed([flow.bijector(context) for flow in self.flows])

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, each flow serialised."""
        flows = [keras.saving.serialize_keras_object(flow) for flow in self.flows]
        return {**super().get_config(), "flows": flows}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Stack:
        """Rebuilds the stack and every flow in it."""
        for entry in FLOWS.values():
            entry.load()  # Keras finds a registered class only once its module is imported
        flows = [keras.saving.deserialize_keras_object(flow) for flow in config.pop("flows")]
        return cls(flows, **config)


def as_stack(flow: str | Flow | tfb.Bijector) -> Stack:
    """A stack, not built yet, from a spec string, a flow or a bijector of one's own.

    Raises:
      UserError: If it is none of them, or the spec string does not parse.
    """
    from tfp_flowvae.flows.adopted import Adopted

    if isinstance(flow, str):
        return Stack([spec.build() for spec in parse_stack(flow)])
    if isinstance(flow, Stack):
        return flow
    return Stack([flow if isinstance(flow, Flow) else Adopted(flow)])


def make_flow(
    flow: str | Flow | tfb.Bijector, event_size: int, context_size: int | None = None
) -> Stack:
    """Builds a stack of flows.

    Example:
      >>> flow = make_flow("householder:4+iaf:2,hidden=32", event_size=4)
      >>> flow.bijector().forward(tf.zeros([5, 4])).shape
      TensorShape([5, 4])

    Args:
      flow: A spec string such as `"householder:4+iaf:2"`, see `tfp_flowvae.flows.spec`; a `Flow`;
        or a `tfb.Bijector` of one's own.
      event_size: D, the size of the vectors that the flow maps.
      context_size: Size of the context that the parameters are a function of, or None for
        parameters of the flow's own.

    Returns:
      A built `Stack`, itself a `Flow`.

    Raises:
      UserError: If the spec does not parse or a flow cannot take the size.
    """
    if isinstance(flow, str):
        check_event_size(parse_stack(flow), event_size)
    stack = as_stack(flow)
    ensure_built(stack, (None, event_size), None if context_size is None else (None, context_size))
    return stack
