"""The folder of a run: locked, with its state while it runs, and its results once they are whole.

    DIR/config.json     from the start
    DIR/checkpoints/    the last two states of training; they stay, so that a run can go on
    DIR/...             the results, moved in at the end; run.json comes last and says that all are

What begins with a dot is gone when the run is over: `.lock`, `.partial/` (results being written),
`.old/` (results being replaced) and, under `overwrite`, `.replacement/`, the home of the new run's
config and checkpoints while the old content is in its place.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
from pathlib import Path
from types import TracebackType
from typing import Self

from filelock import FileLock, Timeout

from tfp_flowvae._files import sync_folder, sync_tree, written_aside
from tfp_flowvae.errors import UserError
from tfp_flowvae.runs.resume import CHECKPOINTS, CONFIG, RECORD, REPLACEMENT, home_of
from tfp_flowvae.runs.store import CheckpointStore

DEFAULT_PARENT = Path("saved_models")
_LOCK, _STAGING, _OLD = ".lock", ".partial", ".old"
_OWN = {_LOCK, _STAGING, _OLD, REPLACEMENT}
# The last to come and the first to go: no reader may find half a model, or half the results.
_LAST = ("variables", "saved_model.pb", RECORD)


class RunFolder:
    """Where a run is written: no result is under its name until all of them are complete.

    A context manager that holds a lock, which dies with the process. Leaving it without `publish`
    and without a checkpoint removes what was written and gives the name back.

    Args:
      path: The folder to write, or None for a new numbered one under `saved_models/`.
      stem: What a numbered name starts with.
      overwrite: Whether `path` may hold something, which `publish` then replaces.
      resume: Whether to go on with the run in `path`.

    Attributes:
      path: The folder.
      home: Where the config and the checkpoints of this run are: `path`, or inside it.
      staging: Where to write results.

    Raises:
      UserError: If `path` is a file or holds something, another run is writing to it, there is no
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
        self._made, self._resume, self._published = False, resume, False
        try:
            self.path = self._numbered(stem) if path is None else self._claim(path, overwrite)
            self._lock = _locked(self.path)
            self._take(overwrite)
        except OSError as error:
            self._give_back()
            place = path or DEFAULT_PARENT
            raise UserError(
                f"Cannot write to {str(place)!r}: {error.strerror}; choose another --output."
            ) from error
        except BaseException:
            self._give_back()
            raise

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints, which need not exist."""
        return self.home / CHECKPOINTS

    @property
    def earlier(self) -> Path:
        """The folder of the checkpoints to go on from."""
        return self.checkpoints

    @property
    def has_state(self) -> bool:
        """Whether there is a checkpoint to go on from."""
        return bool(CheckpointStore(self.checkpoints).files())

    def write_config(self, text: str) -> None:
        """Writes the run's config.json, whole.

        Raises:
          OSError: If it cannot be written.
        """
        with written_aside(self.home / CONFIG) as file:
            file.write(text.encode())

    def publish(self) -> None:
        """Moves the results in, and what they replace away.

        Killed in between it leaves no half results under their names, and `resume` does it again.

        Raises:
          OSError: If that cannot be done.
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
        """Moves config and checkpoints in; until the checkpoints are, the home is what it was."""
        old, self.home = self.home, self.path
        if (old / CONFIG).is_file():
            self.write_config((old / CONFIG).read_text(encoding="utf-8"))
        for name in sorted(p.name for p in old.iterdir() if p.name not in (CONFIG, CHECKPOINTS)):
            (old / name).rename(self.path / name)
        if any((old / CHECKPOINTS).iterdir()):
            (old / CHECKPOINTS).rename(self.path / CHECKPOINTS)
        shutil.rmtree(old)

    def _numbered(self, stem: str) -> Path:
        DEFAULT_PARENT.mkdir(parents=True, exist_ok=True)
        safe = re.sub(r"[^A-Za-z0-9.=]+", "-", stem).strip("-.") or "run"
        for number in itertools.count(1):
            path = DEFAULT_PARENT / f"{safe}-{number:03d}"
            try:
                path.mkdir()
            except FileExistsError:
                continue
            self._made = True
            return path
        raise AssertionError  # count() does not end

    def _claim(self, path: Path, overwrite: bool) -> Path:
        path = Path(os.path.abspath(path)) if path.name in {"", "."} else path
        if self._resume:
            home_of(path)
        elif path.is_dir():
            if not (path / _LOCK).exists():  # or the lock has the first say
                _refuse_content(path, overwrite)
        elif path.exists():
            raise UserError(f"--output {str(path)!r} is a file; choose a folder.")
        else:
            path.mkdir(parents=True)
            self._made = True
        return path

    def _take(self, overwrite: bool) -> None:
        """Decides where the run lives, and clears away what a killed one has left."""
        if self._resume:
            self.home = home_of(self.path)
        else:
            _refuse_content(self.path, overwrite)
            shutil.rmtree(self.path / REPLACEMENT, ignore_errors=True)
            self.home = self.path
            if _content(self.path):
                self.home = self.path / REPLACEMENT
                (self.home / CHECKPOINTS).mkdir(parents=True)
        if self.home == self.path:
            shutil.rmtree(self.path / REPLACEMENT, ignore_errors=True)
        shutil.rmtree(self.path / _OLD, ignore_errors=True)
        self.staging = self.path / _STAGING
        shutil.rmtree(self.staging, ignore_errors=True)
        self.staging.mkdir()

    def _give_back(self) -> None:
        """Removes the folder if this run made it and it is empty; releases it in any case."""
        if self._lock is not None:
            # Before the release, so that nobody holds a lock on a file that goes; filelock itself
            # looks whether what it has locked still has a name. Windows removes no open file.
            with contextlib.suppress(OSError):
                (self.path / _LOCK).unlink(missing_ok=True)
            self._lock.release()
            self._lock = None
        with contextlib.suppress(OSError):
            if self._made and self.path.is_dir() and not any(self.path.iterdir()):
                self.path.rmdir()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        shutil.rmtree(self.staging, ignore_errors=True)
        if not (self._published or self._resume or self.has_state):
            if self.home != self.path:
                shutil.rmtree(self.home, ignore_errors=True)
            else:
                self._empty()
        self._give_back()

    def _empty(self) -> None:
        """Removes all from a folder that was empty when the run took it, as far as it can be."""
        with contextlib.suppress(OSError):  # one that is gone, or read-only by now
            for entry in self.path.iterdir():
                if entry.name != _LOCK:
                    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def _locked(path: Path) -> FileLock:
    """The lock of a folder, held."""
    lock = FileLock(path / _LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise UserError(
            f"Another run is writing to {str(path)!r}; wait for it to end, or choose another "
            "folder."
        ) from error
    return lock


def _content(path: Path) -> list[str]:
    return [entry.name for entry in path.iterdir() if entry.name not in _OWN]


def _refuse_content(path: Path, overwrite: bool) -> None:
    if not overwrite and _content(path):
        run = (path / CONFIG).is_file()
        more = ", --resume to go on with the run in it," if run else ""
        raise UserError(
            f"--output {str(path)!r} exists and is not empty; choose another folder, or add"
            f"{more} {'or ' if run else ''}--overwrite to replace it."
        )


def _in_order(path: Path) -> list[str]:
    """The entries of a folder, those last that tell a reader that the others are there."""
    return sorted(_content(path), key=lambda name: (name in _LAST and _LAST.index(name) + 1, name))
