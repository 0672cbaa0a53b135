"""Keras callbacks for the models here."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfp_flowvae.training.model import FastModel


class GradientNorm(keras.callbacks.Callback):
    """Adds to each epoch's logs the mean `gradient_norm`, before the optimizer clips it.

    Where the optimizer has a `global_clipnorm`, the norm is that of every step, and the logs have
    `clipped` too, the share of steps whose gradient was clipped. Otherwise it is the norm of every
    tenth step, as it takes time.

    Example:
      >>> x = np.random.default_rng(0).normal(size=(40, 2))
      >>> density = fv.FlowDensity("affine", event_size=2)
      >>> density.compile(keras.optimizers.Adam(global_clipnorm=1.0))
      >>> history = density.fit(x, callbacks=[GradientNorm()], verbose=0)
      >>> sorted(history.history)
      ['clipped', 'gradient_norm', 'log_likelihood', 'loss']
    """

    _STEPS_PER_NORM = 10

    def set_model(self, model: FastModel) -> None:
        """Creates the metrics, and has the model's steps update them."""
        super().set_model(model)
        with model.distribute_strategy.scope():
            self._norm, self._clipped = keras.metrics.Mean(), keras.metrics.Mean()
        model.gradient_observers = (*model.gradient_observers, self._observe)
        model.train_function = None  # it has to be traced anew

    @property
    def variables(self) -> list[keras.Variable]:
        """The state of the metrics."""
        return [*self._norm.variables, *self._clipped.variables]

    def _observe(self, gradients: Sequence[tf.Tensor]) -> None:
        limit = self.model.optimizer.global_clipnorm
        if limit is not None:
            norm = tf.linalg.global_norm(gradients)
            self._norm.update_state(norm)
            self._clipped.update_state(tf.cast(norm > limit, tf.float32))
            return
        # The first step of an epoch counts in any case: an epoch may have fewer steps than ten.
        is_first = tf.equal(self._norm.count, 0.0)
        measured = tf.logical_or(is_first, tf.equal(self.model.step % self._STEPS_PER_NORM, 0))
        norm = tf.cond(measured, lambda: tf.linalg.global_norm(gradients), lambda: 0.0)
        self._norm.update_state(norm, sample_weight=tf.cast(measured, tf.float32))

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Starts the means anew."""
        self._norm.reset_state()
        self._clipped.reset_state()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Adds the means."""
        if logs is not None:
            logs["gradient_norm"] = float(self._norm.result())
            if self.model.optimizer.global_clipnorm is not None:
                logs["clipped"] = float(self._clipped.result())

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Leaves the model as it was."""
        observers = self.model.gradient_observers
        self.model.gradient_observers = tuple(o for o in observers if o != self._observe)
        self.model.train_function = None


class AveragedWeights(keras.callbacks.Callback):
    """Replaces the weights by the optimizer's averages of them from validation to the epoch's end.

    At the end of the epoch the callbacks before this one see the averages, those after it the
    weights, which are restored exactly. Keras's `SwapEMAWeights` swaps by sums and differences,
    which rounds.

    Example:
      >>> x = np.random.default_rng(0).normal(size=(40, 2))
      >>> density = fv.FlowDensity("affine", event_size=2)
      >>> density.compile(keras.optimizers.Adam(0.1, use_ema=True, ema_momentum=0.9))
      >>> averaged = AveragedWeights()
      >>> history = density.fit(x, validation_data=(x,), callbacks=[averaged], verbose=0)
      >>> "val_loss" in history.history  # the loss of the averages
      True
    """

    def __init__(self) -> None:
        super().__init__()
        self._held: list[np.ndarray] | None = None

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Keeps the weights, and assigns the averages to them."""
        weights = self.model.trainable_weights
        self._held = [np.array(keras.ops.convert_to_numpy(weight)) for weight in weights]
        self.model.optimizer.finalize_variable_values(weights)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Restores the weights."""
        if self._held is not None:
            for weight, value in zip(self.model.trainable_weights, self._held, strict=True):
                weight.assign(value)
            self._held = None


class ProgressLine(keras.callbacks.Callback):
    """Shows the metrics of each epoch in one line, no wider than the terminal.

        Epoch 3/150
        13/13 0s - loss: 24.31 - elbo: -24.31 - kl: 9.87 - val_elbo: -23.90

    On a terminal the line is updated while the epoch runs, with a bar and the seconds that are
    left. Keras's `ProgbarLogger` shows every metric, which takes several lines of a terminal.

    Args:
      verbose: 1: while the epoch runs, on a terminal, and at its end; 2: at its end only.
      shown: The metrics to show.
    """

    bar_width = 20
    interval = 0.1  # seconds between two updates of a line

    def __init__(self, verbose: int = 1, shown: Sequence[str] = ("loss", "val_loss")) -> None:
        super().__init__()
        self.shown = shown
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
        """The seconds, and as many of the metrics as fit into `room` characters."""
        text = f" {seconds:.0f}s"
        for name in self.shown:
            if logs and name in logs:
                part = f" - {name}: {float(logs[name]):.2f}"
                text += part if len(text + part) <= room else ""
        return text


def _columns() -> int:
    """How many characters fit into a line; some terminals wrap when the last one is written."""
    return shutil.get_terminal_size().columns - 1
