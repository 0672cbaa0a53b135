"""Models trained by Keras's `fit`. Importing this package loads nothing heavy."""

from __future__ import annotations

import importlib
from typing import Any

_LAZY = {"ElboTerms": "objective", "FlowVAE": "vae", "Objective": "objective"}

__all__ = [*_LAZY]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
