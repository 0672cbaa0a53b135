"""Registries: names for classes, so that a string can stand for a part of a model.

Flows, base distributions, networks, likelihoods and presets use this one mechanism. An entry holds
text and numbers only, so that the command line can list all entries without importing TensorFlow.
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

# Arguments that the owner of a part passes to its constructor, so that a spec string does not.
_FROM_OWNER = {"event_size", "context_size", "image_shape", "output_channels", "initial_bias"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """The facts about a registered class that need no import of it.

    Attributes:
      summary: One line for the command line's help.
      target: The class, or `module:Class`.
      options: The options of its spec string, which are arguments of its constructor.
      first: The option whose name may be left out if it comes first; "" for none.
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
      kind: What a name stands for, such as "flow"; it is used in error messages.
      plural: The plural of `kind`.
      entries: The entries of the package itself.
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
          UserError: If the name is taken or cannot be part of a spec string.
        """
        if not name.replace("-", "_").isidentifier() or not name.isascii():
            raise UserError(
                f"The name of a {self.kind} must be letters, digits, - and _, and start with a "
                f"letter. Received: {name!r}."
            )
        known = self._entries.get(name)
        if known is not None and _place(known.target) != _place(entry.target):
            raise UserError(
                f"The {self.kind} {name!r} is already registered, as {known.summary!r}; choose "
                "another name."
            )
        self._entries[name] = entry

    def find(self, name: str, within: str | None = None) -> E:
        """Returns the entry of a name.

        Args:
          name: The name.
          within: The string that contains the name; it is used in the error message.

        Raises:
          UserError: If there is no entry; the message lists the known names.
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
    """Returns a class decorator that adds the class to a registry and registers it with Keras.

    The options of the spec string are the constructor's arguments that are annotated as `int`,
    `float`, `str` or `Sequence[int]`.

    Args:
      registry: The registry.
      entry: The type of the registry's entries.
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
    """Imports and returns the class of an entry's target."""
    if isinstance(target, type):
        return target
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)


def options_of(cls: type) -> dict[str, Option]:
    """Returns the arguments of a class's constructor as options of a spec string."""
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
        if hints.get(name) in readers and name not in _FROM_OWNER
    }


def _shown(default: Any) -> str:
    if default is inspect.Parameter.empty or default is None:
        return ""
    return "x".join(map(str, default)) if isinstance(default, tuple) else str(default)


def _place(target: str | type) -> str:
    if isinstance(target, str):
        return target
    return f"{target.__module__}:{target.__qualname__}"
