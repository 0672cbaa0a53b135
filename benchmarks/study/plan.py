"""What the study trains: every run by name, with the options that `train.py` gets."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatch
from types import MappingProxyType
from typing import Any

# The protocol of Henrion & Welleck, all but the schedule of training.
PROTOCOL: Mapping[str, Any] = MappingProxyType(
    {
        "dataset": "mnist",
        "binarization": "static",
        "latent_dim": 40,
        "encoder": "mlp",
        "hidden": (300, 300),
        "batch_size": 100,
    }
)

# Where the tuning starts: what was known before this study.
START: Mapping[str, Any] = MappingProxyType(
    {
        "activation": "elu",
        "norm": "none",
        "optimizer": "adam",
        "learning_rate": 1e-3,
        "schedule": "cosine",
        "warmup": "linear",
        "warmup_epochs": 30,
        "epochs": 100,
    }
)


@dataclasses.dataclass(frozen=True)
class Run:
    """One training run.

    Attributes:
      part: "tuning", "A", "B", "C" or "D".
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
        """Whether its result has figures of the test images: those of the tuning have none."""
        return self.part != "tuning"

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
    changes: dict[str, dict[str, Any]] = {
        "start": {},
        "input_dropout": {"input_dropout": 0.2},
        "rate_2e_3": {"learning_rate": 2e-3},
        "batch_norm": {"norm": "batch"},
        "silu": {"activation": "silu"},
        "warmup_60": {"warmup_epochs": 60},
        "adamw": {"optimizer": "adamw", "weight_decay": 0.02},
        "softplus": {"activation": "softplus"},
        "rate_5e_4": {"learning_rate": 5e-4},
        "tanh": {"activation": "tanh"},
        "gelu": {"activation": "gelu"},
        "layer_norm": {"norm": "layer"},
        "constant_ema": {"schedule": "constant", "ema": 0.9995},
        "relu": {"activation": "relu"},
    }
    return [
        Run(
            "tuning",
            label,
            options={**PROTOCOL, **START, **change, "diagnostics": False},
            hours=0.05,
        )
        for label, change in changes.items()
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


RUNS: tuple[Run, ...] = (*_tuning(), *_digits())


def chosen(only: Iterable[str] = ("*",), here: bool = False) -> list[Run]:
    """The runs whose names match one of the patterns, in the order in which they are to run.

    Args:
      only: Patterns of names, such as `A-*`.
      here: Whether to leave out those that are not to run on this kind of machine.
    """
    patterns = tuple(only)
    return [
        run
        for run in RUNS
        if any(fnmatch(run.name, pattern) for pattern in patterns) and (run.here or not here)
    ]
