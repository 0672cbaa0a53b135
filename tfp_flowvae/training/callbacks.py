"""Keras callbacks of a training run."""

from __future__ import annotations

import math
import signal
import time
from types import FrameType
from typing import Any

import keras


class StopOnInterrupt(keras.callbacks.Callback):
    """Ends training after the current step at the first Ctrl-C; a second one ends it at once.

    Attributes:
      interrupted: Whether it happened.
    """

    def __init__(self) -> None:
        super().__init__()
        self.interrupted = False
        self._previous: Any = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Takes over SIGINT."""
        self._previous = signal.signal(signal.SIGINT, self._note)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Asks Keras to stop, if the signal came."""
        if self.interrupted:
            self.model.stop_training = True

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Gives SIGINT back."""
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
            self._previous = None

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.interrupted:
            raise KeyboardInterrupt
        self.interrupted = True


class StopOnNonFinite(keras.callbacks.Callback):
    """Ends training when the loss is no longer finite.

    Attributes:
      step: The first step, counted from 1 over all epochs, after which the running mean of the
        loss was not finite; None if that did not happen.
      loss: What it was.
    """

    def __init__(self) -> None:
        super().__init__()
        self.step: int | None = None
        self.loss = math.nan

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Looks at the loss."""
        loss = float((logs or {}).get("loss", 0.0))
        if self.step is None and not math.isfinite(loss):
            self.step = int(self.model.optimizer.iterations)
            self.loss = loss
            self.model.stop_training = True


class EpochHistory(keras.callbacks.Callback):
    """Collects one row an epoch: `epoch` (from 1), `seconds`, then the logs.

    Attributes:
      rows: The rows so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[dict[str, float]] = []
        self._start = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Starts the clock."""
        self._start = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Adds the row."""
        seconds = time.perf_counter() - self._start
        values = {name: float(value) for name, value in (logs or {}).items()}
        self.rows.append({"epoch": epoch + 1, "seconds": round(seconds, 4), **values})


class ClippingWatch(keras.callbacks.Callback):
    """Counts the steps whose gradient the optimizer has clipped.

    Attributes:
      share: Their share of all steps so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self._shares: list[float] = []

    @property
    def share(self) -> float:
        """The mean over the epochs."""
        return sum(self._shares) / len(self._shares) if self._shares else 0.0

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Notes the epoch's share."""
        self._shares.append(float((logs or {}).get("clipped", 0.0)))
