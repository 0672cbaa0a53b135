"""The state of training, from which an interrupted run continues bit for bit.

The state holds every variable of the model (with its seed generators) and of the optimizer (with
its averages of the weights, if any), the history, the state of early stopping and, within an epoch,
the metrics so far. The order of the images and their binarization are functions of (seed, epoch,
step), so the state holds only the numbers of the epoch and the step.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tfp_flowvae.errors import UserError
from tfp_flowvae.runs.history import EpochHistory
from tfp_flowvae.runs.store import Checkpoint, CheckpointStore
from tfp_flowvae.training import replicas
from tfp_flowvae.training.callbacks import GradientNorm

# Keras numbers unnamed layers over the whole process: dense_12.
_NUMBERING = re.compile(r"_\d+(?=[/_]|$)")
_EARLY = ("wait", "best", "best_epoch", "stopped_epoch")


class Interrupted(Exception):  # noqa: N818
    """Training was asked to stop, and its state is saved."""


@dataclasses.dataclass(frozen=True)
class Saving:
    """How a run saves its state.

    Attributes:
      store: Where to save.
      start: The checkpoint to resume from, or None for a new run.
      every: N, for a checkpoint at each multiple of N steps within an epoch; 0 for none.
      facts: A function that returns further items for the state; called for each checkpoint.
      stop: A function that returns whether training must stop; called after each execution, of one
        or more steps.
    """

    store: CheckpointStore
    start: Checkpoint | None = None
    every: int = 0
    facts: Callable[[], Mapping[str, Any]] = dict
    stop: Callable[[], bool] = lambda: False


class Checkpoints(keras.callbacks.Callback):
    """Saves the state of training at the end of each epoch and, if `saving` says so, within epochs.

    It must be the last callback, so that it saves what the others have done in an epoch. It saves
    only finite weights.

    Args:
      saving: Where and how often to save, and what to resume from.
      history: The callback whose rows are saved.
      steps_per_epoch: The number of steps in a whole epoch.
      early_stopping: The callback whose state is saved, or None.
      gradient_norm: The callback whose means are saved within an epoch, or None.

    Raises:
      Interrupted: From `fit`, when `saving.stop` returned true and the state is saved.
      NonFiniteError: From `fit`, in place of a state that is not finite.
      UserError: From `fit`, if a state cannot be written, or the checkpoint to resume from is of
        another model.
    """

    def __init__(
        self,
        saving: Saving,
        history: EpochHistory,
        steps_per_epoch: int,
        early_stopping: keras.callbacks.EarlyStopping | None = None,
        gradient_norm: GradientNorm | None = None,
    ) -> None:
        super().__init__()
        self._saving, self._history, self._steps = saving, history, steps_per_epoch
        self._gradient_norm, self._early = gradient_norm, early_stopping
        self._epoch = self._offset = self._saved = 0
        # The checkpoint to resume from; None once its epoch has begun.
        self._resumed = saving.start

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Restores everything except the metrics, which Keras resets later."""
        start, optimizer = self._resumed, self.model.optimizer
        if start is None:
            return
        if not optimizer.built:
            optimizer.build(self.model.trainable_variables)
        rate = optimizer.get_config()["learning_rate"]
        restore(start, "model", self.model.variables)
        restore(start, "optimizer", optimizer.variables)
        if isinstance(rate, float):  # A constant rate is a variable, and --resume may change it.
            optimizer.learning_rate = rate
        self._history.rows[:] = start.state["rows"]
        early = start.state.get("early_stopping")
        if self._early is not None and early is not None:
            for name in _EARLY:
                setattr(self._early, name, early[name])
            if any(name.startswith("best/") for name in start.arrays):
                self._early.best_weights = _matched(start, "best", self.model.weights)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Restores the metrics of an interrupted epoch."""
        self._epoch, self._offset, self._saved = epoch, 0, 0
        start, self._resumed = self._resumed, None
        if start is not None and start.state["step"]:
            self._offset = self._saved = start.state["step"]
            variables = self._metrics_variables
            parts = _matched(start, "metrics", variables, on_replicas=True)
            replicas.assign_on_replicas(self.model.distribute_strategy, variables, parts)
            self._history.carry_over(start.state.get("epoch_seconds", 0.0))

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Saves the state if a checkpoint is due or training must stop."""
        step = self._offset + batch + 1
        # If one step is left, the state is saved at the end of the epoch. A resumed `fit` must not
        # begin with the last batch, which may be smaller: `fit` takes its sizes from the first.
        if step >= self._steps - 1:
            return
        stop = self._saving.stop()
        every = self._saving.every
        if stop or (every and step // every > self._saved // every):
            self._save(self._epoch, step)
            self._saved = step
        if stop:
            raise Interrupted

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Saves the state."""
        self._save(epoch + 1, 0)
        if self._saving.stop():
            raise Interrupted

    @property
    def _metrics_variables(self) -> list[keras.Variable]:
        more = [] if self._gradient_norm is None else self._gradient_norm.variables
        return [*self.model.metrics_variables, *more]

    def _save(self, epoch: int, step: int) -> None:
        model = self.model
        model.check_finite()
        groups = {"model": model.variables, "optimizer": model.optimizer.variables}
        state = {
            **self._saving.facts(),
            "epoch": epoch,
            "step": step,
            "rows": self._history.rows,
        }
        arrays = {
            name: keras.ops.convert_to_numpy(variable)
            for group, variables in groups.items()
            for name, variable in zip(_names(group, variables), variables, strict=True)
        }
        if step:
            state["epoch_seconds"] = self._history.elapsed
            variables = self._metrics_variables
            parts = replicas.values_on_replicas(model.distribute_strategy, variables)
            arrays |= zip(_names("metrics", variables), parts, strict=True)
        if self._early is not None:
            state["early_stopping"] = {k: _plain(getattr(self._early, k)) for k in _EARLY}
            best = self._early.best_weights
            if best is not None:
                arrays |= zip(_names("best", model.weights), best, strict=True)
        self._saving.store.save(epoch * self._steps + step, state, arrays)


def restore(checkpoint: Checkpoint, group: str, variables: Sequence[keras.Variable]) -> None:
    """Assigns the arrays of a group to the variables that they were saved from.

    Args:
      checkpoint: The checkpoint.
      group: "model" or "optimizer".
      variables: All variables of the group, in the model's order.

    Raises:
      UserError: If these are not the variables that were saved.
    """
    arrays = _matched(checkpoint, group, variables)
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)


def _names(group: str, variables: Sequence[keras.Variable]) -> list[str]:
    """Names that are the same in every process: the position in the model, and the path."""
    return [f"{group}/{i:04d}/{_NUMBERING.sub('', v.path)}" for i, v in enumerate(variables)]


def _matched(
    checkpoint: Checkpoint,
    group: str,
    variables: Sequence[keras.Variable],
    on_replicas: bool = False,
) -> list[np.ndarray]:
    """The arrays of a group; with a first axis for the replicas if `on_replicas`."""
    names = _names(group, variables)
    stored = [name for name in checkpoint.arrays if name.startswith(f"{group}/")]
    strange = sorted(set(names) ^ set(stored)) or [
        f"{name} of shape {checkpoint.arrays[name].shape} for {tuple(variable.shape)}"
        for name, variable in zip(names, variables, strict=True)
        if checkpoint.arrays[name].shape[int(on_replicas) :] != tuple(variable.shape)
    ]
    if strange:
        raise UserError(
            f"The checkpoint {str(checkpoint.path)!r} is not one of this model: resume it with the "
            "version of tfp_flowvae that wrote it, or start a new run. "
            f"Received: {strange[0]}."
        )
    return [checkpoint.arrays[name] for name in names]


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, int) else float(value)
