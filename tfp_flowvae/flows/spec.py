"""The spec string that names a stack of flows: one grammar for the command line, config and Python.

    spec    = "none" | flow *("+" flow)           a+b applies a to the base sample first
    flow    = name [":" option *("," option)]
    option  = integer                             the length K, first only
            | key "=" value
    value   = integer | number | word | integer *("x" integer)

A name may have a hyphen in it, and a number a point but no sign. For example `iaf`, `planar:10`,
`iaf:2,hidden=320x320`, `spline-maf:bins=16,bound=3.5`, `householder:4+iaf:2`. Nothing in it needs
quoting in a shell. Parsing imports nothing heavy, so the command line can answer at once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tfp_flowvae.errors import UserError, nearest
from tfp_flowvae.flows.registry import FLOWS, FlowEntry, Option

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


@dataclass(frozen=True)
class FlowSpec:
    """One flow of a stack: its registered name, its length K and its other options."""

    name: str
    length: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def entry(self) -> FlowEntry:
        """What the registry holds under this name."""
        return FLOWS[self.name]

    def __str__(self) -> str:
        parts = [str(self.length)] if self.length != self.entry.default_length else []
        parts += [f"{key}={_format(value)}" for key, value in self.options.items()]
        return self.name + (":" + ",".join(parts) if parts else "")


def parse_spec(spec: str) -> tuple[FlowSpec, ...]:
    """Reads a spec string; `none` is the empty stack.

    Args:
      spec: For example `"householder:4+iaf:2,hidden=320x320"`.

    Returns:
      The flows in the order they are applied to the base sample.

    Raises:
      UserError: Where the string does not parse, pointing at the place.
    """
    if not spec.strip():
        raise UserError(f"A flow spec cannot be empty; say 'none' for no flow. Received: {spec!r}.")
    flows: list[FlowSpec] = []
    start = 0
    for text in spec.split("+"):
        flows.append(_parse_flow(spec, text, start))
        start += len(text) + 1
    if any(flow.name == "none" for flow in flows) and len(flows) > 1:
        raise _error(spec, spec.index("none"), "'none' stands alone: leave it out of a stack")
    return tuple(flow for flow in flows if flow.name != "none")


def format_spec(flows: tuple[FlowSpec, ...]) -> str:
    """The canonical string of a parsed spec; `parse_spec` gives the same flows back."""
    return "+".join(map(str, flows)) or "none"


def _parse_flow(spec: str, text: str, start: int) -> FlowSpec:
    name, colon, rest = text.partition(":")
    if not _NAME.fullmatch(name):
        raise _error(spec, start, f"a flow's name is expected, not {name!r}")
    if name not in FLOWS:
        known = ", ".join(FLOWS)
        raise UserError(
            f"Unknown flow {name!r} in {spec!r}; known flows are {known}.{nearest(name, FLOWS)}"
        )
    entry = FLOWS[name]
    if not colon:
        return FlowSpec(name, entry.default_length)
    if not entry.options:
        raise _error(spec, start + len(name), f"{name} takes no options")
    options: dict[str, Any] = {}
    position = start + len(name) + 1
    for index, item in enumerate(rest.split(",")):
        key, equals, value = item.partition("=")
        where = position + len(key) + 1
        if not equals and index == 0 and "length" in entry.options:
            key, value, where = "length", item, position
        elif not equals:
            raise _error(spec, position, f"key=value is expected, not {item!r}")
        if key not in entry.options or key in options:
            raise _error(spec, position, _option_complaint(entry, name, key, key in options))
        what = "the length K" if key == "length" else key
        options[key] = _read(spec, where, what, value, entry.options[key])
        position += len(item) + 1
    return FlowSpec(name, options.pop("length", entry.default_length), options)


def _option_complaint(entry: FlowEntry, name: str, key: str, repeated: bool) -> str:
    if repeated:
        return f"the option {key!r} is given twice"
    known = ", ".join(entry.options)
    hint = nearest(key, entry.options)
    return f"{name} has no option {key!r}, it takes {known}{'.' + hint if hint else ''}"


def _read(spec: str, position: int, what: str, text: str, option: Option) -> Any:
    try:
        return option.read(text)
    except ValueError:
        message = f"{what} must be {option.expected}, not {text!r}"
        raise _error(spec, position, message) from None


def _error(spec: str, position: int, message: str) -> UserError:
    before, after = spec[:position], spec[position:]
    return UserError(
        f"Cannot read the flow spec {spec!r} at character {position + 1} "
        f"({before}>>>{after}): {message}{'' if message.endswith('?') else '.'}"
    )


def _format(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)
