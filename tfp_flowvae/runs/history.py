"""The history of a run: one row per epoch."""

from __future__ import annotations

import time
from typing import Any

import keras


class EpochHistory(keras.callbacks.Callback):
    """Collects one row per epoch: `epoch` (from 1), `seconds`, then the logs.

    Attributes:
      rows: The rows so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[dict[str, float]] = []
        self._start = 0.0

    @property
    def elapsed(self) -> float:
        """Seconds since the epoch began."""
        return time.perf_counter() - self._start

    @property
    def clipped(self) -> float:
        """The share of all steps in which the optimizer clipped the gradient."""
        shares = [row.get("clipped", 0.0) for row in self.rows]
        return sum(shares) / len(shares) if shares else 0.0

    def carry_over(self, seconds: float) -> None:
        """Adds the seconds that the epoch had taken before the run was interrupted."""
        self._start -= seconds

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Starts the clock."""
        self._start = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Adds the row."""
        values = {name: float(value) for name, value in (logs or {}).items()}
        self.rows.append({"epoch": epoch + 1, "seconds": round(self.elapsed, 4), **values})
