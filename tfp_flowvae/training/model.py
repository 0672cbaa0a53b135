"""The base class of the models here: Keras's `fit`, fast and on any number of devices."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfp_flowvae import _compat, _endpoints
from tfp_flowvae._endpoints import Endpoint
from tfp_flowvae.training import replicas
from tfp_flowvae.training.steps import PlainSteps, StackedSteps
from tfp_flowvae.training.xla import xla_suits

# The largest stack of batches in bytes, and in steps: beyond, launches no longer count.
_STACK_BYTES = 2**24
_MOST_STEPS = 50
_DEFAULT_BATCH = 32  # Keras's, for arrays

KERAS_FILE = "model.keras"

GradientObserver = Callable[[Sequence[tf.Tensor]], None]


class FastModel(_compat.BuiltAlready, keras.Model):
    """A Keras model whose `fit` runs S steps in one program, and the same step on R replicas.

    Keras runs the steps, one in each program, under a `tf.distribute` strategy (a loop of steps
    cannot run there), with `run_eagerly`, with batches that are not made of tensors alone, with
    `steps_per_execution=1`, and by default for models with convolutions on a processor (see
    `xla_suits`).

    A subclass defines `call` and `compute_loss`, which returns `mean_loss` of a loss for each
    example, and creates all its variables in its constructor.

    Attributes:
      start_step: The step, from 0, at which the first epoch of the next `fit` starts, to go on
        where a run was cut; `fit` sets it back to 0.
      pause_steps: N, for callbacks that act every N steps: with "auto", executions end at each
        multiple of N. S is then the largest of N's divisors that fits; 0 for no such steps.
      gradient_observers: Functions that every step calls with the gradients of the global batch,
        before the optimizer clips them.
    """

    start_step = 0
    pause_steps = 0
    gradient_observers: tuple[GradientObserver, ...] = ()
    steps_per_execution: int
    train_function: Any
    test_function: Any
    predict_function: Any
    _auto_steps = True

    def compile(
        self,
        *args: Any,
        steps_per_execution: int | str = "auto",
        jit_compile: bool | str = "auto",
        **kwargs: Any,
    ) -> None:
        """Compiles the model as `keras.Model.compile` does, with many steps to an execution.

        Args:
          *args: See `keras.Model.compile`.
          steps_per_execution: S, how many steps run between two calls of the callbacks, or "auto":
            up to 50, as many as 16 MiB of batches.
          jit_compile: Whether XLA compiles the steps, or "auto": where it suits the model, on
            machines without an accelerator too, and not under a strategy.
          **kwargs: See `keras.Model.compile`.
        """
        self._auto_steps = steps_per_execution == "auto"
        steps = 1 if self._auto_steps else steps_per_execution
        if jit_compile == "auto":
            plain = bool(kwargs.get("run_eagerly")) or self._distributed
            jit_compile = not plain and xla_suits(self)
        super().compile(*args, steps_per_execution=steps, jit_compile=jit_compile, **kwargs)

    def get_compile_config(self) -> dict[str, Any]:
        """The arguments of `compile`, as they were given."""
        config = super().get_compile_config()
        return {**config, "steps_per_execution": "auto"} if config and self._auto_steps else config

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles the model as a file says."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built:
            self.optimizer.build(self.trainable_variables)

    def fit(self, *args: Any, **kwargs: Any) -> keras.callbacks.History:
        """Trains the model as `keras.Model.fit` does."""
        given = inspect.signature(super().fit).bind(*args, **kwargs).arguments
        self.check_inputs(given.get("x"))
        if self._auto_steps:
            one_by_one = self._plain or not xla_suits(self)
            steps = 1 if one_by_one else _steps_in_stack(given, self.pause_steps)
            self._set_steps_per_execution(steps)
        callbacks = given.get("callbacks") or []
        if isinstance(callbacks, keras.callbacks.CallbackList):
            callbacks.append(_EpochStart())
        else:
            given["callbacks"] = [*tf.nest.flatten(callbacks), _EpochStart()]
        try:
            return super().fit(**given)
        finally:
            self.start_step = 0

    def check_inputs(self, x: Any) -> None:
        """Refuses an `x` of `fit` that does not suit the model; a subclass may define it."""

    def make_train_function(self, force: bool = False) -> Any:
        """Makes the function that `fit` calls with an iterator, once or anew with `force`."""
        if self.train_function is not None and not force:
            return self.train_function
        size, result = self.steps_per_execution, self.get_metrics_result
        if self._plain or size == 1:
            super().make_train_function(force=True)
            self.train_function = PlainSteps(self.train_function, result, size)
        else:
            self.train_function = StackedSteps(self.train_step, result, size, self.jit_compile)
        return self.train_function

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        """One step of the optimizer on a batch, or on this replica's share of it."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        size = tf.shape(tf.nest.flatten(x)[0])[0]
        with tf.GradientTape() as tape:
            y_pred = self(x, training=True)
            loss = self.compute_loss(x, y, y_pred, sample_weight, training=True)
            scaled = self.optimizer.scale_loss(replicas.weighted(loss, size))
        _compat.track_loss(self, replicas.unscaled(loss), size)
        weights = self.trainable_weights
        gradients = replicas.summed(tape.gradient(scaled, weights))
        for observe in self.gradient_observers:
            observe(gradients)
        gradients = replicas.shared_out(gradients, self.optimizer)
        self.optimizer.apply_gradients(zip(gradients, weights, strict=True))
        return self.compute_metrics(x, y, y_pred, sample_weight)

    def mean_loss(self, loss: tf.Tensor, sample_weight: Any = None) -> tf.Tensor:
        """The loss of a batch, as `compute_loss` returns it.

        Args:
          loss: Of each example, `[B]`.
          sample_weight: `[B]`, or None.
        """
        if sample_weight is not None:
            loss = loss * tf.cast(sample_weight, loss.dtype)
        return replicas.scaled(tf.add_n([replicas.mean(loss), *self.losses]))

    def compute_metrics(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None
    ) -> dict[str, tf.Tensor]:
        """Keras's own, in the shape that Keras can reduce over the workers of a cluster."""
        return _compat.as_logs(super().compute_metrics(x, y, y_pred, sample_weight))

    def endpoints(self) -> dict[str, Endpoint]:
        """The functions of the exported SavedModel and their signatures: a subclass's to define."""
        raise NotImplementedError

    def export(self, filepath: str | Path, **kwargs: Any) -> None:
        """Writes a folder: a SavedModel of `endpoints`, and beside it the `.keras` file.

        Args:
          filepath: The folder; it is made if need be.
          **kwargs: See `keras.Model.export`. If any are given, Keras exports the model its way.
        """
        if kwargs:
            super().export(filepath, **kwargs)
            return
        functions = {name: _endpoints.trace(each) for name, each in self.endpoints().items()}
        kinds = ("variables", "trainable_variables", "non_trainable_variables")
        variables = {kind: [v.value for v in getattr(self, kind)] for kind in kinds}
        _endpoints.save(filepath, functions, variables)
        self.save(Path(filepath) / KERAS_FILE)

    @property
    def step(self) -> tf.Tensor | None:
        """How many steps the optimizer has taken; None without an optimizer."""
        optimizer = getattr(self, "optimizer", None)
        return None if optimizer is None else _compat.live(optimizer.iterations)

    @property
    def _plain(self) -> bool:
        """Whether Keras runs the steps."""
        return self.run_eagerly or self._distributed

    @property
    def _distributed(self) -> bool:
        with self.distribute_strategy.scope():
            return tf.distribute.has_strategy()

    def _set_steps_per_execution(self, steps: int) -> None:
        """Sets S, which Keras builds into the functions that it keeps."""
        if steps != self.steps_per_execution:
            self.steps_per_execution = steps
            self.train_function = self.test_function = self.predict_function = None


class _EpochStart(keras.callbacks.Callback):
    """Tells the training function how many steps the epoch has."""

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Takes them from what `fit` told its callbacks."""
        steps = (self.params or {}).get("steps")
        first, self.model.start_step = self.model.start_step, 0
        self.model.train_function.begin_epoch(None if steps is None else steps - first)


def _steps_in_stack(given: dict[str, Any], pause_steps: int) -> int:
    """S for the arguments of a `fit`: what fits, evened out over the executions of an epoch.

    A divisor of `pause_steps` if they are not 0.
    """
    x, steps = given.get("x"), given.get("steps_per_epoch")
    if isinstance(x, tf.data.Dataset):
        size = _bytes_in_batch(x)
        cardinality = int(x.cardinality())
        steps = steps or (cardinality if cardinality > 0 else None)
    elif isinstance(x, (np.ndarray, tf.Tensor)):
        batch_size = given.get("batch_size") or _DEFAULT_BATCH
        size = batch_size * int(np.prod(x.shape[1:])) * 4  # Keras makes float32 of all floats
        steps = steps or -(-len(x) // batch_size)
    else:
        return 1
    most = max(1, min(_MOST_STEPS, _STACK_BYTES // max(1, size)))
    if pause_steps:
        return next(steps for steps in range(most, 0, -1) if pause_steps % steps == 0)
    return -(-steps // -(-steps // most)) if steps else most


def _bytes_in_batch(batches: tf.data.Dataset) -> int:
    """The size of a batch; where the sizes are not declared, that of the first one.

    That of a whole stack if a part of it is no tensor with a first dimension.
    """
    spec = tf.nest.flatten(batches.element_spec)
    if not all(isinstance(s, tf.TensorSpec) and s.shape.rank for s in spec):
        return _STACK_BYTES
    if not all(s.shape.is_fully_defined() for s in spec):
        spec = tf.nest.flatten(next(iter(batches)))
    return sum(s.dtype.size * int(np.prod(s.shape)) for s in spec)
