"""The options of a spec string: which values they allow and how their text is parsed."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass(frozen=True)
class Option:
    """An option of a spec string.

    Attributes:
      expected: What a value must be; it is used in error messages.
      read: The function from the text of a value to the value; it raises `ValueError`.
      default: The constructor's default as text; it is used in the command line's help.
    """

    expected: str
    read: Callable[[str], Any]
    default: str = ""


def whole_number(default: str = "", at_least: int = 1, at_most: int | None = None) -> Option:
    """An option whose value is a whole number in a range."""
    top = 2**31 - 1 if at_most is None else at_most

    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit() and at_least <= int(text) <= top):
            raise ValueError(text)
        return int(text)

    expected = f"a whole number of at least {at_least}"
    if at_most is not None:
        expected = f"a whole number from {at_least} to {at_most}"
    elif at_least == 0:
        expected = "a whole number"
    return Option(expected, read, default)


def sizes(default: str = "") -> Option:
    """An option whose value is a list of layer sizes."""
    read = whole_number().read
    return Option(
        "layer sizes such as 320x320", lambda text: tuple(map(read, text.split("x"))), default
    )


def number_below(limit: float, default: str = "") -> Option:
    """An option whose value is a number between 0 and a limit, both excluded."""

    def read(text: str) -> float:
        # No sign: "+" separates flows.
        if not re.fullmatch(r"[0-9]+(\.[0-9]+)?(e-?[0-9]+)?", text, re.ASCII):
            raise ValueError(text)
        if not 0.0 < float(text) < limit:
            raise ValueError(text)
        return float(text)

    return Option(f"a number between 0 and {limit:g}", read, default)


def word(*words: str, default: str = "") -> Option:
    """An option whose value is one of these words; the first is the default unless one is given."""

    def read(text: str) -> str:
        if text not in words:
            raise ValueError(text)
        return text

    return Option("one of " + ", ".join(words), read, default or words[0])
