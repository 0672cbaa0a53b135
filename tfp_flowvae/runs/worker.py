"""Where a worker that is not the chief writes: nowhere that stays."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from tfp_flowvae.runs.resume import CHECKPOINTS, home_of


class WorkerFolder:
    """A `RunFolder` for the workers beside the chief: all work alike, one of them publishes.

    What they save goes into a temporary folder. What they go on from is the chief's.

    Args:
      path: The folder that the chief writes to, or None for its choice.
      resume: Whether to go on with the run in `path`.

    Raises:
      UserError: If there is no run to go on with.
    """

    def __init__(self, path: Path | None, resume: bool = False) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="tfp_flowvae_worker_")
        self.home = Path(self._temporary.name)
        self.path = self.home if path is None else path
        self.staging = self.home / "results"
        self.staging.mkdir()
        self.checkpoints = self.home / CHECKPOINTS
        self.earlier = home_of(path) / CHECKPOINTS if path and resume else self.checkpoints

    @property
    def has_state(self) -> bool:
        """Whether there is a checkpoint that stays: the chief knows."""
        return False

    def write_config(self, text: str) -> None:
        """Leaves that to the chief."""

    def publish(self) -> None:
        """Leaves that to the chief."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._temporary.cleanup()
