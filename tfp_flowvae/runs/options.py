"""Config fields that are also command line options, and the check of their values.

This module imports nothing heavy.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Collection
from typing import Any

from tfp_flowvae.errors import UserError, nearest

WHOLE_NUMBERS = tuple[int, ...]
"""The type of a field with several whole numbers."""

_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    WHOLE_NUMBERS: "whole numbers",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Option:
    """How a config field appears on the command line, and which values it allows.

    Attributes:
      help: One line.
      group: The heading in the command line's help above this option and those after it; empty if
        the option belongs to the heading before.
      metavar: The name of the value in the help.
      choices: The allowed words. If this is a registry, a value may be registered later.
      length: How many numbers a field with several holds; None for one or more.
      at_least: The smallest allowed number.
      above: The number must be larger than this.
      below: The number must be smaller than this.
      shown: The text that the help shows in place of the default.
      optional: Whether None stands for a default that the config works out.
      of: The kind of model that the option is for; empty for every kind.
    """

    help: str
    group: str = ""
    metavar: str | None = None
    choices: Collection[str] | None = None
    length: int | None = None
    at_least: float | None = None
    above: float | None = None
    below: float | None = None
    shown: str | None = None
    optional: bool = False
    of: str = ""


def option(default: Any, help: str, **rules: Any) -> Any:
    """Returns a config field with a default that is also a command line option; see `Option`."""
    return dataclasses.field(default=default, metadata={"option": Option(help=help, **rules)})


def option_of(field: dataclasses.Field[Any]) -> Option:
    """Returns the option of a config field."""
    return field.metadata["option"]


def flag_of(name: str) -> str:
    """Returns the command line flag of a field."""
    return "--" + name.replace("_", "-")


def plain_type(kind: Any) -> Any:
    """Returns a type without `| None`."""
    if isinstance(kind, types.UnionType):
        return next(part for part in typing.get_args(kind) if part is not type(None))
    return kind


def check_value(field: dataclasses.Field[Any], value: Any, kind: Any) -> None:
    """Checks the type and the range of a field's value.

    Args:
      field: The field.
      value: The value.
      kind: The field's type.

    Raises:
      UserError: If the value is not allowed.
    """
    flag, rules, plain = flag_of(field.name), option_of(field), plain_type(kind)
    if value is None and (rules.optional or plain is not kind):
        return
    received = f"Received: {value!r}."
    if not _has_type(value, plain):
        raise UserError(f"{flag} must be {_WORDS[plain]}. {received}")
    if rules.choices and value not in rules.choices:
        raise UserError(
            f"{flag} must be one of {', '.join(rules.choices)}."
            f"{nearest(value, rules.choices)} {received}"
        )
    numbers = value if plain == WHOLE_NUMBERS else (value,)
    if rules.length and len(numbers) != rules.length:
        raise UserError(f"{flag} must be {rules.length} numbers. {received}")
    low, above, high = rules.at_least, rules.above, rules.below
    if low is not None and min(numbers, default=-math.inf) < low:
        raise UserError(f"{flag} must be at least {low:g}. {received}")
    if high is not None and max(numbers) >= high:
        raise UserError(f"{flag} must be below {high:g}. {received}")
    if above is not None and min(numbers) <= above:
        raise UserError(f"{flag} must be above {above:g}. {received}")


def _has_type(value: Any, kind: Any) -> bool:
    if kind is float:
        return type(value) in (int, float) and math.isfinite(value)
    if kind == WHOLE_NUMBERS:
        return isinstance(value, tuple) and all(type(number) is int for number in value)
    return type(value) is kind
