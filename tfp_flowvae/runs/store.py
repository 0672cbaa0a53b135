"""Checkpoints on disk: one file each, checked by a sum, of which the last two are kept.

A file is one line of text with the SHA-256 sum of all that follows it, and then a zip archive
(uncompressed, as NumPy's `.npz`) of arrays and of `state.json`. Nothing in it is code: arrays of
objects are neither written nor read.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from tfp_flowvae._files import PARTIAL, written_aside
from tfp_flowvae.errors import UserError

FORMAT = 1
KEPT = 2
_MARK = b"tfp_flowvae checkpoint, sha256 "
_HEADER = len(_MARK) + 64 + 1
_SUFFIX, _STATE = ".checkpoint", "state.json"
_FIELDS = {"format": int, "epoch": int, "step": int, "rows": list, "config": dict}


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A state of training.

    Attributes:
      state: What goes into JSON: at least `epoch` (epochs done), `step` (steps done in the epoch
        after them), `rows` (the history) and `config`.
      arrays: By name.
      path: The file it was read from.
    """

    state: dict[str, Any]
    arrays: dict[str, np.ndarray]
    path: Path

    @property
    def stopped_early(self) -> bool:
        """Whether early stopping had ended the run."""
        early = self.state.get("early_stopping")
        return early is not None and early["stopped_epoch"] > 0


class CheckpointStore:
    """A folder of checkpoints, with one writer.

    Args:
      folder: Made at the first `save`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._good: list[Path] = []

    def files(self) -> list[Path]:
        """The checkpoints there are, the newest first, damaged or not."""
        return sorted(self.folder.glob(f"step-*{_SUFFIX}"), reverse=True)

    def save(self, total_steps: int, state: Mapping[str, Any], arrays: Mapping[str, Any]) -> Path:
        """Writes a checkpoint; then the last two good ones stay and all others go.

        Args:
          total_steps: Steps since the start, which name the file and order it.
          state: See `Checkpoint`.
          arrays: By name, of numbers.

        Raises:
          UserError: If it cannot be written; those there were are as they were.
        """
        path = self.folder / f"step-{total_steps:010d}{_SUFFIX}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with written_aside(path) as file:
                _write(file, {"format": FORMAT, **state}, arrays)
            self._good = [*(good for good in self._good if good != path), path][-KEPT:]
            self._tidy()
        except OSError as error:
            left = f"; {self._good[-1].name} is intact" if self._good else ""
            raise UserError(
                f"Cannot write the checkpoint {str(path)!r}: {error.strerror}{left}. Mend that, "
                "and go on with --resume."
            ) from error
        return path

    def newest(self) -> Checkpoint | None:
        """The newest checkpoint that is whole, or None if there are no checkpoints at all.

        Says on stderr which damaged one it has passed over, and for which.

        Raises:
          UserError: If all are damaged.
        """
        damaged: list[str] = []
        files = self.files()
        for index, path in enumerate(files):
            try:
                state, arrays = _read(path)
            except (OSError, _DamagedError) as error:
                reason = error.strerror if isinstance(error, OSError) else str(error)
                damaged.append(f"{path.name} ({reason})")
                continue
            if damaged:
                print(
                    f"Warning: damaged in {str(self.folder)!r}: {', '.join(damaged)}; going on "
                    f"from the one before, {path.name}.",
                    file=sys.stderr,
                )
            self._good = files[index : index + KEPT][::-1]
            return Checkpoint(state, arrays, path)
        if damaged:
            raise UserError(
                f"No checkpoint in {str(self.folder)!r} is whole, so there is nothing to go on "
                f"from; start the run anew with its config.json. Received: {', '.join(damaged)}."
            )
        return None

    def _tidy(self) -> None:
        partial = self.folder.glob(f".step-*{PARTIAL}")
        for path in [*self.files(), *partial]:
            if path not in self._good:
                path.unlink()


class _DamagedError(Exception):
    """A checkpoint that is not what was written; the message says how it shows."""


class _Summing(io.RawIOBase):
    """A stream into a file that keeps the sum of what went through."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file
        self.sum = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.sum.update(data)
        return self._file.write(data)


def _write(file: BinaryIO, state: Mapping[str, Any], arrays: Mapping[str, Any]) -> None:
    file.write(_MARK + b"0" * 64 + b"\n")
    stream = _Summing(file)
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(_STATE, json.dumps(state))
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)
    file.seek(len(_MARK))
    file.write(stream.sum.hexdigest().encode())


def _read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """State and arrays of a file.

    Raises:
      OSError: If it cannot be read.
      _DamagedError: If it is not what was written.
    """
    content = path.read_bytes()
    if len(content) < _HEADER or not content.startswith(_MARK):
        raise _DamagedError("no checkpoint")
    payload = memoryview(content)[_HEADER:]
    if hashlib.sha256(payload).hexdigest().encode() != content[len(_MARK) : _HEADER - 1]:
        raise _DamagedError("its checksum is not that of its content")
    arrays = {}
    try:
        with zipfile.ZipFile(io.BytesIO(payload)) as archive:
            state = json.loads(archive.read(_STATE))
            for name in archive.namelist():
                if name != _STATE:
                    with archive.open(name) as member:
                        array = np.lib.format.read_array(member, allow_pickle=False)
                    arrays[name.removesuffix(".npy")] = array
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise _DamagedError(f"not in the format of a checkpoint: {error}") from error
    wrong = [k for k, kind in _FIELDS.items() if not isinstance(state.get(k), kind)]
    if wrong or state["format"] != FORMAT:
        raise _DamagedError(f"not of format {FORMAT}")
    return state, arrays
