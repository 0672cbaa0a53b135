"""The fields of a config that are options of the command line too, and the check of their values.

Nothing heavy is imported here.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Collection
from typing import Any

from tfp_flowvae.errors import UserError, nearest


def option(
    default: Any,
    group: str,
    help: str,
    *,
    metavar: str | None = None,
    choices: Collection[str] | None = None,
    length: int | None = None,
    at_least: float | None = None,
    above: float | None = None,
    below: float | None = None,
    shown: str | None = None,
    optional: bool = False,
) -> Any:
    """A config field that is also a command line option.

    Args:
      default: The default, of the field's type.
      group: Heading of the option in the command line's help.
      help: One line.
      metavar: Name of the value in the help.
      choices: Allowed words; a registry, for those registered at the time.
      length: How many numbers, for a field that holds several; None for one or more.
      at_least: Smallest allowed number.
      above: The number must be larger than this.
      below: The number must be smaller than this.
      shown: What the help shows as the default, if not the default.
      optional: Whether None stands for a default that the config works out.
    """
    metadata = {
        "group": group,
        "help": help,
        "metavar": metavar,
        "choices": choices,
        "length": length,
        "at_least": at_least,
        "above": above,
        "below": below,
        "shown": shown,
        "optional": optional,
    }
    return dataclasses.field(default=default, metadata=metadata)


def flag_of(name: str) -> str:
    """The command line's flag of a field."""
    return "--" + name.replace("_", "-")


def check_value(field: dataclasses.Field[Any], value: Any, kind: Any) -> None:
    """Checks the type and the range of a field's value.

    Raises:
      UserError: If it is not allowed.
    """
    flag, rules = flag_of(field.name), field.metadata
    if value is None and rules["optional"]:
        return
    if not _has_type(value, kind):
        raise UserError(f"{flag} must be {describe_type(kind)}. Received: {value!r}.")
    if value is None:
        return
    if rules["choices"] and value not in rules["choices"]:
        raise UserError(
            f"{flag} must be one of {', '.join(rules['choices'])}."
            f"{nearest(value, rules['choices'])} Received: {value!r}."
        )
    numbers = value if isinstance(value, tuple) else (value,)
    if rules["length"] and len(numbers) != rules["length"]:
        raise UserError(f"{flag} must be {rules['length']} numbers. Received: {value!r}.")
    low, high = rules["at_least"], rules["below"]
    if (low is not None and any(not low <= number for number in numbers)) or not numbers:
        raise UserError(f"{flag} must be at least {low:g}. Received: {value!r}.")
    if high is not None and any(number >= high for number in numbers):
        raise UserError(f"{flag} must be below {high:g}. Received: {value!r}.")
    if rules["above"] is not None and value <= rules["above"]:
        raise UserError(f"{flag} must be above {rules['above']:g}. Received: {value!r}.")


def plain_type(kind: Any) -> Any:
    """The type without `| None`."""
    if isinstance(kind, types.UnionType):
        return next(part for part in kind.__args__ if part is not type(None))
    return kind


def is_list(kind: Any) -> bool:
    """Whether a field of this type holds several numbers."""
    return typing.get_origin(plain_type(kind)) is tuple


def describe_type(kind: Any) -> str:
    """What a field takes, in words."""
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
