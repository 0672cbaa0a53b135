"""The registry of flows: everything that iterates over flows starts here.

An entry holds words, small numbers and checks of them, so that the command line can list every flow
without importing TensorFlow. A new flow is one file and one entry.
"""

from __future__ import annotations

import importlib
import re
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


def _bins(text: str) -> int:
    if not 2 <= _positive_int(text) <= 256:
        raise ValueError(text)
    return int(text)


def _seed(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) >= 2**31:
        raise ValueError(text)
    return int(text)


def _number_below(limit: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        # No sign: "+" separates flows.
        if not re.fullmatch(r"[0-9]+(\.[0-9]+)?(e-?[0-9]+)?", text, re.ASCII):
            raise ValueError(text)
        if not 0.0 < float(text) < limit:
            raise ValueError(text)
        return float(text)

    return read


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
RESIDUAL_ACTIVATION = _one_of("lipswish", "elu", "sin", "tanh")
COUNT = Option("a whole number of at least 1", _positive_int)
_NETWORK = {"length": LENGTH, "hidden": SIZES, "activation": ACTIVATION}
_COUPLING = {**_NETWORK, "mask": _one_of("half", "alternating")}
_AUTOREGRESSION = {**_NETWORK, "update": _one_of("affine", "gated")}
_SPLINE = {
    "bins": Option("a whole number from 2 to 256", _bins),
    "bound": Option("a number between 0 and 1000", _number_below(1000.0)),
}


def _no_complaint(options: Mapping[str, Any], event_size: int) -> str:
    return ""


def _sylvester_complaint(options: Mapping[str, Any], event_size: int) -> str:
    kind = options.get("kind", "orthogonal")
    if "width" in options and kind != "orthogonal":
        return f"kind={kind} is as wide as the latent size, so leave width out"
    if "reflections" in options and kind != "householder":
        return f"kind={kind} has no reflections: leave them out or choose kind=householder"
    if options.get("width", 1) > event_size:
        return f"width must be at most the latent size, not {options['width']}"
    return ""


def _permute_complaint(options: Mapping[str, Any], event_size: int) -> str:
    if "seed" in options and options.get("order", "random") != "random":
        return f"order={options['order']} is not drawn, so leave seed out"
    return ""


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
      largest_event: The largest one, or None where there is none.
      complaint: From the options that a spec gives and D to what is wrong with them together, the
        rest of a sentence, or nothing.
      alternative: What to use instead where this flow's direction is the slow one.
    """

    summary: str
    path: str
    options: Mapping[str, Option] = field(default_factory=dict)
    default_length: int = 1
    fast_sample: bool = True
    fast_density: bool = True
    smallest_event: int = 1
    largest_event: int | None = None
    complaint: Callable[[Mapping[str, Any], int], str] = _no_complaint
    alternative: str = ""

    def load(self) -> type[Flow]:
        """Imports and returns the layer class."""
        module, _, name = self.path.partition(":")
        return getattr(importlib.import_module(module), name)


FLOWS: Mapping[str, FlowEntry] = MappingProxyType(
    _ENTRIES := {
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
            options=_AUTOREGRESSION,
            default_length=2,
            fast_density=False,
            alternative="maf",
        ),
        "maf": FlowEntry(
            summary="K masked autoregressive layers: fast density (Papamakarios et al. 2017)",
            path="tfp_flowvae.flows.autoregressive:MaskedAutoregressiveFlowLayer",
            options=_AUTOREGRESSION,
            default_length=2,
            fast_sample=False,
            alternative="iaf",
        ),
        "realnvp": FlowEntry(
            summary="K affine couplings: fast both ways (Dinh et al. 2017)",
            path="tfp_flowvae.flows.coupling:RealNVPFlowLayer",
            options=_COUPLING,
            default_length=4,
            smallest_event=2,
        ),
        "nice": FlowEntry(
            summary="K additive couplings and a scaling: fast both ways (Dinh et al. 2015)",
            path="tfp_flowvae.flows.nice:NICEFlowLayer",
            options=_COUPLING,
            default_length=4,
            smallest_event=2,
        ),
        "spline": FlowEntry(
            summary="K spline couplings: fast both ways (Durkan et al. 2019)",
            path="tfp_flowvae.flows.spline:SplineCouplingFlowLayer",
            options={**_COUPLING, **_SPLINE},
            default_length=4,
            smallest_event=2,
        ),
        "spline-iaf": FlowEntry(
            summary="K inverse autoregressive spline layers: fast sampling (same paper)",
            path="tfp_flowvae.flows.spline:InverseSplineFlowLayer",
            options={**_NETWORK, **_SPLINE},
            default_length=2,
            fast_density=False,
            alternative="spline-maf",
        ),
        "spline-maf": FlowEntry(
            summary="K masked autoregressive spline layers: fast density (same paper)",
            path="tfp_flowvae.flows.spline:MaskedSplineFlowLayer",
            options={**_NETWORK, **_SPLINE},
            default_length=2,
            fast_sample=False,
            alternative="spline-iaf",
        ),
        "sylvester": FlowEntry(
            summary="K Sylvester layers z + QR h(R~Q'z + b) (van den Berg et al. 2018)",
            path="tfp_flowvae.flows.sylvester:SylvesterFlowLayer",
            options={
                "length": LENGTH,
                "kind": _one_of("orthogonal", "householder", "triangular"),
                "width": COUNT,
                "reflections": COUNT,
            },
            default_length=4,
            complaint=_sylvester_complaint,
        ),
        "residual": FlowEntry(
            summary="K contractive layers z + g(z), slower both ways (Chen et al. 2019)",
            path="tfp_flowvae.flows.residual:ResidualFlowLayer",
            options={
                "length": LENGTH,
                "hidden": SIZES,
                "activation": RESIDUAL_ACTIVATION,
                "lipschitz": Option("a number between 0 and 1", _number_below(1.0)),
            },
            default_length=2,
            largest_event=64,
        ),
        "lu": FlowEntry(
            summary="a full linear map in LU form (Kingma & Dhariwal 2018)",
            path="tfp_flowvae.flows.linear:LUFlowLayer",
        ),
        "affine": FlowEntry(
            summary="a scale and a shift for each dimension, a part for stacks",
            path="tfp_flowvae.flows.linear:AffineFlowLayer",
        ),
        "permute": FlowEntry(
            summary="a fixed permutation of the dimensions, a part for stacks",
            path="tfp_flowvae.flows.linear:PermuteFlowLayer",
            options={
                "order": _one_of("random", "reverse", "alternating"),
                "seed": Option("a whole number", _seed),
            },
            complaint=_permute_complaint,
        ),
    }
)


def register_flow(name: str, entry: FlowEntry) -> None:
    """Adds a flow of one's own, which every spec string in this process can then name.

    Args:
      name: Letters, digits, hyphens and underscores, a letter first.
      entry: What is known of it; `entry.path` names its `Flow` layer.

    Raises:
      ValueError: If the name is taken or cannot be one.
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", name):
        raise ValueError(
            "A flow's name is letters, digits, hyphens and underscores, a letter first. "
            f"Received: name={name!r}."
        )
    if name in _ENTRIES:
        raise ValueError(f"There is a flow of this name already. Received: name={name!r}.")
    _ENTRIES[name] = entry
