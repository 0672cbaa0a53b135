"""The registry of likelihoods: strings and flags only, so that the command line stays light."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from tfp_flowvae.errors import UserError, nearest

if TYPE_CHECKING:
    from tfp_flowvae.likelihoods.base import Likelihood


@dataclass(frozen=True)
class LikelihoodEntry:
    """What is known of a likelihood without importing it.

    Attributes:
      summary: One line for the command line's help.
      path: `module:Class` of the `Likelihood`.
      takes_levels: Whether it is built for a number of grey levels, hence for grey images: on
        binary ones it means little.
      needs_levels: Whether it cannot do without that number.
      takes_components: Whether it is a mixture.
    """

    summary: str
    path: str
    takes_levels: bool = False
    needs_levels: bool = False
    takes_components: bool = False

    def load(self) -> type[Likelihood]:
        """Imports and returns the class."""
        module, _, name = self.path.partition(":")
        return getattr(importlib.import_module(module), name)


_PACKAGE = "tfp_flowvae.likelihoods"

LIKELIHOODS: Mapping[str, LikelihoodEntry] = MappingProxyType(
    {
        "bernoulli": LikelihoodEntry(
            summary="binary pixels",
            path=f"{_PACKAGE}.bernoulli:Bernoulli",
        ),
        "continuous-bernoulli": LikelihoodEntry(
            summary="grey levels, dequantised, with a density on [0, 1] (Loaiza-Ganem 2019)",
            path=f"{_PACKAGE}.continuous_bernoulli:ContinuousBernoulli",
            takes_levels=True,
        ),
        "gaussian": LikelihoodEntry(
            summary="grey levels, dequantised, with a learned scale for each pixel",
            path=f"{_PACKAGE}.gaussian:Gaussian",
            takes_levels=True,
        ),
        "logistic-mixture": LikelihoodEntry(
            summary="grey levels as they are, a mixture of K logistics (Salimans et al. 2017)",
            path=f"{_PACKAGE}.logistic_mixture:DiscretizedLogisticMixture",
            takes_levels=True,
            needs_levels=True,
            takes_components=True,
        ),
    }
)


def make_likelihood(name: str, levels: int | None = 256, components: int = 10) -> Likelihood:
    """The likelihood of a name.

    Args:
      name: One of `LIKELIHOODS`.
      levels: The images' number of grey levels, None where they have none; those that do not take
        it leave it alone.
      components: K, for a mixture.

    Raises:
      UserError: For an unknown name, or a value that the likelihood cannot take.

    Example:
    ```python
    make_likelihood("logistic-mixture", levels=256, components=5)
    ```
    """
    if name not in LIKELIHOODS:
        raise UserError(
            f"The likelihood must be one of {', '.join(LIKELIHOODS)}.{nearest(name, LIKELIHOODS)} "
            f"Received: {name!r}."
        )
    entry = LIKELIHOODS[name]
    if entry.needs_levels and levels is None:
        raise UserError(
            f"The likelihood {name} needs images with grey levels; take "
            f"{' or '.join(_with_density())} for images that have none. Received: levels=None."
        )
    options: dict[str, Any] = {}
    if entry.takes_levels:
        options["levels"] = levels
    if entry.takes_components:
        options["components"] = components
    return entry.load()(**options)


def _with_density() -> list[str]:
    return [name for name, e in LIKELIHOODS.items() if e.takes_levels and not e.needs_levels]
