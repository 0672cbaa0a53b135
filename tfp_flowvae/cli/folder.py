"""The folder of a run: claimed at the start, written aside, renamed into place at the end."""

from __future__ import annotations

import itertools
import os
import re
import shutil
from pathlib import Path
from types import TracebackType
from typing import Self

from tfp_flowvae.errors import UserError

DEFAULT_PARENT = Path("saved_models")


class RunFolder:
    """Where a run is written: nothing under its name until everything is there.

    A context manager: leaving it without `publish` removes what was written and gives the name
    back.

    Args:
      path: The folder to write, or None for a new numbered one under `saved_models/`.
      stem: What a numbered name starts with.
      overwrite: Whether `path` may hold something, which `publish` then replaces.

    Raises:
      UserError: If `path` is a file or holds something, or the place cannot be written.
    """

    def __init__(self, path: Path | None, stem: str, overwrite: bool = False) -> None:
        self._made: Path | None = None
        try:
            self.path = self._claim_numbered(stem) if path is None else self._claim(path, overwrite)
            self.staging = self.path.with_name(f".{self.path.name}.{os.getpid()}.partial")
            self.staging.mkdir()
        except OSError as error:
            self._give_back()
            place = path or DEFAULT_PARENT
            raise UserError(
                f"Cannot write to {str(place)!r}: {error.strerror}; choose another --output."
            ) from error

    def _claim_numbered(self, stem: str) -> Path:
        DEFAULT_PARENT.mkdir(parents=True, exist_ok=True)
        safe = re.sub(r"[^A-Za-z0-9.=]+", "-", stem).strip("-.") or "run"
        for number in itertools.count(1):
            path = DEFAULT_PARENT / f"{safe}-{number:03d}"
            try:
                path.mkdir()
            except FileExistsError:
                continue
            self._made = path
            return path
        raise AssertionError  # count() does not end

    def _claim(self, path: Path, overwrite: bool) -> Path:
        path = Path(os.path.abspath(path)) if path.name in {"", "."} else path
        if path.is_dir():
            if any(path.iterdir()) and not overwrite:
                raise UserError(
                    f"--output {str(path)!r} exists and is not empty; choose another folder, or "
                    "add --overwrite to replace it."
                )
        elif path.exists():
            raise UserError(f"--output {str(path)!r} is a file; choose a folder.")
        else:
            path.mkdir(parents=True)
            self._made = path
        return path

    def publish(self) -> None:
        """Gives the finished folder its name; what stood there under `overwrite` goes."""
        self._made = None
        old = self.path.with_name(f".{self.path.name}.{os.getpid()}.old")
        if any(self.path.iterdir()):
            self.path.rename(old)
        self.staging.rename(self.path)
        shutil.rmtree(old, ignore_errors=True)

    def _give_back(self) -> None:
        if self._made is not None and self._made.is_dir() and not any(self._made.iterdir()):
            self._made.rmdir()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.staging.exists():
            shutil.rmtree(self.staging)
            self._give_back()
