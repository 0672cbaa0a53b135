"""Whether flows suit a density: their size, and the direction that is one pass."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tfp_flowvae.errors import UserError
from tfp_flowvae.flows import FLOWS
from tfp_flowvae.flows.base import Flow
from tfp_flowvae.flows.registry import FlowEntry
from tfp_flowvae.flows.stack import Stack


def check_density_flows(flows: Iterable[Flow], event_size: int) -> None:
    """Refuses registered flows whose density is slow, or that cannot take the size.

    Raises:
      UserError: For the first one; it names an alternative.
    """
    for name, entry in _entries(flows):
        if not entry.fast_density:
            raise UserError(
                f"The flow {name!r} needs {event_size} sequential passes for the density of "
                f"vectors of size {event_size}, which every step of training takes: use "
                f"{entry.alternative!r}, which needs one. Received: {name!r}."
            )
        least, most = entry.smallest_event, entry.largest_event
        if event_size < least:
            raise UserError(
                f"The flow {name!r} needs vectors of size {least} at least: use 'maf' or "
                f"'spline-maf', which take any size. Received: event_size={event_size}."
            )
        if most is not None and event_size > most:
            raise UserError(
                f"The flow {name!r} takes vectors of size {most} at most: use 'maf' or "
                f"'spline-maf', which take any size. Received: event_size={event_size}."
            )


def _entries(flows: Iterable[Flow]) -> Iterator[tuple[str, FlowEntry]]:
    """The registered names and entries of flows, those within stacks too."""
    for flow in flows:
        if isinstance(flow, Stack):
            yield from _entries(flow.flows)
            continue
        for name, entry in FLOWS.items():
            if type(flow) is entry.load():
                yield name, entry
