"""Many steps in one compiled program: the training function of `FastModel`.

Keras launches a program for each step. Each launch of an XLA program hands every weight and every
state of the optimizer in and gets new ones back, which for a small model takes as long as the
arithmetic. Here a program takes a stack of S batches `[S, B, ...]` and loops over them: weights
stay in place, and Python runs once every S steps. For callbacks it is Keras's
`steps_per_execution`: they are called after each execution, with its last step's index.

Unlike Keras's, an execution does not run past the end of an epoch of an endless data set. A batch
of another size, such as an epoch's odd last one, runs as a plain graph, without a second
compilation.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

from tfp_flowvae._typing import TensorLike
from tfp_flowvae.training.watch import StepWatch

# The largest stack of batches, in bytes and in steps: beyond them launches cost nothing that
# counts.
_STACK_BYTES = 2**24
_MOST_STEPS = 50

DEFAULT_BATCH = 32  # Keras's, for arrays


def steps_in_stack(arguments: Mapping[str, Any], pause_steps: int) -> int:
    """S for the arguments of a `fit`: what fits, evened out over the executions of an epoch.

    Args:
      arguments: Of `fit`, by name.
      pause_steps: What S has to divide; 0 for nothing.
    """
    data, steps = arguments.get("x"), arguments.get("steps_per_epoch")
    if isinstance(data, tf.data.Dataset):
        size = _bytes_in_batch(data)
        cardinality = int(data.cardinality())
        steps = steps or (cardinality if cardinality > 0 else None)
    elif isinstance(data, (np.ndarray, tf.Tensor)):
        batch_size = arguments.get("batch_size") or DEFAULT_BATCH
        arrays = [part for part in (data, arguments.get("y")) if part is not None]
        # Keras makes float32 of all floats.
        size = sum(batch_size * int(np.prod(part.shape[1:])) * 4 for part in arrays)
        steps = steps or -(-len(data) // batch_size)
    else:
        return 1
    most = _most_of(size)
    if pause_steps:
        return next(steps for steps in range(most, 0, -1) if pause_steps % steps == 0)
    return -(-steps // -(-steps // most)) if steps else most


def _most_of(size: int) -> int:
    """The most batches of so many bytes that are held at once."""
    return max(1, min(_MOST_STEPS, _STACK_BYTES // max(1, size)))


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


class TrainFunction:
    """A Keras `train_function` that knows how many steps the epoch has: the base of the others.

    Args:
      step: From a batch to logs: the model's `train_step`, or a program of it.
      result: The metrics' values so far: the model's `get_metrics_result`.
      size: S, the most steps of an execution.
      watch: Finds the step that fails.
    """

    def __init__(
        self,
        step: Callable[[Any], Any],
        result: Callable[[], dict[str, Any]],
        size: int,
        watch: StepWatch,
    ) -> None:
        self._step, self._result, self._size, self.watch = step, result, size, watch
        self._left: int | None = None

    def begin_epoch(self, steps: int | None) -> None:
        """Sets how many steps the epoch has; None: as many as there is data for."""
        self._left = steps


class StackedSteps(TrainFunction):
    """Takes up to S batches from an iterator and runs a step on each, in one program.

    Args:
      *args: See `TrainFunction`.
      jit_compile: Whether XLA compiles the loop.
    """

    def __init__(self, *args: Any, jit_compile: bool) -> None:
        super().__init__(*args)
        self._loop = tf.function(self._run, autograph=False, jit_compile=jit_compile)
        self._single = tf.function(self._step, autograph=False, reduce_retracing=True)
        self._collect = tf.function(self._take, autograph=False)
        self._batch_size = tf.constant(0)

    def __call__(self, iterator: tf.data.Iterator) -> dict[str, Any]:
        """Runs up to S steps, fewer at the end of the epoch or of the data.

        Args:
          iterator: Of batches, each a structure of tensors `[B, ...]`.

        Returns:
          The metrics.

        Raises:
          StopIteration: If the data has ended.
          ValueError: If a batch is not made of tensors with a first dimension.
          NonFiniteError: If the loss or a weight is not finite, before the next steps run or at the
            end of the epoch.
        """
        if self._left == 0:
            return self._result()
        limit = self._size if self._left is None else min(self._size, self._left)
        count, stack, odd, self._batch_size = self._collect(
            iterator, tf.constant(limit), self._batch_size
        )
        steps, has_odd = int(count), bool(odd.has_value())
        self.watch.begin()
        if not steps and not has_odd:
            raise StopIteration
        if self._left is not None:
            self._left -= steps + has_odd
        if steps:
            logs = self._loop(stack, count)
            self.watch.ran(self._alone, [partial(_row, stack, i) for i in range(steps)], logs)
        if has_odd:
            logs = self._single(odd.get_value())
            self.watch.ran(self._single, [odd.get_value], logs)
        if self._left == 0:
            self.watch.check()
        return logs

    def _alone(self, batch: Any) -> dict[str, Any]:
        """One step by the program of the loop, which rounds as it does in a stack."""

        def stacked(part: tf.Tensor) -> tf.Tensor:
            return tf.repeat(part[tf.newaxis], self._size, axis=0)

        return self._loop(tf.nest.map_structure(stacked, batch), tf.constant(1))

    def _run(self, stack: Any, count: tf.Tensor) -> dict[str, Any]:
        """The first `count` steps over a stack `[S, B, ...]`."""

        def body(index: tf.Tensor) -> tf.Tensor:
            self._step(_row(stack, index))
            return index + 1

        tf.while_loop(lambda index: index < count, body, [tf.constant(0)], parallel_iterations=1)
        return self._result()

    def _take(
        self, iterator: tf.data.Iterator, limit: tf.Tensor, batch_size: tf.Tensor
    ) -> tuple[tf.Tensor, Any, tf.experimental.Optional, tf.Tensor]:
        """Batches of one size, stacked, up to `limit` or to one of another size.

        Args:
          iterator: Of batches.
          limit: The most to take, all in all.
          batch_size: B, or 0 to take the first batch's.

        Returns:
          How many there are, the stack `[S, B, ...]`, padded, the batch of another size if there
          was one, and B.
        """
        spec = iterator.element_spec
        flat = tf.nest.flatten(spec)
        if not all(isinstance(s, tf.TensorSpec) and s.shape.rank for s in flat):
            raise ValueError(
                "Batches run in stacks are tensors with a first dimension; compile with "
                f"steps_per_execution=1 for others. Received: batches of {spec}."
            )
        batch = iterator.get_next_as_optional()
        batch_size = tf.where(batch_size == 0, _examples_in(batch), batch_size)
        none = tf.experimental.Optional.empty(spec)

        def goes_on(count: tf.Tensor, batch: Any, *_: Any) -> tf.Tensor:
            return (count < limit) & (_examples_in(batch) == batch_size)

        def body(count: tf.Tensor, batch: Any, *arrays: tf.TensorArray) -> Any:
            parts = tf.nest.flatten(batch.get_value())
            arrays = tuple(a.write(count, p) for a, p in zip(arrays, parts, strict=True))
            more = tf.cond(count + 1 < limit, iterator.get_next_as_optional, lambda: none)
            return (count + 1, more, *arrays)

        arrays = [
            tf.TensorArray(s.dtype, 0, dynamic_size=True, element_shape=s.shape, infer_shape=False)
            for s in flat
        ]
        count, odd, *arrays = tf.while_loop(goes_on, body, [tf.constant(0), batch, *arrays])
        stacks = [self._stacked(a, s, count) for a, s in zip(arrays, flat, strict=True)]
        return count, tf.nest.pack_sequence_as(spec, stacks), odd, batch_size

    def _stacked(self, array: tf.TensorArray, spec: tf.TensorSpec, count: tf.Tensor) -> tf.Tensor:
        """The array as `[S, B, ...]`: always S, for which the loop is compiled."""

        def padded() -> tf.Tensor:
            stack = array.stack()
            shape = tf.concat([[self._size - count], tf.shape(stack)[1:]], axis=0)
            return tf.concat([stack, tf.zeros(shape, spec.dtype)], axis=0)

        def empty() -> tf.Tensor:
            return tf.zeros([0] * (1 + spec.shape.rank), spec.dtype)

        return tf.case([(count == self._size, array.stack), (count > 0, padded)], default=empty)


class SingleSteps(TrainFunction):
    """Runs one step at a time, in a program or eagerly. The arguments are `TrainFunction`'s."""

    def __call__(self, iterator: tf.data.Iterator) -> dict[str, Any]:
        """Runs the steps; the arguments and exceptions are those of `StackedSteps`."""
        if self._left == 0:
            return self._result()
        logs = None
        for batch in itertools.islice(iterator, min(self._size, self._left or self._size)):
            batch = tf.nest.map_structure(_or_none, batch)
            size = sum(part.dtype.size * math.prod(part.shape) for part in _tensors(batch))
            if not 0 < self.watch.noted < _most_of(size):
                self.watch.begin()
            logs = self._step(batch)
            self.watch.ran(self._step, [partial(_same, batch)], logs)
            if self._left is not None:
                self._left -= 1
        if logs is None or self._left == 0:
            self.watch.check()
        if logs is None:
            raise StopIteration
        return logs


class PlainSteps(TrainFunction):
    """Keras's own `train_function`, stopped at the end of the epoch.

    The arguments are `TrainFunction`'s, but `step` is Keras's function of an iterator.
    """

    def __call__(self, iterator: Any) -> Any:
        """Runs the steps; does nothing once the epoch has had all of its steps."""
        if self._left is not None:
            if self._left <= 0:
                return self._result()
            self._left -= self._size
        logs = self._step(iterator)
        self.watch.check_loss(logs["loss"])
        return logs


def _examples_in(batch: tf.experimental.Optional) -> tf.Tensor:
    """The size of a batch, 0 if there is none."""
    return tf.cond(
        batch.has_value(),
        lambda: tf.shape(tf.nest.flatten(batch.get_value())[0])[0],
        lambda: tf.constant(0),
    )


def _row(stack: Any, index: TensorLike) -> Any:
    """A batch of a stack."""
    return tf.nest.map_structure(lambda batches: batches[index], stack)


def _tensors(batch: Any) -> list[tf.Tensor]:
    return [part for part in tf.nest.flatten(batch) if part is not None]


def _same(batch: Any) -> Any:
    return batch


def _or_none(part: Any) -> Any:
    """Keras's data adapters give an `Optional` for a part that is None."""
    return None if isinstance(part, tf.experimental.Optional) else part
