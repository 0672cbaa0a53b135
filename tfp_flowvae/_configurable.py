"""A Keras config for dataclasses."""

from __future__ import annotations

import dataclasses
from typing import Any, Self


class Configurable:
    """Mixin for a dataclass: its fields are its Keras config."""

    def get_config(self) -> dict[str, Any]:
        """The fields, by name."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}  # type: ignore[arg-type]

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """The object with these fields."""
        return cls(**config)
