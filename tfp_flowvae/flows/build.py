"""From a spec string to a stack of flows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfp_flowvae.errors import UserError
from tfp_flowvae.flows.spec import FlowSpec, parse_spec

if TYPE_CHECKING:
    from tfp_flowvae.flows.stack import FlowStack


def check_event_size(flows: tuple[FlowSpec, ...], event_size: int) -> None:
    """Raises `UserError` if a flow, with its options, cannot act on vectors of `event_size`."""
    for flow in flows:
        entry, received = flow.entry, f"Received: a latent size of {event_size}."
        if event_size < entry.smallest_event:
            raise UserError(
                f"The flow {flow.name!r} needs a latent size of at least {entry.smallest_event}; "
                f"choose a larger latent size or another flow. {received}"
            )
        if entry.largest_event is not None and event_size > entry.largest_event:
            raise UserError(
                f"The flow {flow.name!r} takes a latent size of at most {entry.largest_event}; "
                f"choose a smaller latent size or another flow. {received}"
            )
        complaint = entry.complaint(flow.options, event_size)
        if complaint:
            raise UserError(f"The flow {str(flow)!r} cannot be made: {complaint}. {received}")


def make_flow(spec: str, event_size: int, context_size: int | None = None) -> FlowStack:
    """Builds the stack of flows that a spec string names.

    Args:
      spec: For example `"householder:4+iaf:2"`; see `tfp_flowvae.flows.spec`.
      event_size: D, the size of the vectors that the flow maps.
      context_size: Size of the context that the parameters are a function of, or None for
        parameters of the flow's own.

    Returns:
      A built `FlowStack`, itself a `Flow`.

    Raises:
      UserError: If the spec does not parse or a flow cannot take the size.
    """
    from tfp_flowvae.flows.stack import FlowStack
    from tfp_flowvae.networks.building import ensure_built

    flows = parse_spec(spec)
    check_event_size(flows, event_size)
    layers = [
        flow.entry.load()(
            event_size=event_size,
            context_size=context_size,
            **({"length": flow.length} if "length" in flow.entry.options else {}),
            **flow.options,
        )
        for flow in flows
    ]
    stack = FlowStack(layers, event_size=event_size, context_size=context_size)
    ensure_built(stack, event_size)
    return stack
