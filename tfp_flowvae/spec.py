"""Spec strings: a registered name with options, such as `iaf:2,hidden=320x320`.

    spec    = name [":" option *("," option)]
    option  = value                               the first option, without its name
            | key "=" value
    value   = integer | number | word | integer *("x" integer)

All registries, the command line, configs and Python use this grammar. A spec needs no quotes in a
shell. Parsing does not import TensorFlow, so the command line reports an error at once.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from tfp_flowvae.errors import UserError, nearest
from tfp_flowvae.registry import Entry, Registry

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


@dataclasses.dataclass(frozen=True)
class Spec:
    """A parsed spec string.

    Attributes:
      name: The registered name.
      options: The given options, by name.
      entry: The registry's entry of the name.
    """

    name: str
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    entry: Any = dataclasses.field(default=None, compare=False, repr=False)

    def build(self, **arguments: Any) -> Any:
        """Returns a new object of the class that the spec names.

        Args:
          **arguments: Further arguments of the class's constructor.
        """
        return self.entry.load()(**self.options, **arguments)

    def __str__(self) -> str:
        first = self.entry.first
        parts = [_format(self.options[first])] if first in self.options else []
        parts += [f"{k}={_format(value)}" for k, value in self.options.items() if k != first]
        return self.name + (":" + ",".join(parts) if parts else "")


def parse(registry: Registry[Any], text: str, whole: str | None = None, start: int = 0) -> Spec:
    """Parses the spec of one object.

    Args:
      registry: The registry of its name.
      text: The spec.
      whole: The longer string that contains the spec; it is used in error messages.
      start: Where in `whole` the spec begins.

    Raises:
      UserError: If the spec is wrong; the message points at the place.
    """
    whole = text if whole is None else whole
    name, colon, rest = text.partition(":")
    if not _NAME.fullmatch(name):
        article = "an" if registry.kind[0] in "aeiou" else "a"
        complaint = f"expected the name of {article} {registry.kind}, not {name!r}"
        raise spec_error(registry, whole, start, complaint)
    entry = registry.find(name, within=whole)
    if not colon:
        return Spec(name, {}, entry)
    if not entry.options:
        raise spec_error(registry, whole, start + len(name), f"{name} takes no options")
    options: dict[str, Any] = {}
    position = start + len(name) + 1
    for index, item in enumerate(rest.split(",")):
        key, equals, value = item.partition("=")
        where = position + len(key) + 1
        if not equals and index == 0 and entry.first:
            key, value, where = entry.first, item, position
        elif not equals:
            raise spec_error(registry, whole, position, f"expected key=value, not {item!r}")
        if key not in entry.options or key in options:
            complaint = _option_complaint(entry, name, key, key in options)
            raise spec_error(registry, whole, position, complaint)
        option = entry.options[key]
        try:
            options[key] = option.read(value)
        except ValueError:
            what = "the length K" if key == "length" else key
            complaint = f"{what} must be {option.expected}, not {value!r}"
            raise spec_error(registry, whole, where, complaint) from None
        position += len(item) + 1
    return Spec(name, options, entry)


def spec_error(registry: Registry[Any], whole: str, position: int, complaint: str) -> UserError:
    """Returns the error for a spec string that is wrong at a position."""
    before, after = whole[:position], whole[position:]
    return UserError(
        f"Cannot read the {registry.kind} spec {whole!r} at character {position + 1} "
        f"({before}>>>{after}): {complaint}{'' if complaint.endswith('?') else '.'}"
    )


def _option_complaint(entry: Entry, name: str, key: str, repeated: bool) -> str:
    if repeated:
        return f"the option {key!r} is given twice"
    hint = nearest(key, entry.options)
    known = ", ".join(entry.options)
    return f"{name} has no option {key!r}; its options are {known}{'.' + hint if hint else ''}"


def _format(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)
