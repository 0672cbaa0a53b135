"""Packages whose names are imported when they are asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from tfp_flowvae._backend import check_backend


def lazy(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """A package's `__getattr__`, which imports the module that a name lives in.

    Args:
      package: The package's `__name__`.
      modules: From each name to the module, relative to the package.

    Returns:
      A function from a name to its value. It raises `BackendError` where Keras cannot run the
      package, and `AttributeError` for other names.
    """

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        check_backend()
        return getattr(importlib.import_module(f"{package}.{modules[name]}"), name)

    return get
