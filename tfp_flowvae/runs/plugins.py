"""Modules of the user, which register flows and other parts when they are imported."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path

from tfp_flowvae.errors import UserError


def import_plugin(source: str) -> None:
    """Imports a module by its dotted name, or a Python file by its path.

    Raises:
      UserError: If the module cannot be found or imported.
    """
    path = Path(source)
    try:
        if path.suffix != ".py":
            importlib.import_module(source)
        elif path.stem not in sys.modules:
            _import_file(path)
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            "--plugin must name a Python module or file that can be imported. "
            f"Received: {source!r}, which raises {type(error).__name__}: {error}."
        ) from error


def _import_file(path: Path) -> None:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ImportError("there is no such file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules[path.stem] = module
