"""What the study trains: every run by name, with the options that `train.py` gets."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatch
from types import MappingProxyType
from typing import Any

from .recipe import (
    BEST_FLOW,
    BEST_PRIOR,
    PROTOCOL,
    RECIPE,
    SEARCH,
    SEARCH_PRIOR,
    START,
    THEIR_SCHEDULE,
    TUNING,
)


@dataclasses.dataclass(frozen=True)
class Run:
    """One training run.

    Attributes:
      part: "tuning", "search", "A", "B", "C" or "D".
      label: What sets the run apart within its part, beside flow, prior and seed.
      flow: The posterior's flow.
      prior: The prior.
      seed: The run's seed.
      options: The other options of `train.py`, by the names of the fields of its config.
      hours: Roughly how long it takes, in hours of one core.
      here: Whether it is to run on a machine without a GPU; if not, `run` leaves it out.
    """

    part: str
    label: str = ""
    flow: str = "none"
    prior: str = "none"
    seed: int = 0
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    hours: float = 0.3
    here: bool = True

    @property
    def name(self) -> str:
        """The name of the run, of its folder and of its result."""
        parts = [self.part, self.label, self.flow, *([] if self.prior == "none" else [self.prior])]
        safe = [re.sub(r"[^A-Za-z0-9.]+", "_", part) for part in parts if part]
        return "-".join([*safe, f"seed{self.seed}"])

    @property
    def tests(self) -> bool:
        """Whether its result has figures of the test images: what is tried out has none."""
        return self.part not in ("tuning", "search")

    @property
    def program(self) -> list[str]:
        """What Python runs: `train.py`, or the study's own where the flow is the study's own."""
        own = self.flow.startswith("unconstrained")
        return ["-m", "benchmarks.study.train"] if own else ["train.py"]

    def arguments(self) -> list[str]:
        """The command line of `train.py`, but for the folder."""
        values = {"flow": self.flow, "prior": self.prior, "seed": self.seed, **self.options}
        found = []
        for name, value in values.items():
            flag = name.replace("_", "-")
            if isinstance(value, bool):
                found.append(f"--{flag}" if value else f"--no-{flag}")
                continue
            found += [f"--{flag}", *map(str, value if isinstance(value, tuple) else (value,))]
        return found


def _tuning() -> list[Run]:
    """The baseline's recipe, chosen by the free energy of the validation images."""
    found = []
    for label, change in TUNING.items():
        options = {**PROTOCOL, **START, **change, "diagnostics": False}
        hours = 0.06 * options["epochs"] / 100
        found.append(Run("tuning", label, options=options, hours=hours))
    return found


# Posterior flows of Part A: family, lengths, options.
IAF = "hidden=320"


def _row(flow: str, seeds: int, hours: float) -> list[Run]:
    """The seeds of a row of Part A, by the recipe."""
    return [
        Run("A", "", flow, seed=seed, options={**PROTOCOL, **RECIPE}, hours=hours)
        for seed in range(seeds)
    ]


def _table_1() -> list[Run]:
    """Part A, what matters most first: one seed of every row, the others, long planar flows."""
    several = [
        *_row("none", 3, 0.3),
        *_row("planar:10", 3, 0.45),
        *_row(f"iaf:2,{IAF}", 3, 0.45),
        *_row("householder:10", 3, 0.45),
    ]
    single = [
        *_row("planar:2", 1, 0.35),
        *_row("planar:1", 1, 0.35),
        *_row(f"iaf:10,{IAF}", 1, 0.9),
        *_row(f"iaf:1,{IAF}", 1, 0.35),
        *_row("householder:2", 1, 0.35),
        *_row("householder:1", 1, 0.35),
    ]
    first = [run for run in several if run.seed == 0]
    return [*first, *single, *(run for run in several if run.seed > 0)]


def _causes() -> list[Run]:
    """Part A, why the seed study found what it found: its map and its schedule, in our code."""
    unconstrained = [run for k in (10, 2, 1) for run in _row(f"unconstrained-planar:{k}", 1, 0.45)]
    long = [*_row("planar:40", 1, 0.7), *_row("planar:80", 1, 1.0)]
    scheduled = [
        Run("A", "their_schedule", flow, options={**PROTOCOL, **THEIR_SCHEDULE}, hours=hours)
        for flow, hours in (("none", 0.4), ("planar:10", 0.8), (f"iaf:2,{IAF}", 0.8))
    ]
    return [*unconstrained, *long, *scheduled]


# Priors and the hours of a run. Each flow has about as many weights, 0.31 million, as the posterior
# flow iaf:2,hidden=320.
FLOW_PRIORS: Mapping[str, float] = MappingProxyType(
    {
        "realnvp:6,hidden=200x200": 0.6,
        "maf:4,hidden=640": 0.6,
        "spline:4,hidden=128x128": 1.0,
    }
)
PRIORS: Mapping[str, float] = MappingProxyType({**FLOW_PRIORS, "vamp:100": 0.6, "mixture:100": 0.5})


def _priors() -> list[Run]:
    """Part B: each prior under the plain posterior and under IAF; standard priors are Part A's."""
    return [
        Run("B", "", flow, prior, options={**PROTOCOL, **RECIPE}, hours=hours + more)
        for flow, more in (("none", 0.0), (f"iaf:2,{IAF}", 0.15))
        for prior, hours in PRIORS.items()
    ]


def _searched(label: str) -> dict[str, Any]:
    """The options of a trial of the search; None takes away one of the recipe's."""
    options = {**PROTOCOL, **RECIPE, "epochs": 300, **SEARCH[label]}
    return {name: value for name, value in options.items() if value is not None}


def _search() -> list[Run]:
    """Part B, on the validation images: what keeps the best prior from overfitting."""
    return [
        Run(
            "search",
            label,
            prior=SEARCH_PRIOR,
            options={**_searched(label), "diagnostics": False},
            hours=0.4,
        )
        for label in SEARCH
    ]


def _best() -> list[Run]:
    """Part B, further seeds of the best dense model."""
    options = {**PROTOCOL, **RECIPE}
    return [Run("B", "", BEST_FLOW, BEST_PRIOR, seed, options, hours=0.75) for seed in (1, 2)]


def _for_a_gpu() -> list[Run]:
    """Part C: convolutions, with the hours that they would take on a core of a processor."""
    common = {
        **PROTOCOL,
        "encoder": "resnet",
        "hidden": (450,),
        "epochs": 300,
        "input_dropout": 0.1,
        "warmup": "linear",
        "warmup_epochs": 30,
    }
    found = []
    for flow, prior in (
        ("none", "none"),
        ("none", "realnvp:6,hidden=256x256"),
        ("iaf:4,hidden=640,update=gated", "maf:4,hidden=640"),
    ):
        found.append(Run("C", "resnet", flow, prior, options=common, hours=150.0, here=False))
    return found


def _other_images() -> list[Run]:
    """Part D: other images of TFDS, by the recipe."""
    return [
        Run(
            "D",
            dataset,
            flow,
            prior,
            options={**PROTOCOL, **RECIPE, "dataset": dataset},
            hours=0.6,
            here=False,
        )
        for dataset in ("fashion_mnist", "omniglot")
        for flow in ("none", f"iaf:2,{IAF}")
        for prior in ("none", "realnvp:6,hidden=200x200")
    ]


# By benchmarks/results/digits.md, best first.
DIGITS_PAIRS = (
    ("sylvester", "realnvp"),
    ("planar", "realnvp"),
    ("none", "vamp+realnvp"),
    ("none", "vamp"),
    ("none", "realnvp"),
    ("iaf", "realnvp"),
    ("realnvp", "realnvp"),
    ("none", "mixture+realnvp"),
    ("iaf", "maf"),
    ("none", "maf"),
)


def _digits() -> list[Run]:
    """Part D: the digits with the settings that `train.py` has by default."""
    options = {"dataset": "digits"}
    return [
        Run("D", "digits", flow, prior, seed, options, hours=0.03)
        for flow, prior in DIGITS_PAIRS
        for seed in range(5)
    ]


RUNS: tuple[Run, ...] = (
    *_tuning(),
    *_table_1(),
    *_priors(),
    *_search(),
    *_best(),
    *_causes(),
    *_digits(),
    *_for_a_gpu(),
    *_other_images(),
)

# Part B, what is compared at equal cost: the plain VAE first, one seed of each.
_COMPARED = (
    ("none", "none"),
    (f"iaf:2,{IAF}", "none"),
    *(("none", prior) for prior in FLOW_PRIORS),
)
CLAIM: tuple[Run, ...] = tuple(
    run
    for run in RUNS
    if run.part in "AB" and (run.label, run.seed) == ("", 0) and (run.flow, run.prior) in _COMPARED
)


def chosen(only: Iterable[str] = ("*",), here: bool = False) -> list[Run]:
    """The runs whose names match one of the patterns, in the order in which they are to run.

    Args:
      only: Patterns of names, such as `A-*`; the runs of the first come first, each pattern's in
        the order of the plan.
      here: Whether to leave out those that are not to run on this kind of machine.
    """
    found = {
        run.name: run
        for pattern in only
        for run in RUNS
        if fnmatch(run.name, pattern) and (run.here or not here)
    }
    return list(found.values())
