"""The registry of likelihoods."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tfp_flowvae.errors import UserError
from tfp_flowvae.registry import Entry, Registry, register
from tfp_flowvae.spec import parse
from tfp_flowvae.spec_options import Option, whole_number

if TYPE_CHECKING:
    from tfp_flowvae.likelihoods.base import Likelihood


@dataclass(frozen=True, kw_only=True)
class LikelihoodEntry(Entry):
    """What is known of a likelihood without importing it; see also `Entry`.

    Attributes:
      takes_levels: Whether it is built for a number of grey levels, hence for grey images: on
        binary images it has little use.
      needs_levels: Whether it needs that number.

    Example:
      >>> LIKELIHOODS["logistic-mixture"].needs_levels, LIKELIHOODS["bernoulli"].takes_levels
      (True, False)
    """

    takes_levels: bool = False
    needs_levels: bool = False


_LEVELS = {"levels": whole_number("256", at_least=2, at_most=65536)}


def _entry(
    target: str, summary: str, options: Mapping[str, Option] | None = None, **facts: Any
) -> LikelihoodEntry:
    options, target = options or {}, f"tfp_flowvae.likelihoods.{target}"
    takes_levels = "levels" in options
    return LikelihoodEntry(
        summary=summary, target=target, options=options, takes_levels=takes_levels, **facts
    )


LIKELIHOODS: Registry[LikelihoodEntry] = Registry(
    "likelihood",
    "likelihoods",
    {
        "bernoulli": _entry("bernoulli:Bernoulli", "binary pixels"),
        "continuous-bernoulli": _entry(
            "continuous_bernoulli:ContinuousBernoulli",
            "grey levels, dequantised, with a density on [0, 1] (Loaiza-Ganem 2019)",
            _LEVELS,
        ),
        "gaussian": _entry(
            "gaussian:Gaussian",
            "grey levels, dequantised, with a learned scale for each pixel",
            _LEVELS,
        ),
        "logistic-mixture": _entry(
            "logistic_mixture:DiscretizedLogisticMixture",
            "grey levels as they are, a mixture of K logistics (Salimans et al. 2017)",
            {**_LEVELS, "components": whole_number("10")},
            needs_levels=True,
        ),
    },
)
"""The likelihoods by name: those of the package and those that `register_likelihood` adds.

Example:
  >>> list(LIKELIHOODS)
  ['bernoulli', 'continuous-bernoulli', 'gaussian', 'logistic-mixture'...]
"""


def register_likelihood(
    name: str, *, summary: str, package: str = "custom", **facts: Any
) -> Callable[[type], type]:
    """Registers a `Likelihood` class under a name, for spec strings, `--help` and `.keras` files.

    The arguments are those of `register_flow`, with the attributes of `LikelihoodEntry` as `facts`.

    Example:
      >>> @fv.register_likelihood("laplace", summary="Laplace distributions of scale 0.1")
      ... class SharpLaplace(fv.likelihoods.Likelihood):
      ...     def distribution(self, output):
      ...         return tfd.Independent(tfd.Laplace(output, 0.1), 3)
      ...
      ...     def mean(self, output):
      ...         return tf.clip_by_value(output, 0.0, 1.0)
      >>> vae = fv.FlowVAE(image_shape=(8, 8, 1), latent_size=2, likelihood="laplace")
    """
    return register(LIKELIHOODS, LikelihoodEntry, name, package, summary=summary, **facts)


def make_likelihood(spec: str, levels: int | None = 256, components: int = 10) -> Likelihood:
    """The likelihood of a name.

    Args:
      spec: A name in `LIKELIHOODS` or a spec string, whose options come before the arguments.
      levels: The images' number of grey levels, None where they have none; likelihoods that do not
        take it ignore it.
      components: K, for a mixture; other likelihoods ignore it.

    Raises:
      UserError: For an unknown name, or a value that the likelihood cannot take.

    Example:
      >>> make_likelihood("logistic-mixture", levels=256, components=5).levels
      256
    """
    parsed = parse(LIKELIHOODS, spec)
    entry = LIKELIHOODS[parsed.name]
    if entry.needs_levels and levels is None and "levels" not in parsed.options:
        others = [name for name, e in LIKELIHOODS.items() if e.takes_levels and not e.needs_levels]
        raise UserError(
            f"The likelihood {parsed.name} needs images with grey levels; take "
            f"{' or '.join(others)} for images that have none. Received: levels=None."
        )
    arguments = {"levels": levels, "components": components}
    known = {name: value for name, value in arguments.items() if name in entry.options}
    return entry.load()(**{**known, **parsed.options})
