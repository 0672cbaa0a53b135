"""Config fields that are also command line options, and the check of their values.

This module imports nothing heavy.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Collection, Mapping
from typing import Any

from tfp_flowvae.errors import UserError, nearest


@dataclasses.dataclass(frozen=True, kw_only=True)
class Option:
    """How a config field appears on the command line, and which values it allows.

    Attributes:
      group: The heading of the option in the command line's help.
      help: One line.
      metavar: The name of the value in the help.
      choices: The allowed words. For a registry, whatever is registered when a value is checked.
      length: How many numbers a field with several holds; None for one or more.
      at_least: The smallest allowed number.
      above: The number must be larger than this.
      below: The number must be smaller than this.
      shown: The text that the help shows in place of the default.
      optional: Whether None stands for a default that the config works out.
    """

    group: str
    help: str
    metavar: str | None = None
    choices: Collection[str] | None = None
    length: int | None = None
    at_least: float | None = None
    above: float | None = None
    below: float | None = None
    shown: str | None = None
    optional: bool = False


def option(default: Any, group: str, help: str, **rules: Any) -> Any:
    """Returns a config field with a default that is also a command line option; see `Option`."""
    metadata = {"option": Option(group=group, help=help, **rules)}
    return dataclasses.field(default=default, metadata=metadata)


def option_of(field: dataclasses.Field[Any]) -> Option:
    """Returns the option of a config field."""
    return field.metadata["option"]


def flag_of(name: str) -> str:
    """Returns the command line flag of a field."""
    return "--" + name.replace("_", "-")


def field_types(cls: type) -> Mapping[str, Any]:
    """Returns the type of every field of a dataclass, by name."""
    return typing.get_type_hints(cls)


def check_value(field: dataclasses.Field[Any], value: Any, kind: Any) -> None:
    """Checks the type and the range of a field's value.

    Raises:
      UserError: If the value is not allowed.
    """
    flag, rules = flag_of(field.name), option_of(field)
    if value is None and rules.optional:
        return
    if not _has_type(value, kind):
        raise UserError(f"{flag} must be {_describe_type(kind)}. Received: {value!r}.")
    if value is None:
        return
    if rules.choices and value not in rules.choices:
        raise UserError(
            f"{flag} must be one of {', '.join(rules.choices)}."
            f"{nearest(value, rules.choices)} Received: {value!r}."
        )
    numbers = value if isinstance(value, tuple) else (value,)
    if rules.length and len(numbers) != rules.length:
        raise UserError(f"{flag} must be {rules.length} numbers. Received: {value!r}.")
    low, high = rules.at_least, rules.below
    if (low is not None and any(number < low for number in numbers)) or not numbers:
        raise UserError(f"{flag} must be at least {low:g}. Received: {value!r}.")
    if high is not None and any(number >= high for number in numbers):
        raise UserError(f"{flag} must be below {high:g}. Received: {value!r}.")
    if rules.above is not None and value <= rules.above:
        raise UserError(f"{flag} must be above {rules.above:g}. Received: {value!r}.")


def plain_type(kind: Any) -> Any:
    """Returns a type without `| None`."""
    if isinstance(kind, types.UnionType):
        return next(part for part in kind.__args__ if part is not type(None))
    return kind


def is_list(kind: Any) -> bool:
    """Whether a field of this type holds several numbers."""
    return typing.get_origin(plain_type(kind)) is tuple


def _describe_type(kind: Any) -> str:
    if is_list(kind):
        return "whole numbers"
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    return words[plain_type(kind)]


def _has_type(value: Any, kind: Any) -> bool:
    if isinstance(kind, types.UnionType):
        return any(_has_type(value, part) for part in kind.__args__)
    if typing.get_origin(kind) is tuple:
        return isinstance(value, tuple) and all(_has_type(v, int) for v in value)
    if kind is float:
        return type(value) in (int, float) and math.isfinite(value)
    if kind is type(None):
        return value is None
    return type(value) is kind
