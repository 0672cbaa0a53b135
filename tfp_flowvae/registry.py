"""Registries: names for classes, so that a string can stand for a part of a model.

One mechanism serves flows, base distributions, networks, likelihoods and presets. An entry holds
words and small numbers, so that the command line can list everything without importing TensorFlow.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

from tfp_flowvae.errors import UserError, nearest
from tfp_flowvae.spec_options import Option, whole_number

E = TypeVar("E", bound="Entry")

# What the owner of a part tells its constructor, and a spec string therefore does not.
_TOLD = {"event_size", "context_size", "image_shape", "output_channels", "initial_bias"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """What is known of a registered class without importing it.

    Attributes:
      summary: One line for the command line's help.
      target: The class, or `module:Class`.
      options: The options that its spec string takes: arguments of its constructor.
      first: The option that may stand first in a spec without its name, if there is one.
    """

    summary: str
    target: str | type = ""
    options: Mapping[str, Option] = dataclasses.field(default_factory=dict)
    first: str = ""

    def load(self) -> Any:
        """Imports and returns the class."""
        return load(self.target)


class Registry(Mapping[str, E], Generic[E]):
    """Names and their entries, in the order in which they were registered.

    Args:
      kind: What the names stand for, for error messages: "flow", for example.
      plural: Of `kind`.
      entries: Those of the package itself.
    """

    def __init__(self, kind: str, plural: str, entries: Mapping[str, E]) -> None:
        self.kind, self.plural = kind, plural
        self._entries = dict(entries)

    def __getitem__(self, name: str) -> E:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, name: str, entry: E) -> None:
        """Registers an entry.

        Raises:
          UserError: If the name is another's already or cannot stand in a spec string.
        """
        if not name.replace("-", "_").isidentifier() or not name.isascii():
            raise UserError(
                f"The name of a {self.kind} must be letters, digits, - and _, and start with a "
                f"letter. Received: {name!r}."
            )
        known = self._entries.get(name)
        if known is not None and _place(known.target) != _place(entry.target):
            raise UserError(
                f"The {self.kind} {name!r} is registered already, as {known.summary!r}; choose "
                "another name."
            )
        self._entries[name] = entry

    def find(self, name: str, within: str | None = None) -> E:
        """The entry of a name.

        Args:
          name: The name.
          within: The string that it was found in, for the error message.

        Raises:
          UserError: If there is none; the message names those there are.
        """
        if name not in self:
            where = "" if within in (None, name) else f" in {within!r}"
            raise UserError(
                f"Unknown {self.kind} {name!r}{where}; known {self.plural} are "
                f"{', '.join(self)}.{nearest(name, self)}"
            )
        return self[name]


def register(
    registry: Registry[E], entry: type[E], name: str, package: str, **facts: Any
) -> Callable[[type], type]:
    """A class decorator that enters the class into a registry and registers it with Keras.

    The options of its spec string are the arguments of its constructor that a spec can express:
    those annotated as `int`, `float`, `str` or `Sequence[int]`.

    Args:
      registry: The registry.
      entry: The registry's type of entry.
      name: The name in spec strings.
      package: The package under which `.keras` files name the class.
      **facts: Further attributes of the entry.
    """

    def decorate(cls: type) -> type:
        import keras

        options = options_of(cls)
        first = next(iter(options), "")
        registry.add(name, entry(target=cls, options=options, first=first, **facts))
        return keras.saving.register_keras_serializable(package=package)(cls)

    return decorate


def load(target: str | type) -> Any:
    """The class that an entry's target names."""
    if isinstance(target, type):
        return target
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)


def options_of(cls: type) -> dict[str, Option]:
    """The arguments of a class's constructor as options of a spec string."""
    readers: dict[Any, Option] = {
        int: whole_number(at_least=0),
        float: Option("a number", float),
        str: Option("a word", str),
        Sequence[int]: Option(
            "sizes such as 8x8", lambda text: tuple(int(size) for size in text.split("x"))
        ),
    }
    hints = {
        name: next((part for part in typing.get_args(kind) if part in readers), kind)
        if isinstance(kind, types.UnionType)
        else kind
        for name, kind in typing.get_type_hints(cls.__init__).items()  # type: ignore[misc]
    }
    return {
        name: dataclasses.replace(readers[hints.get(name)], default=_shown(parameter.default))
        for name, parameter in inspect.signature(cls).parameters.items()
        if hints.get(name) in readers and name not in _TOLD
    }


def _shown(default: Any) -> str:
    if default is inspect.Parameter.empty or default is None:
        return ""
    return "x".join(map(str, default)) if isinstance(default, tuple) else str(default)


def _place(target: str | type) -> str:
    if isinstance(target, str):
        return target
    return f"{target.__module__}:{target.__qualname__}"
