"""The folder of a run: locked while the run writes; it gets results only when all are complete.

    DIR/config.json     from the start
    DIR/checkpoints/    the last two states of training; they stay, so that the run can be resumed
    DIR/...             the results, moved in at the end; run.json comes last

Files and folders whose names begin with a dot are removed when the run ends: `.lock`, `.partial/`
(new results), `.old/` (results that are being replaced) and, with `overwrite`, `.replacement/`,
which holds the new run's config and checkpoints until its results replace the old content.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
from pathlib import Path
from typing import Self

from filelock import FileLock, Timeout

from tfp_flowvae._files import sync_folder, sync_tree, written_aside
from tfp_flowvae.errors import UserError
from tfp_flowvae.runs.store import CheckpointStore

CONFIG, RECORD, CHECKPOINTS = "config.json", "run.json", "checkpoints"
DEFAULT_PARENT = Path("saved_models")
_LOCK, _STAGING, _OLD, _REPLACEMENT = ".lock", ".partial", ".old", ".replacement"
_OWN = {_LOCK, _STAGING, _OLD, _REPLACEMENT}
# They are moved in last and out first, so that no reader finds an incomplete model or run.
_LAST = ("variables", "saved_model.pb", RECORD)


def home_of(path: Path) -> Path:
    """Returns the folder of the config and the checkpoints of the run in a folder.

    That is the folder itself. While a run with `--overwrite` has not yet replaced the content of
    the folder, it is a folder inside it.

    Raises:
      UserError: If there is no run.
    """
    replacement = path / _REPLACEMENT
    if (replacement / CONFIG).is_file() and (replacement / CHECKPOINTS).is_dir():
        return replacement
    if (path / CONFIG).is_file():
        return path
    raise UserError(
        f"{str(path)!r} holds no run to resume (no {CONFIG}); give the folder of a run, or start "
        "one without --resume."
    )


class RunFolder:
    """The folder that a run writes, as a context manager that holds a lock on it.

    The lock ends with the process. If the context ends without `publish` and without a checkpoint,
    it removes what was written, and the folders that it made.

    Args:
      path: The folder to write, or None for a new numbered folder under `saved_models/`.
      stem: How the name of a numbered folder starts.
      overwrite: Whether `path` may have content, which `publish` then replaces.
      resume: Whether to continue the run in `path`.

    Attributes:
      path: The folder.
      home: The folder of this run's config and checkpoints: `path`, or a folder inside it.
      earlier: The folder of the checkpoints to resume from.
      staging: The folder to write results into.

    Raises:
      UserError: If `path` is a file or has content, another run is writing to it, there is no
        run to resume, or the place cannot be written.
    """

    def __init__(
        self,
        path: Path | None,
        stem: str = "",
        overwrite: bool = False,
        resume: bool = False,
    ) -> None:
        self.home = self.staging = Path()
        self._lock: FileLock | None = None
        self._resume, self._published = resume, False
        self._made: list[Path] = []  # from the innermost
        try:
            self.path = self._numbered(stem) if path is None else self._claim(path, overwrite)
            self._lock = _locked(self.path)
            self._take(overwrite)
        except BaseException as error:
            self._give_back()
            if not isinstance(error, OSError):
                raise
            place = path or DEFAULT_PARENT
            raise UserError(
                f"Cannot write to {str(place)!r}: {error.strerror}; choose another --output."
            ) from error

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints; it may not exist yet."""
        return self.home / CHECKPOINTS

    @property
    def has_state(self) -> bool:
        """Whether there is a checkpoint to resume from."""
        return bool(CheckpointStore(self.checkpoints).files())

    def write_config(self, text: str) -> None:
        """Writes the run's config.json completely or not at all.

        Raises:
          OSError: If it cannot be written.
        """
        with written_aside(self.home / CONFIG) as file:
            file.write(text.encode())

    def publish(self) -> None:
        """Moves the results to their names, and moves away what they replace.

        If the process is killed meanwhile, no incomplete results are left under their names, and a
        resumed run publishes them again.

        Raises:
          OSError: If a file cannot be moved.
        """
        sync_tree(self.staging)
        names = _in_order(self.staging)
        replacing = self.home != self.path
        old = self.path / _OLD
        old.mkdir(exist_ok=True)
        there = _in_order(self.path)
        for name in reversed(there if replacing else [n for n in there if n in names]):
            (self.path / name).rename(old / name)
        if replacing:
            self._move_home()
        for name in names:
            (self.staging / name).rename(self.path / name)
        sync_folder(self.path)
        self._published = True
        shutil.rmtree(old)

    def _move_home(self) -> None:
        """Moves config and checkpoints to `path`; the checkpoints last, as `home_of` needs them."""
        old, self.home = self.home, self.path
        self.write_config((old / CONFIG).read_text(encoding="utf-8"))
        names = sorted((p.name for p in old.iterdir()), key=lambda name: name == CHECKPOINTS)
        for name in names:
            if name != CONFIG:
                (old / name).rename(self.path / name)
        shutil.rmtree(old)

    def _numbered(self, stem: str) -> Path:
        safe = re.sub(r"[^A-Za-z0-9.=]+", "-", stem).strip("-.") or "run"
        names = (f"{safe}-{number:03d}" for number in itertools.count(1))
        while True:
            path = DEFAULT_PARENT / next(names)
            with contextlib.suppress(FileExistsError):
                self._make(path)
                return path

    def _claim(self, path: Path, overwrite: bool) -> Path:
        path = Path(os.path.abspath(path)) if path.name in {"", "."} else path
        if self._resume:
            home_of(path)
        elif path.is_dir():
            if not (path / _LOCK).exists():  # If there is a lock, it is checked first.
                _refuse_content(path, overwrite)
        elif path.exists():
            raise UserError(f"--output {str(path)!r} is a file; choose a folder.")
        else:
            self._make(path)
        return path

    def _make(self, path: Path) -> None:
        made = [folder for folder in (path, *path.parents) if not folder.exists()]
        path.mkdir(parents=True)
        self._made = made

    def _take(self, overwrite: bool) -> None:
        """Sets `home`, `earlier` and `staging`, and removes what a killed run has left."""
        if self._resume:
            self.home = home_of(self.path)
        else:
            _refuse_content(self.path, overwrite)
            self.home = self.path / _REPLACEMENT if _content(self.path) else self.path
        kept = self.home if self._resume else None
        for left in (self.path / name for name in (_STAGING, _OLD, _REPLACEMENT)):
            if left != kept:
                shutil.rmtree(left, ignore_errors=True)
        if self.home != self.path:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
        self.earlier, self.staging = self.checkpoints, self.path / _STAGING
        self.staging.mkdir()

    def _give_back(self) -> None:
        """Releases the lock, and removes the folders that this run made, if they are empty."""
        if self._lock is not None:
            # The file is removed before the lock is released, or another run could lock a file
            # that is then removed. (filelock checks that a file it has locked still has a name.)
            # Windows cannot remove an open file.
            with contextlib.suppress(OSError):
                (self.path / _LOCK).unlink(missing_ok=True)
            self._lock.release()
            self._lock = None
        with contextlib.suppress(OSError):
            for made in self._made:
                made.rmdir()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        shutil.rmtree(self.staging, ignore_errors=True)
        if not (self._published or self._resume or self.has_state):
            if self.home != self.path:
                shutil.rmtree(self.home, ignore_errors=True)
            else:
                self._empty()
        self._give_back()

    def _empty(self) -> None:
        """Removes everything but the lock from a folder that was empty at the start."""
        with contextlib.suppress(OSError):  # The folder may be gone or read-only by now.
            for entry in self.path.iterdir():
                if entry.name != _LOCK:
                    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def _locked(path: Path) -> FileLock:
    """Returns the lock of a folder, acquired."""
    lock = FileLock(path / _LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise UserError(
            f"Another run is writing to {str(path)!r}; wait until it ends, or choose another "
            "folder."
        ) from error
    return lock


def _content(path: Path) -> list[str]:
    return [entry.name for entry in path.iterdir() if entry.name not in _OWN]


def _refuse_content(path: Path, overwrite: bool) -> None:
    if overwrite or not _content(path):
        return
    more = ""
    if (path / CONFIG).is_file():
        more = "--resume to continue the run in it, or "
    raise UserError(
        f"--output {str(path)!r} exists and is not empty; choose another folder, or add "
        f"{more}--overwrite to replace it."
    )


def _in_order(path: Path) -> list[str]:
    """The entries of a folder in the order in which they are moved in."""
    return sorted(_content(path), key=lambda name: (name in _LAST and _LAST.index(name) + 1, name))
