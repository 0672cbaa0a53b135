"""Packages that import a name when it is first used."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from tfp_flowvae._backend import check_backend


def lazy(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """Returns a `__getattr__` for a package that imports a name's module on first use.

    Args:
      package: The package's `__name__`.
      modules: The module of each name, relative to the package.

    Returns:
      A function from a name to its value. It raises `BackendError` if the installed Keras cannot
      run the package, and `AttributeError` for an unknown name.
    """

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        check_backend()
        return getattr(importlib.import_module(f"{package}.{modules[name]}"), name)

    return get
