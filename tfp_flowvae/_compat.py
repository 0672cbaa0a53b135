"""Every private name of TensorFlow Probability and Keras that the package uses.

TFP 0.25 (November 2024) is older than TensorFlow 2.21 and Keras 3.15, and some of what a flow needs
has no public name. `tests/test_compat.py` fails when any of these names changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import tensorflow as tf
from tensorflow_probability import bijectors as tfb
from tensorflow_probability.python.bijectors import chain as _chain
from tensorflow_probability.python.bijectors import invert as _invert
from tensorflow_probability.python.internal import tensor_util as _tensor_util

from tfp_flowvae._typing import TensorLike

if TYPE_CHECKING:
    import keras


# TFP 0.25: if a part is not a CompositeTensor, `tfb.Chain(...)` and `tfb.Invert(...)` return
# instances of these private bases, which are not instances of the public classes.
CHAIN_TYPES: tuple[Any, ...] = (_chain._Chain,)
INVERT_TYPES: tuple[Any, ...] = (_invert._Invert,)


def coupling_parts(
    bijector: tfb.RealNVP, x: tf.Tensor
) -> tuple[tf.Tensor, tfb.Bijector, Callable[[tf.Tensor], tf.Tensor]]:
    """Returns the parts of a `tfb.RealNVP` at `x`, with one call of its conditioner.

    TFP 0.25 calls the conditioner in `forward` and again in `forward_log_det_jacobian`, and has no
    method that returns both.

    Args:
      bijector: The coupling bijector.
      x: `[..., D]`, in the domain or the codomain; the conditioning half is the same in both.

    Returns:
      The half of `x` that is transformed, `[..., D - d]`; the bijector that transforms it; and a
      function that joins the transformed half and the other one into `[..., D]`.
    """
    bijector._cache_input_depth(x)
    first, second = x[..., : bijector._masked_size], x[..., bijector._masked_size :]
    reverse = bijector._reverse_mask
    conditioning, moving = (second, first) if reverse else (first, second)
    inner = bijector._bijector_fn(conditioning, bijector._bijector_input_units())

    def merge(moved: tf.Tensor) -> tf.Tensor:
        return tf.concat([moved, conditioning] if reverse else [conditioning, moved], axis=-1)

    return moving, inner, merge


def autoregressive_inner(
    bijector: tfb.MaskedAutoregressiveFlow, y: tf.Tensor, **kwargs: Any
) -> tfb.Bijector:
    """Returns the elementwise bijector of a `tfb.MaskedAutoregressiveFlow` at y `[..., D]`.

    It calls the conditioner once, with `kwargs`.
    """
    return bijector._bijector_fn(y, **kwargs)


def live(variable: keras.Variable) -> tf.Variable:
    """Returns the `tf.Variable` of a Keras variable under any precision policy.

    Keras 3.15: in a layer's `call` under mixed precision, `variable.value` is a cast copy, which
    TFP cannot track. `AutocastScope` is not public.
    """
    # Imported here: the bijectors use this module and do without Keras.
    from keras.src.backend.common.variables import AutocastScope

    with AutocastScope(None):
        return variable.value


class LiveVariables(Sequence, tf.__internal__.tracking.Trackable):
    """The `tf.Variable`s under a Keras layer's variables, for a `tf.Module` to hold and to find.

    They are looked up anew each time, since Keras 3.15 makes them late for a layer that is built
    while it traces symbolically. Each gets the constraint of its Keras variable: an optimizer
    applies those of the variables that it is given, and TensorFlow 2.21 takes a constraint in the
    constructor only. `tf.train.Checkpoint` finds no variable of a Keras 3 layer but through this.
    """

    def __init__(self, layer: keras.Layer) -> None:
        self._layer = layer

    def __len__(self) -> int:
        return len(self._layer.weights)

    def __getitem__(self, index: Any) -> Any:
        weight = self._layer.weights[index]
        variable = live(weight)
        variable._constraint = weight.constraint
        return variable

    def _trackable_children(self, save_type: str = "checkpoint", **kwargs: Any) -> dict[str, Any]:
        children = super()._trackable_children(save_type, **kwargs)
        return {**children, **{str(index): variable for index, variable in enumerate(self)}}


def as_parameter(value: TensorLike, dtype: tf.DType, name: str) -> tf.Tensor | tf.Variable:
    """Converts `value` to a tensor of `dtype`, unless it is a variable or a deferred tensor.

    A bijector that holds a variable or a deferred tensor follows its changes.
    """
    return _tensor_util.convert_nonref_to_tensor(value, dtype=dtype, name=name)


def is_ref(value: TensorLike) -> bool:
    """Returns whether `value` is a `tf.Variable` or a deferred tensor, whose value may change."""
    return _tensor_util.is_ref(value)


def track_loss(model: keras.Model, loss: tf.Tensor, batch_size: tf.Tensor) -> None:
    """Adds a step's loss to the mean that Keras logs as `loss`.

    Keras 3.15: a custom `train_step` must update the tracker, or Keras logs 0.0. The tracker has no
    public name.
    """
    model._loss_tracker.update_state(loss, sample_weight=batch_size)


def layers_within(model: keras.Model) -> list[keras.Layer]:
    """Returns a model's layers and the layers inside them.

    Keras 3.15: `model.layers` holds the outermost layers only, and the layers inside a layer have
    no public name.
    """
    return list(model._flatten_layers())


@contextmanager
def inference() -> Iterator[None]:
    """A context in which layers run in inference mode, even inside a call in training mode.

    Keras 3.15: if a layer calls another one with `training=False`, the layers that it calls
    afterwards run in inference mode too. The context of the call has no public name.
    """
    context = _call_context()
    if context is None:  # outside of a call, inference is the default
        yield
        return
    training, context.training = context.training, False
    try:
        yield
    finally:
        context.training = training


class RemembersMoments:
    """Mixin for a Keras batch norm that keeps the batch's moments until the outermost call ends.

    Keras 3.15: batch norm computes the moments in a private method and keeps only their moving
    averages. Here the context of the call holds them, because they are tensors of the call's graph.
    """

    def _moments(self, inputs: tf.Tensor, mask: tf.Tensor | None) -> tuple[tf.Tensor, tf.Tensor]:
        moments = super()._moments(inputs, mask)  # type: ignore[misc]
        vars(_call_context()).setdefault("_batch_moments", {})[id(self)] = moments
        return moments

    def moments_in_this_call(self) -> tuple[tf.Tensor, tf.Tensor] | None:
        """Returns the last mean and variance of the outermost call, or None."""
        return getattr(_call_context(), "_batch_moments", {}).get(id(self))


def _call_context() -> Any:
    """Returns Keras's context of the outermost layer call, or None outside of a call."""
    from keras.src.backend.common.global_state import get_global_attribute

    return get_global_attribute("current_call_ctx")


class BuiltAlready:
    """Mixin for a Keras model that its constructor builds, so that `fit` need not build it.

    Keras 3.15 builds a model from a batch. Under a strategy it averages the batch over replicas and
    workers, which fails if they have unequal shares or are on several machines. Only the optimizer
    is left to build, because its variables cannot be created inside a step.
    """

    distribute_strategy: tf.distribute.Strategy
    optimizer: Any
    trainable_variables: list[Any]

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        if self.optimizer is not None and not self.optimizer.built:
            with self.distribute_strategy.scope():
                self.optimizer.build(self.trainable_variables)


def as_logs(values: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Returns the scalar logs of a step in the shape that Keras can average over workers.

    Keras 3.15 averages logs over the workers of a cluster along axis 0, so there they have shape
    `[1]`.
    """
    from keras.src.backend.tensorflow.trainer import _collective_all_reduce_multi_worker

    if not _collective_all_reduce_multi_worker(tf.distribute.get_strategy()):
        return values
    return {name: tf.reshape(value, [1]) for name, value in values.items()}
