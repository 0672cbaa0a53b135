"""Checkpoints on disk: one file each, with a checksum; the last two are kept.

A file is one line of text with the SHA-256 sum of the rest of the file, then an uncompressed zip
archive like NumPy's `.npz`, which holds arrays and `state.json`. It holds no code: arrays of
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
from typing import Any

import numpy as np

from tfp_flowvae._files import PARTIAL, written_aside
from tfp_flowvae.errors import UserError

FORMAT = 1
KEPT = 2
_MARK = b"tfp_flowvae checkpoint, sha256 "
_HEADER = len(_MARK) + 64 + 1
_SUFFIX, _STATE = ".checkpoint", "state.json"


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A state of training.

    Attributes:
      state: The part stored as JSON: at least `epoch` (the number of complete epochs), `step` (the
        number of steps done in the next epoch), `rows` (the history) and `config`.
      arrays: The arrays, by name.
      path: The file.
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
    """A folder of checkpoints with one writer.

    Args:
      folder: The folder; the first `save` makes it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._good: list[Path] = []

    def files(self) -> list[Path]:
        """Returns the checkpoint files, newest first, damaged ones included."""
        return sorted(self.folder.glob(f"step-*{_SUFFIX}"), reverse=True)

    def save(self, total_steps: int, state: Mapping[str, Any], arrays: Mapping[str, Any]) -> Path:
        """Writes a checkpoint, then removes all but the last two good ones.

        Args:
          total_steps: Steps since the start; they name the file and give its order.
          state: As in `Checkpoint`.
          arrays: Numeric arrays, by name.

        Raises:
          UserError: If the checkpoint cannot be written; the earlier ones are unchanged.
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
                f"Cannot write the checkpoint {str(path)!r}: {error.strerror}{left}. Fix that, "
                "then continue with --resume."
            ) from error
        return path

    def newest(self) -> Checkpoint | None:
        """Returns the newest intact checkpoint, or None if there are no checkpoints.

        Prints a warning on stderr if it skips damaged ones.

        Raises:
          UserError: If all checkpoints are damaged.
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
                    f"Warning: damaged checkpoints in {str(self.folder)!r}: {', '.join(damaged)}; "
                    f"continuing from the one before, {path.name}.",
                    file=sys.stderr,
                )
            self._good = files[index : index + KEPT][::-1]
            return Checkpoint(state, arrays, path)
        if damaged:
            raise UserError(
                f"All checkpoints in {str(self.folder)!r} are damaged, so the run cannot be "
                "resumed; start a new run with its config.json. "
                f"Received: {', '.join(damaged)}."
            )
        return None

    def _tidy(self) -> None:
        partial = self.folder.glob(f".step-*{PARTIAL}")
        for path in [*self.files(), *partial]:
            if path not in self._good:
                path.unlink()


class _DamagedError(Exception):
    """A checkpoint file is damaged; the message says how."""


def _write(file: io.BufferedRandom, state: Mapping[str, Any], arrays: Mapping[str, Any]) -> None:
    file.write(_MARK + b"0" * 64 + b"\n")
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(_STATE, json.dumps(state))
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)
    file.seek(_HEADER)
    total = hashlib.file_digest(file, "sha256")
    file.seek(len(_MARK))
    file.write(total.hexdigest().encode())


def _read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Returns the state and the arrays of a file.

    Raises:
      OSError: If the file cannot be read.
      _DamagedError: If its content is not what was written.
    """
    content = path.read_bytes()
    if len(content) < _HEADER or not content.startswith(_MARK):
        raise _DamagedError("not a checkpoint")
    total = hashlib.sha256(memoryview(content)[_HEADER:]).hexdigest().encode()
    if total != content[len(_MARK) : _HEADER - 1]:
        raise _DamagedError("its checksum does not match its content")
    file = io.BytesIO(content)
    file.seek(_HEADER)
    try:
        with np.load(file, allow_pickle=False) as archive:
            state = json.loads(archive[_STATE])
            arrays = {name: archive[name] for name in archive.files if name != _STATE}
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise _DamagedError(f"not in the format of a checkpoint: {error}") from error
    if state.get("format") != FORMAT:
        raise _DamagedError(f"not of format {FORMAT}")
    return state, arrays
