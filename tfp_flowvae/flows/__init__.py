"""Keras layers that own weights and hand out bijectors.

Importing this package loads nothing heavy: the layers come when they are asked for.
"""

from tfp_flowvae.flows.build import make_flow
from tfp_flowvae.flows.registry import FLOWS, FlowEntry, register_flow
from tfp_flowvae.flows.spec import FlowSpec, format_spec, parse_spec

__all__ = [
    "FLOWS",
    "FlowEntry",
    "FlowSpec",
    "format_spec",
    "make_flow",
    "parse_spec",
    "register_flow",
]
