"""The spec string of a distribution: a flow over a base.

    distribution = base *("+" flow) | stack        "normal" is the base where none is named

The grammar of the parts is that of `tfp_flowvae.spec`. For example `mixture:20`,
`vamp:100+realnvp:4`, `tril+iaf:2`, `maf:4`, `none`. Parsing imports nothing heavy.
"""

from __future__ import annotations

from dataclasses import dataclass

from tfp_flowvae.distributions.registry import BASES
from tfp_flowvae.errors import UserError, nearest
from tfp_flowvae.flows.image_registry import IMAGE_FLOWS, check_no_image_flow
from tfp_flowvae.flows.registry import FLOWS
from tfp_flowvae.flows.spec import format_stack, parse_stack
from tfp_flowvae.spec import Spec, parse

_NORMAL = Spec("normal", {}, BASES["normal"])


@dataclass(frozen=True)
class DistributionSpec:
    """A parsed spec: the base and the flows over it."""

    base: Spec = _NORMAL
    flows: tuple[Spec, ...] = ()

    def __str__(self) -> str:
        if self.base == _NORMAL:
            return format_stack(self.flows)
        return "+".join([str(self.base), *map(str, self.flows)])


def parse_image_flow(text: str) -> Spec | None:
    """Parses the spec of a flow of images; None if it begins with a flow of vectors or a base.

    Raises:
      UserError: If the spec is wrong.
    """
    names = [item.partition(":")[0] for item in text.split("+")]
    alone = next((name for name in names if name in IMAGE_FLOWS), None)
    if alone is not None and len(names) > 1:
        raise UserError(
            f"{alone!r} is a flow of images and stands alone: leave the other flows or the base "
            f"out. Received: {text!r}."
        )
    return None if names[0] in FLOWS or names[0] in BASES else parse(IMAGE_FLOWS, text)


def parse_distribution(text: str) -> DistributionSpec:
    """Reads the spec string of a distribution.

    Raises:
      UserError: If the string does not parse; the message points at the place.
    """
    names = [item.partition(":")[0] for item in text.split("+")]
    for name in names[1:]:
        if name in BASES:
            raise UserError(
                f"Cannot read the distribution {text!r}: {name} is a base, which flows act on, so "
                f"it comes first and alone; write {name}+{names[0]} instead."
            )
    for name in names:
        check_no_image_flow(name, text)
        if name not in FLOWS and name not in BASES:
            raise UserError(
                f"Unknown flow or base {name!r} in {text!r}; known bases are {', '.join(BASES)}, "
                f"known flows are {', '.join(FLOWS)}.{nearest(name, [*BASES, *FLOWS])}"
            )
    if names[0] not in BASES:
        return DistributionSpec(flows=parse_stack(text))
    first, plus, rest = text.partition("+")
    base = parse(BASES, first, text)
    return DistributionSpec(base, parse_stack(rest, text, len(first) + 1) if plus else ())
