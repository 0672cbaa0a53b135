"""Finds the step of training that made the loss or a weight not finite.

The loss and the weights are checked once in up to 50 steps, and not in each of them. Before these
steps the state of the model and of its optimizer is copied, and their batches are kept. If the
check fails, the state is restored and the steps run again, one at a time, with a check after each.
The state from before the step that fails is restored, and `diagnose` runs that step eagerly.

TensorFlow does not copy a variable when it is read, but when it is next assigned. A copy of the
state therefore costs one write of every variable in up to 50 steps. It takes as much memory as the
variables do, and the batches take up to 16 MiB.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import keras
import numpy as np
import tensorflow as tf

from tfp_flowvae.errors import NonFiniteError
from tfp_flowvae.training.diagnosis import diagnose

Logs = dict[str, tf.Tensor]
Batch = Callable[[], Any]


class StepWatch:
    """Keeps the state from before the last steps, and finds the one that failed.

    Args:
      model: The model whose steps are watched.
      loss: From a batch to the loss of a step of training.

    Attributes:
      epoch: The epoch, from 0.
    """

    def __init__(self, model: keras.Model, loss: Callable[[Any], tf.Tensor]) -> None:
        self._model, self._loss_of = model, loss
        self.epoch = 0
        self._steps: list[tuple[Callable[[Any], Logs], Batch]] = []
        self._state: list[tf.Tensor] = []
        self._loss: Any = 0.0
        self._copied = tf.function(lambda: _values(self._variables()), autograph=False)
        self._all_finite = tf.function(self._weights_are_finite, autograph=False)

    def begin_epoch(self, epoch: int) -> None:
        """Forgets the steps so far."""
        self.epoch = epoch
        self._forget()

    def begin(self) -> None:
        """Copies the state before further steps, once those before it are checked."""
        self.check()
        self._state = self._copied()

    def ran(self, run: Callable[[Any], Logs], batches: Sequence[Batch], logs: Logs) -> None:
        """Notes steps that have run.

        Args:
          run: A function that runs a single one of them, from its batch to logs.
          batches: For each step a function that returns its batch.
          logs: The logs after the last one.
        """
        self._steps += [(run, batch) for batch in batches]
        self._loss = logs["loss"]

    @property
    def noted(self) -> int:
        """How many steps are noted since the state was copied."""
        return len(self._steps)

    def check(self) -> None:
        """Raises `NonFiniteError` if the noted steps made the loss or a weight not finite."""
        if not self._steps:
            return
        if not (_is_finite(self._loss) and bool(self._all_finite())):
            self._find()
        self._forget()

    def check_loss(self, loss: Any) -> None:
        """Raises `NonFiniteError` for a loss that is not finite, of steps that are not kept."""
        if not _is_finite(loss):
            raise NonFiniteError(
                f"the loss is {_number(loss)}; train on one device, without a strategy, to find "
                "the layer",
                epoch=self.epoch + 1,
                step=int(self._model.optimizer.iterations.numpy()),
            )

    def _find(self) -> NoReturn:
        """Runs the steps again until one fails, and raises `NonFiniteError`."""
        model, loss, state = self._model, self._loss, self._state
        self._assign(state)
        for run, batch in self._steps:
            state = self._copied()
            logs = run(batch())
            if not (_is_finite(logs["loss"]) and bool(self._all_finite())):
                loss = logs["loss"]
                break
        else:
            self._stop(state, f"the loss is {_number(loss)}, but not when the steps run again")
        self._assign(state)
        data = batch()
        found = diagnose(model, lambda: self._loss_of(data), data)
        if found is None:
            reason = "a weight is not finite after the update, although all gradients are"
            self._stop(state, reason, "weight")
        self._stop(state, *found)

    def _stop(self, state: list[tf.Tensor], *finding: Any) -> NoReturn:
        """Restores the state and raises `NonFiniteError`."""
        self._assign(state)
        self._forget()
        names = ("what", "layer", "flow_step", "parameter", "magnitude")
        raise NonFiniteError(
            finding[0],
            epoch=self.epoch + 1,
            step=int(self._model.optimizer.iterations.numpy()) + 1,
            **dict(zip(names, finding[1:], strict=False)),
        )

    def _forget(self) -> None:
        self._steps, self._state = [], []

    def _variables(self) -> list[keras.Variable]:
        """All variables that a step may change, and others."""
        model = self._model
        return [*model.variables, *model.optimizer.variables, *model.metrics_variables]

    def _assign(self, state: list[tf.Tensor]) -> None:
        for variable, value in zip(self._variables(), state, strict=True):
            variable.assign(value)

    def _weights_are_finite(self) -> tf.Tensor:
        weights = _values(self._model.trainable_weights)
        return tf.reduce_all([tf.reduce_all(tf.math.is_finite(weight)) for weight in weights])


def _values(variables: Sequence[keras.Variable]) -> list[tf.Tensor]:
    return [tf.convert_to_tensor(variable.value) for variable in variables]


def _number(loss: Any) -> float:
    """The loss as a number; over the workers of a cluster it has shape `[1]`."""
    return float(np.squeeze(loss))


def _is_finite(loss: Any) -> bool:
    return math.isfinite(_number(loss))
