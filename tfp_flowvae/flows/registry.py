"""The registry of flows: everything that iterates over flows starts here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tfp_flowvae.registry import Entry, Registry, register
from tfp_flowvae.spec_options import Option, number_below, sizes, whole_number, word


@dataclass(frozen=True, kw_only=True)
class FlowEntry(Entry):
    """What is known of a flow without importing it; see also `Entry`.

    Attributes:
      fast_sample: Whether base sample to z, with its log-det, is one pass, not D sequential ones.
      fast_density: Whether z to base sample, with its log-det, is one pass, not D sequential ones.
      smallest_event: The smallest event size D that the flow can take.
      largest_event: The largest one, or None where there is none.
      complaint: From the options of a spec and D to a clause that says why they do not go together,
        or to an empty string.
      alternative: The flow to use where this one is needed in its slow direction.

    Example:
      >>> iaf = FLOWS["iaf"]
      >>> iaf.fast_sample, iaf.fast_density, iaf.alternative
      (True, False, 'maf')
    """

    fast_sample: bool = True
    fast_density: bool = True
    smallest_event: int = 1
    largest_event: int | None = None
    complaint: Callable[[Mapping[str, Any], int], str] = lambda options, event_size: ""
    alternative: str = ""


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


_ACTIVATION = word("elu", "relu", "silu", "softplus", "tanh", "gelu")


def _network(length: str, hidden: str) -> dict[str, Option]:
    return {"length": whole_number(length), "hidden": sizes(hidden), "activation": _ACTIVATION}


_COUPLING = {**_network("4", "256x256"), "mask": word("half", "alternating")}
_AUTOREGRESSION = {**_network("2", "320"), "update": word("affine", "gated")}
_SPLINE = {"bins": whole_number("8", at_least=2, at_most=256), "bound": number_below(1000.0, "4")}


def _entry(
    target: str, summary: str, options: Mapping[str, Option] | None = None, **facts: Any
) -> FlowEntry:
    options = options or {}
    first = "length" if "length" in options else ""
    target = f"tfp_flowvae.flows.{target}"
    return FlowEntry(summary=summary, target=target, options=options, first=first, **facts)


FLOWS: Registry[FlowEntry] = Registry(
    "flow",
    "flows",
    {
        "none": _entry("stack:Stack", "no flow: the base distribution as it is"),
        "planar": _entry(
            "planar:Planar",
            "K planar layers z + u h(w.z + b) (Rezende & Mohamed 2015)",
            {"length": whole_number("10"), "activation": word("tanh", "isru")},
        ),
        "radial": _entry(
            "radial:Radial",
            "K radial layers around learned centres (Rezende & Mohamed 2015)",
            {"length": whole_number("10")},
        ),
        "householder": _entry(
            "householder:Householder",
            "K reflections, volume preserving (Tomczak & Welling 2016)",
            {"length": whole_number("4")},
        ),
        "iaf": _entry(
            "autoregressive:IAF",
            "K inverse autoregressive layers: fast sampling (Kingma et al. 2016)",
            _AUTOREGRESSION,
            fast_density=False,
            alternative="maf",
        ),
        "maf": _entry(
            "autoregressive:MAF",
            "K masked autoregressive layers: fast density (Papamakarios et al. 2017)",
            _AUTOREGRESSION,
            fast_sample=False,
            alternative="iaf",
        ),
        "realnvp": _entry(
            "coupling:RealNVP",
            "K affine couplings: fast both ways (Dinh et al. 2017)",
            _COUPLING,
            smallest_event=2,
        ),
        "nice": _entry(
            "nice:NICE",
            "K additive couplings and a scaling: fast both ways (Dinh et al. 2015)",
            _COUPLING,
            smallest_event=2,
        ),
        "spline": _entry(
            "spline:SplineCoupling",
            "K spline couplings: fast both ways (Durkan et al. 2019)",
            {**_COUPLING, **_SPLINE},
            smallest_event=2,
        ),
        "spline-iaf": _entry(
            "spline:SplineIAF",
            "K inverse autoregressive spline layers: fast sampling (same paper)",
            {**_network("2", "320"), **_SPLINE},
            fast_density=False,
            alternative="spline-maf",
        ),
        "spline-maf": _entry(
            "spline:SplineMAF",
            "K masked autoregressive spline layers: fast density (same paper)",
            {**_network("2", "320"), **_SPLINE},
            fast_sample=False,
            alternative="spline-iaf",
        ),
        "sylvester": _entry(
            "sylvester:Sylvester",
            "K Sylvester layers z + QR h(R~Q'z + b) (van den Berg et al. 2018)",
            {
                "length": whole_number("4"),
                "kind": word("orthogonal", "householder", "triangular"),
                "width": whole_number(),
                "reflections": whole_number("8"),
            },
            complaint=_sylvester_complaint,
        ),
        "residual": _entry(
            "residual:Residual",
            "K contractive layers z + g(z), slower both ways (Chen et al. 2019)",
            {
                "length": whole_number("2"),
                "hidden": sizes("64"),
                "activation": word("lipswish", "elu", "sin", "tanh"),
                "lipschitz": number_below(1.0, "0.9"),
            },
            largest_event=64,
        ),
        "lu": _entry("linear:LU", "a full linear map in LU form (Kingma & Dhariwal 2018)"),
        "affine": _entry(
            "linear:Affine", "a scale and a shift for each dimension, a part for stacks"
        ),
        "permute": _entry(
            "linear:Permute",
            "a fixed permutation of the dimensions, a part for stacks",
            {
                "order": word("random", "reverse", "alternating"),
                "seed": whole_number("0", at_least=0),
            },
            complaint=_permute_complaint,
        ),
    },
)
"""The flows by name: the entries of the package and those that `register_flow` adds.

Example:
  >>> [name for name, entry in FLOWS.items() if entry.fast_density]
  ['none', 'planar', 'radial', 'householder', 'maf', 'realnvp', ...]
"""


def register_flow(
    name: str, *, summary: str, package: str = "custom", **facts: Any
) -> Callable[[type], type]:
    """Registers a `Flow` class under a name, for spec strings, `--help` and `.keras` files.

    The spec string takes the arguments of the class's constructor that are annotated as `int`,
    `float`, `str` or `Sequence[int]`; the first of them may stand without its name.

    Args:
      name: The name.
      summary: One line for the command line's help.
      package: The package under which `.keras` files name the class.
      **facts: Further attributes of `FlowEntry`, such as `fast_density=False`.

    Raises:
      UserError: If the name is taken or cannot stand in a spec string.

    Example:
      >>> @fv.register_flow("scale", summary="multiplies each dimension by a number")
      ... class Scale(fv.flows.ParametricFlow):
      ...     def parameter_initializers(self):
      ...         return {"log_scale": ((self.event_size,), "zeros")}
      ...
      ...     def make_bijector(self, context):
      ...         return tfb.Scale(log_scale=self.parameters(context)["log_scale"])
      >>> flow = fv.make_flow("scale+iaf:2", event_size=4)
    """
    return register(FLOWS, FlowEntry, name, package, summary=summary, **facts)
