"""The configuration of a run: the one home of defaults.

Nothing heavy is imported here: the command line builds its options from the fields below.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from tfp_flowvae.data import BINARIZATIONS
from tfp_flowvae.errors import UserError, nearest
from tfp_flowvae.flows.build import check_event_size
from tfp_flowvae.flows.spec import FlowSpec, parse_spec

ACTIVATIONS = ("elu", "relu", "silu", "softplus", "tanh", "gelu")
SCHEDULES = ("cosine", "constant")


def option(
    default: Any,
    group: str,
    help: str,
    *,
    metavar: str | None = None,
    choices: tuple[str, ...] | None = None,
    at_least: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> Any:
    """A config field that is also a command line option.

    Args:
      default: The default, of the field's type.
      group: Heading of the option in the command line's help.
      help: One line.
      metavar: Name of the value in the help.
      choices: Allowed words.
      at_least: Smallest allowed number.
      above: The number must be larger than this.
      below: The number must be smaller than this.
    """
    metadata = {
        "group": group,
        "help": help,
        "metavar": metavar,
        "choices": choices,
        "at_least": at_least,
        "above": above,
        "below": below,
    }
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that decides a run's numbers, and nothing else.

    Two runs of one config on one machine give the same metrics bit for bit. Where the run is
    written, and how much it prints, are not part of it.

    Raises:
      UserError: If a value is not allowed, in one sentence.
    """

    flow: str = option("iaf", "model", "flow of the posterior q(z|x), see below", metavar="SPEC")
    prior: str = option(
        "none",
        "model",
        "flow of the prior p(z), same grammar; none is the standard normal",
        metavar="SPEC",
    )
    latent_dim: int = option(16, "model", "size of z", metavar="D", at_least=1)
    hidden: tuple[int, ...] = option(
        (300, 300),
        "model",
        "layer sizes of the encoder and, reversed, of the decoder",
        metavar="N",
        at_least=1,
    )
    activation: str = option("elu", "model", "of the encoder and decoder", choices=ACTIVATIONS)

    dataset: str = option(
        "digits",
        "data",
        "digits, mnist, a TFDS image dataset, an .npz or .npy file, or a folder of images",
        metavar="NAME|PATH",
    )
    data_dir: str | None = option(None, "data", "folder of prepared TFDS datasets", metavar="DIR")
    binarization: str = option(
        "dynamic",
        "data",
        "static: one Bernoulli draw; dynamic: a new draw each epoch in training; threshold: at "
        "one half; none: grey levels as they are",
        choices=BINARIZATIONS,
    )

    epochs: int = option(150, "training", "passes over the training images", at_least=1)
    batch_size: int = option(100, "training", "images a step", metavar="B", at_least=1)
    learning_rate: float = option(
        1e-3, "training", "of Adam, at the start", metavar="RATE", above=0.0
    )
    schedule: str = option("cosine", "training", "of the learning rate", choices=SCHEDULES)
    samples: int = option(
        1, "training", "posterior samples for each image and step", metavar="S", at_least=1
    )
    beta: float = option(1.0, "training", "weight of the KL term in the loss", at_least=0.0)
    seed: int = option(0, "training", "of everything random", at_least=0, below=2**31)
    jit: bool = option(True, "training", "compile the training step with XLA")

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            _check_value(field, getattr(self, field.name))
        check_event_size(self.flow_specs, self.latent_dim)
        check_event_size(self.prior_specs, self.latent_dim)
        _check_direction(
            "--flow", self.flow_specs, "fast_sample", "a posterior samples in every step"
        )
        _check_direction(
            "--prior", self.prior_specs, "fast_density", "a prior scores in every step"
        )

    @property
    def flow_specs(self) -> tuple[FlowSpec, ...]:
        """The posterior's flows, parsed."""
        return parse_spec(self.flow)

    @property
    def prior_specs(self) -> tuple[FlowSpec, ...]:
        """The prior's flows, parsed."""
        return parse_spec(self.prior)

    def to_json(self) -> str:
        """The config as JSON, one field a line."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], source: str) -> Self:
        """The config with these values, the rest at their defaults.

        Args:
          values: By field name.
          source: What to call the origin of the values in an error.

        Raises:
          UserError: For an unknown field or a value that is not allowed.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        for name in values:
            if name not in names:
                raise UserError(
                    f"Unknown field {name!r} in {source}; known fields are {', '.join(names)}."
                    f"{nearest(name, names)}"
                )
        lists_as_tuples: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
        }
        return cls(**lists_as_tuples)

    @classmethod
    def from_file(cls, path: str | Path, **overrides: Any) -> Self:
        """The config in a JSON file, with some fields replaced.

        Raises:
          UserError: If the file is missing, is not a JSON object, or holds what is not allowed.
        """
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise UserError(
                f"Cannot read the config file {str(path)!r}: {error.strerror}."
            ) from error
        except ValueError as error:
            raise UserError(f"The config file {str(path)!r} is not JSON: {error}.") from error
        if not isinstance(values, dict):
            raise UserError(
                f"The config file {str(path)!r} must hold a JSON object of fields, like the "
                f"config.json of a run. Received: a {type(values).__name__}."
            )
        return cls.from_mapping({**values, **overrides}, source=f"the config file {str(path)!r}")


def _check_direction(flag: str, specs: tuple[FlowSpec, ...], direction: str, why: str) -> None:
    for spec in specs:
        if not getattr(spec.entry, direction):
            raise UserError(
                f"{flag} cannot be {spec.name!r}: {why}, which takes {spec.name} one step after "
                f"another for each latent dimension; use {spec.entry.alternative!r} there instead."
            )


def _check_value(field: dataclasses.Field[Any], value: Any) -> None:
    flag, rules = "--" + field.name.replace("_", "-"), field.metadata
    if not _has_type(value, field_types()[field.name]):
        raise UserError(f"{flag} must be {describe_type(field)}. Received: {value!r}.")
    if rules["choices"] and value not in rules["choices"]:
        raise UserError(
            f"{flag} must be one of {', '.join(rules['choices'])}."
            f"{nearest(value, rules['choices'])} Received: {value!r}."
        )
    numbers = value if isinstance(value, tuple) else (value,)
    low, high = rules["at_least"], rules["below"]
    if (low is not None and any(not low <= number for number in numbers)) or not numbers:
        raise UserError(f"{flag} must be at least {low:g}. Received: {value!r}.")
    if high is not None and any(number >= high for number in numbers):
        raise UserError(f"{flag} must be below {high:g}. Received: {value!r}.")
    if rules["above"] is not None and value <= rules["above"]:
        raise UserError(f"{flag} must be above {rules['above']:g}. Received: {value!r}.")


def field_types() -> dict[str, Any]:
    """The type of every field."""
    return typing.get_type_hints(TrainConfig)


def describe_type(field: dataclasses.Field[Any]) -> str:
    """What a field takes, in words."""
    kind = field_types()[field.name]
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    return words.get(kind, "whole numbers" if typing.get_origin(kind) is tuple else "a text")


def _has_type(value: Any, kind: Any) -> bool:
    if isinstance(kind, types.UnionType):
        return any(_has_type(value, part) for part in kind.__args__)
    if typing.get_origin(kind) is tuple:
        return isinstance(value, tuple) and all(_has_type(v, int) for v in value)
    if kind is float:
        return type(value) in (int, float) and math.isfinite(value)
    return type(value) is kind
