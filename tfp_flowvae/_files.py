"""Files that appear whole under their name, or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

PARTIAL = ".partial"


@contextlib.contextmanager
def renamed_when_done(path: Path) -> Iterator[Path]:
    """Where to write a file, which takes its name once the context is left without an error.

    What stood under the name stays until then, and stays for good if writing fails. There may be
    one writer at a time, who has the content on the disk before leaving.

    Args:
      path: The name. Until it has it, the file is beside it, with a dot before and `.partial`
        behind.

    Raises:
      OSError: If it cannot be renamed.
    """
    aside = path.with_name(f".{path.name}{PARTIAL}")
    try:
        yield aside
        aside.replace(path)
        sync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def written_aside(path: Path) -> Iterator[BinaryIO]:
    """A file to write, as `renamed_when_done`, put on the disk at the end.

    Args:
      path: Its name.

    Raises:
      OSError: If it cannot be written.
    """
    with renamed_when_done(path) as aside, aside.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


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
