"""The base class of the models here: Keras's `fit`, fast and on any number of devices."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import keras
import numpy as np
import tensorflow as tf

from tfp_flowvae import _compat, _endpoints
from tfp_flowvae._endpoints import Endpoint
from tfp_flowvae._files import KERAS_FILE
from tfp_flowvae._typing import TensorLike
from tfp_flowvae.training import replicas
from tfp_flowvae.training.noise import as_seed
from tfp_flowvae.training.steps import PlainSteps, SingleSteps, StackedSteps, steps_in_stack
from tfp_flowvae.training.watch import StepWatch
from tfp_flowvae.training.xla import xla_suits

GradientObserver = Callable[[Sequence[tf.Tensor]], None]


class FastModel(_compat.BuiltAlready, keras.Model):
    """A Keras model whose `fit` runs many steps in one program, on one device or on many.

    The steps run one to a program under a `tf.distribute` strategy (a loop of steps cannot run
    there), with `run_eagerly`, with `steps_per_execution=1`, and by default for models with
    convolutions on a processor (see `xla_suits`).

    A subclass creates all its variables in its constructor and then sets `built`. It defines
    `call`, `example_terms`, which gives the loss of each example, and `endpoints`.

    Args:
      seed: Of the noise that the model draws where it is given no seed.
      **kwargs: See `keras.Model`.

    Attributes:
      metric_names: The metrics that `example_terms` gives.
      start_step: The step, from 0, at which the first epoch of the next `fit` starts, to go on
        where a run was cut; `fit` sets it back to 0.
      pause_steps: N, for callbacks that act every N steps: with `steps_per_execution="auto"`,
        executions end at each multiple of N; 0 for no such steps.
      gradient_observers: Functions that every step calls with the gradients of the global batch,
        before the optimizer clips them.

    Example:
      >>> class Line(FastModel):
      ...     def __init__(self):
      ...         super().__init__()
      ...         self.slope = self.add_weight(shape=(), initializer="zeros")
      ...         self.built = True
      ...
      ...     def call(self, x):
      ...         return self.slope * x
      ...
      ...     def example_terms(self, x, y=None, training=False):
      ...         return tf.square(y - self(x)), {}
      >>> line, x = Line(), np.linspace(-1.0, 1.0, 40, dtype="float32")
      >>> line.compile(keras.optimizers.SGD(0.5))
      >>> history = line.fit(x, 2.0 * x, batch_size=20, epochs=20, verbose=0)
      >>> round(float(line.slope), 3)
      2.0
    """

    metric_names: ClassVar[tuple[str, ...]] = ()
    start_step = 0
    pause_steps = 0
    gradient_observers: tuple[GradientObserver, ...] = ()
    steps_per_execution: int
    train_function: Any
    test_function: Any
    predict_function: Any
    _auto_steps = True

    def __init__(self, *, seed: int | None = None, **kwargs: Any) -> None:
        # Under mixed precision Keras would round the data to 8 bits of mantissa before `call`.
        super().__init__(**{"autocast": False, **kwargs})
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self._trackers = [keras.metrics.Mean(name=name) for name in self.metric_names]

    def example_terms(
        self, x: Any, y: Any = None, training: bool = False
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """The loss of each example of a batch, `[B]`, and the metrics, `[B]` each, by name."""
        raise NotImplementedError

    def endpoints(self) -> dict[str, Endpoint]:
        """The functions of the exported SavedModel and their signatures."""
        raise NotImplementedError

    def write_card(self, folder: Path, facts: Any = None) -> None:
        """Writes the model card, README.md, into the folder of an export; here nothing.

        Args:
          folder: The folder. A README.md of another kind stays as it is.
          facts: What is known of the run, `tfp_flowvae.models.facts.Facts`, or None.
        """

    def prepare_fit(self, arguments: Mapping[str, Any]) -> None:
        """Checks the arguments of `fit`, or learns from the data in them, before the first step."""

    def stateless_seed(self, seed: TensorLike | None) -> tf.Tensor:
        """A stateless seed `[2]`; for None the next one of the model's own."""
        return as_seed(tf.cast(self.seed_generator.next(), tf.int32) if seed is None else seed)

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Self:
        """Rebuilds the model, and every part of it that is a Keras object."""
        return cls(**keras.saving.deserialize_keras_object(config, custom_objects=custom_objects))

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
          steps_per_execution: How many steps run between two calls of the callbacks, or "auto": up
            to 50, as many as 16 MiB of batches.
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
        """Trains the model as `keras.Model.fit` does.

        Raises:
          NonFiniteError: If the loss or a weight becomes NaN or infinite. The error names the
            epoch, the step, and the first layer or step of a flow whose output or log-det is not
            finite; the model then has the weights from before that step.
        """
        given = inspect.signature(super().fit).bind(*args, **kwargs).arguments
        self.prepare_fit(given)
        given["y"] = _targets(given.get("x"), given.get("y"), given.get("sample_weight"))
        validation = given.get("validation_data")
        if isinstance(validation, tuple) and len(validation) == 3:
            x, y, sample_weight = validation
            given["validation_data"] = (x, _targets(x, y, sample_weight), sample_weight)
        if self._auto_steps:
            one_by_one = self._plain or not xla_suits(self)
            steps = 1 if one_by_one else steps_in_stack(given, self.pause_steps)
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

    def evaluate(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """The loss and the metrics of data, as `keras.Model.evaluate` gives them."""
        y = _targets(x, y, kwargs.get("sample_weight"))
        return super().evaluate(x, y, *args, **kwargs)

    def make_train_function(self, force: bool = False) -> Any:
        """Makes the function that `fit` calls with an iterator, once or anew with `force`."""
        if self.train_function is not None and not force:
            return self.train_function
        size, result, step = self.steps_per_execution, self.get_metrics_result, self.train_step
        watch = StepWatch(self, lambda data: self._scored(data, training=True)[0])
        if self._distributed:
            super().make_train_function(force=True)
            self.train_function = PlainSteps(self.train_function, result, size, watch)
        elif self.run_eagerly:
            self.train_function = SingleSteps(step, result, size, watch)
        elif size == 1:
            program = tf.function(
                step, autograph=False, reduce_retracing=True, jit_compile=self.jit_compile
            )
            self.train_function = SingleSteps(program, result, size, watch)
        else:
            self.train_function = StackedSteps(
                step, result, size, watch, jit_compile=self.jit_compile
            )
        return self.train_function

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        """One step of the optimizer on a batch, or on this replica's share of it."""
        with tf.GradientTape() as tape:
            loss, metrics = self._scored(data, training=True)
            scaled = self.optimizer.scale_loss(replicas.weighted(loss, _batch_size(data)))
        weights = self.trainable_weights
        gradients = replicas.summed(tape.gradient(scaled, weights))
        for observe in self.gradient_observers:
            observe(gradients)
        gradients = replicas.shared_out(gradients, self.optimizer)
        self.optimizer.apply_gradients(zip(gradients, weights, strict=True))
        return self._logged(data, loss, metrics)

    def test_step(self, data: Any) -> dict[str, tf.Tensor]:
        """The loss and the metrics of a batch, for `evaluate` and validation."""
        return self._logged(data, *self._scored(data, training=False))

    def _scored(self, data: Any, training: bool) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """The mean loss of a batch, and the metrics of its examples."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        if y is not None and y.shape[-1] == 0:
            y = None
        losses, metrics = self.example_terms(x, y, training)
        if sample_weight is not None:
            losses = losses * tf.cast(sample_weight, losses.dtype)
        return tf.add_n([replicas.mean(losses), *self.losses]), metrics

    def _logged(
        self, data: Any, loss: tf.Tensor, metrics: dict[str, tf.Tensor]
    ) -> dict[str, tf.Tensor]:
        """The running means of the loss and the metrics, this batch included."""
        _compat.track_loss(self, loss, _batch_size(data))
        _, _, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        for tracker in self._trackers:
            tracker.update_state(metrics[tracker.name], sample_weight)
        return _compat.as_logs(self.get_metrics_result())

    def check_finite(self) -> None:
        """Checks the steps of `fit` that have run, for a callback that saves the weights.

        `fit` itself checks once in up to 50 steps, and at the end of each epoch.

        Raises:
          NonFiniteError: If the loss or a weight is not finite.
        """
        self.train_function.watch.check()

    def export(self, filepath: str | Path, **kwargs: Any) -> None:
        """Writes a folder: a SavedModel of `endpoints`, the `.keras` file and a model card.

        Args:
          filepath: The folder; it is made if need be.
          **kwargs: See `keras.Model.export`. If any are given, Keras exports the model its way.
        """
        if kwargs:
            super().export(filepath, **kwargs)
            return
        kinds = ("variables", "trainable_variables", "non_trainable_variables")
        variables = {kind: [v.value for v in getattr(self, kind)] for kind in kinds}
        endpoints = self.endpoints()
        try:
            _endpoints.save(filepath, _functions(endpoints), variables)
        except NotImplementedError:  # in a bijector or a distribution of the user's
            _endpoints.save(filepath, _functions(_possible(endpoints)), variables)
        self.save(Path(filepath) / KERAS_FILE)
        self.write_card(Path(filepath))

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
        self.model.train_function.watch.begin_epoch(epoch)
        self.model.train_function.begin_epoch(None if steps is None else steps - first)


def _functions(endpoints: Mapping[str, Endpoint]) -> dict[str, _endpoints.Function]:
    return {name: _endpoints.as_function(endpoint) for name, endpoint in endpoints.items()}


def _possible(endpoints: Mapping[str, Endpoint]) -> dict[str, Endpoint]:
    """The endpoints that can be traced; a warning names the others."""
    possible, missing = {}, {}
    for name, endpoint in endpoints.items():
        try:
            _endpoints.trace(endpoint)
            possible[name] = endpoint
        except NotImplementedError as error:
            missing[name] = str(error).rstrip(".")
    reason = next(iter(missing.values()))
    warnings.warn(f"Exported without {', '.join(missing)}: {reason}.", stacklevel=3)
    return possible


def _targets(x: Any, y: Any, sample_weight: Any) -> Any:
    """y, or `[N, 0]` where there are weights and no y: Keras drops the weights of x alone."""
    if y is None and sample_weight is not None:
        return np.zeros([len(x), 0], np.float32)
    return y


def _batch_size(data: Any) -> tf.Tensor:
    return tf.shape(tf.nest.flatten(data)[0])[0]
