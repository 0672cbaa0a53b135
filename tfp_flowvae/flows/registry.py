"""The registry of flows: everything that iterates over flows starts here.

An entry holds strings and small numbers only, so that the command line can list every flow without
importing TensorFlow. A new flow is one file and one entry.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tfp_flowvae.flows.base import Flow


@dataclass(frozen=True)
class Option:
    """How an option of a spec string is read, and what to say when it cannot be."""

    expected: str
    read: Callable[[str], Any]


def _positive_int(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise ValueError(text)
    return int(text)


def _sizes(text: str) -> tuple[int, ...]:
    return tuple(_positive_int(size) for size in text.split("x"))


def _one_of(*words: str) -> Option:
    def read(text: str) -> str:
        if text not in words:
            raise ValueError(text)
        return text

    return Option("one of " + ", ".join(words), read)


LENGTH = Option("a whole number of at least 1", _positive_int)
SIZES = Option("layer sizes such as 320x320", _sizes)
ACTIVATION = _one_of("elu", "relu", "silu", "softplus", "tanh", "gelu")
PLANAR_ACTIVATION = _one_of("tanh", "isru")
_NETWORK = {"length": LENGTH, "hidden": SIZES, "activation": ACTIVATION}


@dataclass(frozen=True)
class FlowEntry:
    """What is known of a flow without importing it.

    Attributes:
      summary: One line for the command line's help.
      path: `module:Class` of the `Flow` layer.
      options: What its spec string takes.
      default_length: K when the spec does not say.
      fast_sample: Whether base sample to z, with its log-det, is one pass, not D steps in a row.
      fast_density: Whether z to base sample, with its log-det, is one pass, not D steps in a row.
      smallest_event: The smallest latent size D that the flow can take.
      alternative: What to use instead where this flow's direction is the slow one.
    """

    summary: str
    path: str
    options: Mapping[str, Option] = field(default_factory=dict)
    default_length: int = 1
    fast_sample: bool = True
    fast_density: bool = True
    smallest_event: int = 1
    alternative: str = ""

    def load(self) -> type[Flow]:
        """Imports and returns the layer class."""
        module, _, name = self.path.partition(":")
        return getattr(importlib.import_module(module), name)


FLOWS: Mapping[str, FlowEntry] = MappingProxyType(
    {
        "none": FlowEntry(
            summary="no flow: the base Gaussian as it is",
            path="tfp_flowvae.flows.stack:FlowStack",
        ),
        "planar": FlowEntry(
            summary="K planar layers z + u h(w.z + b) (Rezende & Mohamed 2015)",
            path="tfp_flowvae.flows.planar:PlanarFlowLayer",
            options={"length": LENGTH, "activation": PLANAR_ACTIVATION},
            default_length=10,
        ),
        "radial": FlowEntry(
            summary="K radial layers around learned centres (Rezende & Mohamed 2015)",
            path="tfp_flowvae.flows.radial:RadialFlowLayer",
            options={"length": LENGTH},
            default_length=10,
        ),
        "householder": FlowEntry(
            summary="K reflections, volume preserving (Tomczak & Welling 2016)",
            path="tfp_flowvae.flows.householder:HouseholderFlowLayer",
            options={"length": LENGTH},
            default_length=4,
        ),
        "iaf": FlowEntry(
            summary="K inverse autoregressive layers: fast sampling (Kingma et al. 2016)",
            path="tfp_flowvae.flows.autoregressive:InverseAutoregressiveFlowLayer",
            options=_NETWORK,
            default_length=2,
            fast_density=False,
            alternative="maf",
        ),
        "maf": FlowEntry(
            summary="K masked autoregressive layers: fast density (Papamakarios et al. 2017)",
            path="tfp_flowvae.flows.autoregressive:MaskedAutoregressiveFlowLayer",
            options=_NETWORK,
            default_length=2,
            fast_sample=False,
            alternative="iaf",
        ),
        "realnvp": FlowEntry(
            summary="K affine couplings: fast both ways (Dinh et al. 2017)",
            path="tfp_flowvae.flows.coupling:RealNVPFlowLayer",
            options=_NETWORK,
            default_length=4,
            smallest_event=2,
        ),
    }
)
