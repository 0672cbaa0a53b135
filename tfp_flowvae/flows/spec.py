"""Spec strings of stacks of flows, and the flows that they name.

    stack = "none" | flow *("+" flow)           a+b applies a to the base sample first

The grammar of one flow is that of `tfp_flowvae.spec`. For example `iaf`, `planar:10`,
`iaf:2,hidden=320x320`, `spline-maf:bins=16,bound=3.5`, `householder:4+iaf:2`.
"""

from __future__ import annotations

from tfp_flowvae.errors import UserError
from tfp_flowvae.flows.image_registry import check_no_image_flow
from tfp_flowvae.flows.registry import FLOWS, FlowEntry
from tfp_flowvae.spec import Spec, parse, spec_error


def parse_stack(text: str, whole: str | None = None, start: int = 0) -> tuple[Spec, ...]:
    """Reads the spec of a stack of flows; `none` is the empty stack.

    Args:
      text: For example `"householder:4+iaf:2,hidden=320x320"`.
      whole: The longer string that the spec is a part of, for error messages.
      start: Where in `whole` the spec begins.

    Returns:
      The flows in the order in which they are applied to the base sample.

    Raises:
      UserError: If the string does not parse; the message points at the place.
    """
    whole = text if whole is None else whole
    if not text.strip():
        raise UserError(f"A flow spec cannot be empty; say 'none' for no flow. Received: {text!r}.")
    flows: list[Spec] = []
    position = start
    for item in text.split("+"):
        check_no_image_flow(item.partition(":")[0], whole)
        flows.append(parse(FLOWS, item, whole, position))
        position += len(item) + 1
    if any(flow.name == "none" for flow in flows) and len(flows) > 1:
        place = whole.index("none", start)
        raise spec_error(FLOWS, whole, place, "'none' stands alone: leave it out of a stack")
    return tuple(flow for flow in flows if flow.name != "none")


def format_stack(flows: tuple[Spec, ...]) -> str:
    """The canonical string of a parsed stack; `parse_stack` gives the same flows back."""
    return "+".join(map(str, flows)) or "none"


def check_event_size(flows: tuple[Spec, ...], event_size: int, what: str = "latent size") -> None:
    """Checks that flows with their options can act on vectors of `event_size`.

    Args:
      flows: The flows.
      event_size: D.
      what: What D is, in words.

    Raises:
      UserError: If one cannot.
    """
    for flow in flows:
        entry, received = flow.entry, f"Received: a {what} of {event_size}."
        assert isinstance(entry, FlowEntry)
        if event_size < entry.smallest_event:
            raise UserError(
                f"The flow {flow.name!r} needs a {what} of at least {entry.smallest_event}; "
                f"choose a larger {what} or another flow. {received}"
            )
        if entry.largest_event is not None and event_size > entry.largest_event:
            raise UserError(
                f"The flow {flow.name!r} takes a {what} of at most {entry.largest_event}; "
                f"choose a smaller {what} or another flow. {received}"
            )
        complaint = entry.complaint(flow.options, event_size)
        if complaint:
            raise UserError(f"The flow {str(flow)!r} cannot be made: {complaint}. {received}")
