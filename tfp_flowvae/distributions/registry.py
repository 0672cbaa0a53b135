"""The registry of base distributions: what a flow acts on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tfp_flowvae.registry import Entry, Registry, register
from tfp_flowvae.spec_options import whole_number


@dataclass(frozen=True, kw_only=True)
class BaseEntry(Entry):
    """What is known of a base without importing it; see also `Entry`.

    Attributes:
      posterior: Whether it can be the base of a posterior, which has a context.
      prior: Whether it can be the base of a prior, which has none.
      density: Whether it can be the base of a density of data without a context.

    Example:
      >>> vamp = BASES["vamp"]
      >>> vamp.posterior, vamp.prior  # it can be the base of a prior only
      (False, True)
    """

    posterior: bool = True
    prior: bool = True
    density: bool = True


_DISTRIBUTIONS = "tfp_flowvae.distributions"

BASES: Registry[BaseEntry] = Registry(
    "base",
    "bases",
    {
        "normal": BaseEntry(
            summary="the standard normal; in a posterior a normal with diagonal covariance",
            target=f"{_DISTRIBUTIONS}.normal:Normal",
        ),
        "tril": BaseEntry(
            summary="in a posterior: a normal with full covariance",
            target=f"{_DISTRIBUTIONS}.normal:Tril",
            prior=False,
            density=False,
        ),
        "mixture": BaseEntry(
            summary="mixture of K normals, all learned",
            target=f"{_DISTRIBUTIONS}.mixture:Mixture",
            options={"components": whole_number("10")},
            first="components",
            posterior=False,
        ),
        "vamp": BaseEntry(
            summary="in a prior: mixture of the posteriors of K learned images (VampPrior)",
            target=f"{_DISTRIBUTIONS}.mixture:Vamp",
            options={"components": whole_number("100")},
            first="components",
            posterior=False,
            density=False,
        ),
    },
)
"""The bases by name: those of the package and those that `register_base` adds.

Example:
  >>> list(BASES)
  ['normal', 'tril', 'mixture', 'vamp'...]
"""


def register_base(
    name: str, *, summary: str, package: str = "custom", **facts: Any
) -> Callable[[type], type]:
    """Registers a `Base` class under a name, for spec strings, `--help` and `.keras` files.

    The arguments are those of `register_flow`, with the attributes of `BaseEntry` as `facts`.

    Example:
      >>> @fv.register_base("laplace", summary="Laplace distributions", posterior=False)
      ... class UnitLaplace(fv.distributions.Base):
      ...     def distribution(self, context=None):
      ...         return tfd.Independent(tfd.Laplace(tf.zeros([self.event_size]), 1.0), 1)
      >>> density = fv.FlowDensity("laplace+maf:1", event_size=2)
    """
    return register(BASES, BaseEntry, name, package, summary=summary, **facts)
