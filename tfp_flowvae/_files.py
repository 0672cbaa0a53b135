"""Files that appear under their name complete, or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from io import BufferedRandom
from pathlib import Path

PARTIAL = ".partial"
KERAS_FILE = "model.keras"
"""The Keras model in the folder of an export."""


@contextlib.contextmanager
def renamed_when_done(path: Path) -> Iterator[Path]:
    """A context that gives a temporary name for a file, and renames the file at its end.

    If the context ends with an error, the temporary file is removed and an old file of that name
    stays. There may be only one writer at a time, and it must flush the content to the disk.

    Args:
      path: The final name. The temporary one is beside it: `.NAME.partial`.

    Raises:
      OSError: If the file cannot be renamed.
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
def folder_renamed_when_done(path: Path) -> Iterator[Path]:
    """Gives a temporary name to make a folder under, and renames it at the end of the context.

    What is in the folder is flushed to the disk before. If the context ends with an error, the
    temporary folder is removed; one that a killed process left is removed at the start.

    Args:
      path: The final name, which must not exist; its parent is made if need be.

    Raises:
      OSError: If the folder cannot be written or renamed.
    """
    aside = path.with_name(f".{path.name}{PARTIAL}")
    shutil.rmtree(aside, ignore_errors=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield aside
        sync_tree(aside)
        aside.rename(path)
        sync_folder(path.parent)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


@contextlib.contextmanager
def written_aside(path: Path) -> Iterator[BufferedRandom]:
    """A context that gives an open file, and renames it to `path` once it is on the disk.

    Args:
      path: The final name; see `renamed_when_done`.

    Raises:
      OSError: If the file cannot be written.
    """
    with renamed_when_done(path) as aside, aside.open("w+b") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Flushes the names in a folder to the disk, except on Windows, which cannot open a folder."""
    if os.name != "posix":
        return
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def sync_tree(path: Path) -> None:
    """Flushes all files in a folder and its subfolders, and their names, to the disk."""
    for folder, _, files in os.walk(path):
        for name in files:
            with open(os.path.join(folder, name), "rb") as file:
                os.fsync(file.fileno())
        sync_folder(Path(folder))
