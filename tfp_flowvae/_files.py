"""Files that appear whole under their name, or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

PARTIAL = ".partial"


@contextlib.contextmanager
def written_aside(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which takes its name once it is complete and on the disk.

    What stood under the name stays until then, and stays for good if writing fails. There may be
    one writer at a time.

    Args:
      path: The name. Until it has it, the file is beside it, with a dot before and `.partial`
        behind.

    Raises:
      OSError: If it cannot be written.
    """
    aside = path.with_name(f".{path.name}{PARTIAL}")
    try:
        with aside.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
        sync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
        raise


def sync_folder(path: Path) -> None:
    """Has the names in a folder written to the disk; a folder cannot be opened on Windows."""
    if os.name != "posix":
        return
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def sync_tree(path: Path) -> None:
    """Has every file under a folder, and every name, written to the disk."""
    for folder, _, files in os.walk(path):
        for name in files:
            with open(os.path.join(folder, name), "rb") as file:
                os.fsync(file.fileno())
        sync_folder(Path(folder))
