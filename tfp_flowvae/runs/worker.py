"""The folder of a worker that is not the chief: a temporary one."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Self

from tfp_flowvae.runs.folder import CHECKPOINTS, home_of


class WorkerFolder:
    """The `RunFolder` of a worker that is not the chief.

    The worker saves into a temporary folder, resumes from the chief's checkpoints and publishes
    nothing. (All workers must save, because they read the metrics together.)

    Args:
      path: The folder that the chief writes, or None if the chief chooses it.
      resume: Whether to continue the run in `path`.

    Raises:
      UserError: If there is no run to resume.
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
        """False: this worker keeps no checkpoint, and does not know whether the chief has one."""
        return False

    def write_config(self, text: str) -> None:
        """Does nothing: the chief writes the config."""

    def publish(self) -> None:
        """Does nothing: the chief publishes the results."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._temporary.cleanup()
