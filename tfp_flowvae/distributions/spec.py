"""The spec string of a prior: that of flows, with a learnable base before them if one is wanted.

    prior = base *("+" flow) | flows        flows as in `tfp_flowvae.flows.spec`
    base  = name [":" integer]              the number of components K

For example `mixture:20`, `vamp:100+realnvp:4`, `maf:4`, `none`. Parsing imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from tfp_flowvae.errors import UserError, nearest
from tfp_flowvae.flows.registry import FLOWS, LENGTH
from tfp_flowvae.flows.spec import FlowSpec, format_spec, parse_spec


@dataclass(frozen=True)
class BaseEntry:
    """What is known of a prior's base without importing it.

    Attributes:
      summary: One line for the command line's help.
      default_components: K when the spec does not say.
    """

    summary: str
    default_components: int


PRIOR_BASES: Mapping[str, BaseEntry] = MappingProxyType(
    {
        "mixture": BaseEntry("mixture of K normals, all learned", 10),
        "vamp": BaseEntry("mixture of the posteriors of K learned images (VampPrior)", 100),
    }
)


@dataclass(frozen=True)
class PriorSpec:
    """A parsed spec: the base's name and K, or None and 0 for the standard normal; the flows."""

    base: str | None
    components: int
    flows: tuple[FlowSpec, ...]

    def __str__(self) -> str:
        if self.base is None:
            return format_spec(self.flows)
        usual = PRIOR_BASES[self.base].default_components
        base = self.base + (f":{self.components}" if self.components != usual else "")
        return "+".join([base, *map(str, self.flows)])


def parse_prior(spec: str) -> PriorSpec:
    """Reads the spec string of a prior.

    Raises:
      UserError: Where the string does not parse.
    """
    first, _, rest = spec.partition("+")
    names = [item.partition(":")[0] for item in spec.split("+")]
    for name in names[1:]:
        if name in PRIOR_BASES:
            raise UserError(
                f"Cannot read the prior {spec!r}: {name} is a base, which flows act on, so it "
                f"comes first and alone; write {name}+{names[0]} instead."
            )
    for name in names:
        if name not in FLOWS and name not in PRIOR_BASES:
            known = [*PRIOR_BASES, *FLOWS]
            raise UserError(
                f"Unknown prior {name!r} in {spec!r}; known bases are {', '.join(PRIOR_BASES)}, "
                f"known flows are {', '.join(FLOWS)}.{nearest(name, known)}"
            )
    if names[0] not in PRIOR_BASES:
        return PriorSpec(None, 0, parse_spec(spec))
    name, colon, count = first.partition(":")
    try:
        components = LENGTH.read(count) if colon else PRIOR_BASES[name].default_components
    except ValueError:
        raise UserError(
            f"Cannot read the prior {spec!r}: the number of components must be "
            f"{LENGTH.expected}, not {count!r}."
        ) from None
    return PriorSpec(name, components, parse_spec(rest) if rest else ())
