"""Modules of the user's own, imported first, so that what they register has a name."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

from tfp_flowvae.errors import UserError

FLAG = "--plugin"


def import_plugins(argv: Sequence[str]) -> None:
    """Imports what `--plugin MODULE` names, before the rest of the command line is read.

    Args:
      argv: The arguments of the command line.

    Raises:
      UserError: If a module cannot be imported.
    """
    for flag, value in zip(argv, [*argv[1:], ""], strict=True):
        if flag == FLAG and value:
            import_plugin(value)
        elif flag.startswith(f"{FLAG}="):
            import_plugin(flag.partition("=")[2])


def import_plugin(source: str) -> None:
    """Imports a module by its dotted name, or a Python file by its path.

    Raises:
      UserError: If there is none, or it fails.
    """
    path = Path(source)
    try:
        if path.suffix == ".py":
            if path.stem in sys.modules:
                return
            spec = importlib.util.spec_from_file_location(path.stem, path)
            if spec is None or spec.loader is None or not path.is_file():
                raise ImportError("there is no such file")
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            sys.modules[path.stem] = module
        else:
            importlib.import_module(source)
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"{FLAG} must name a Python module or file that can be imported. "
            f"Received: {source!r}, which says: {type(error).__name__}: {error}."
        ) from error
