"""Keras callbacks of a training run."""

from __future__ import annotations

import math
import shutil
import sys
import time
from typing import Any

import keras
import numpy as np


class StopOnNonFinite(keras.callbacks.Callback):
    """Ends training when the loss is no longer finite.

    Attributes:
      step: The step, counted from 1 over all epochs, after which the running mean of the loss was
        first seen not to be finite; None if that did not happen. It is looked at after each
        execution, hence up to `steps_per_execution - 1` steps late.
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

    @property
    def elapsed(self) -> float:
        """Seconds since the epoch began."""
        return time.perf_counter() - self._start

    @property
    def clipped(self) -> float:
        """The share of steps whose gradient the optimizer has clipped, over all epochs."""
        shares = [row.get("clipped", 0.0) for row in self.rows]
        return sum(shares) / len(shares) if shares else 0.0

    def carry_over(self, seconds: float) -> None:
        """Adds the time that the epoch had taken before it was cut."""
        self._start -= seconds

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Starts the clock."""
        self._start = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Adds the row."""
        values = {name: float(value) for name, value in (logs or {}).items()}
        self.rows.append({"epoch": epoch + 1, "seconds": round(self.elapsed, 4), **values})


class AveragedWeights(keras.callbacks.Callback):
    """Puts the optimizer's averages of the weights in their place from validation to epoch's end.

    Every callback before this one sees the averages there, those after it the weights, which come
    back exactly: Keras's `SwapEMAWeights` swaps by sums and differences, which rounds.
    """

    def __init__(self) -> None:
        super().__init__()
        self._held: list[np.ndarray] | None = None

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Holds the weights, and puts the averages in their place."""
        weights = self.model.trainable_weights
        self._held = [np.array(keras.ops.convert_to_numpy(weight)) for weight in weights]
        self.model.optimizer.finalize_variable_values(weights)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Puts the weights back."""
        if self._held is not None:
            for weight, value in zip(self.model.trainable_weights, self._held, strict=True):
                weight.assign(value)
            self._held = None


class ProgressLine(keras.callbacks.Callback):
    """Shows the course of training, a line an epoch, no wider than the terminal.

        Epoch 3/150
        13/13 0s - loss: 24.31 - elbo: -24.31 - kl: 9.87 - val_elbo: -23.90

    On a terminal the line is there while the epoch runs, with a bar and the seconds that are left.
    Keras's `ProgbarLogger` shows every metric, which takes several lines of a terminal.

    Args:
      verbose: 1: while the epoch runs, on a terminal, and at its end; 2: at its end only.
    """

    shown = ("loss", "elbo", "kl", "val_elbo")
    bar_width = 20
    interval = 0.1  # seconds between two updates of a line

    def __init__(self, verbose: int = 1) -> None:
        super().__init__()
        self._live = verbose == 1 and sys.stdout.isatty()
        self._start = self._updated = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Prints which epoch it is."""
        self._start = self._updated = time.perf_counter()
        print(f"Epoch {epoch + 1}/{self.params['epochs']}", flush=True)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Updates the line."""
        now, done, steps = time.perf_counter(), batch + 1, self.params["steps"]
        if not self._live or now - self._updated < self.interval:
            return
        self._updated = now
        columns = _columns()
        count = f"{done:{len(str(steps))}d}/{steps}"
        text = self._text(logs, (now - self._start) / done * (steps - done), columns - len(count))
        width = max(0, min(self.bar_width, columns - len(count + text) - len(" []")))
        bar = "=" * (width * done // steps)
        line = f"{count} [{bar:.<{width}}]{text}" if width else count + text
        print(f"\r{line:<{columns}}", end="", flush=True)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Ends the line."""
        columns, steps = _columns(), self.params["steps"]
        count = f"{steps}/{steps}"
        line = count + self._text(logs, time.perf_counter() - self._start, columns - len(count))
        print(f"\r{line:<{columns}}" if self._live else line, flush=True)

    def _text(self, logs: dict[str, Any] | None, seconds: float, room: int) -> str:
        """The seconds, and as many of the metrics as there is room for."""
        text = f" {seconds:.0f}s"
        for name in self.shown:
            if logs and name in logs:
                part = f" - {name}: {float(logs[name]):.2f}"
                text += part if len(text + part) <= room else ""
        return text


def _columns() -> int:
    """How many characters a line of the terminal takes; some wrap once the last is written."""
    return shutil.get_terminal_size().columns - 1
