"""Every private name of TensorFlow Probability and Keras that the project leans on, in one place.

TFP 0.25 (November 2024) is older than the TensorFlow 2.21 and Keras 3.15 it runs with, and some of
what a flow needs has no public name. `tests/test_compat.py` fails when any of it moves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import tensorflow as tf
from tensorflow_probability import bijectors as tfb
from tensorflow_probability.python.bijectors import chain as _chain
from tensorflow_probability.python.bijectors import invert as _invert
from tensorflow_probability.python.distributions import transformed_distribution as _transformed
from tensorflow_probability.python.internal import tensor_util as _tensor_util

from tfp_flowvae._typing import TensorLike

if TYPE_CHECKING:
    import keras


# TFP 0.25: `tfb.Chain(...)`, `tfb.Invert(...)` and `tfd.TransformedDistribution(...)` return
# instances of these private bases, which are not instances of the public classes, as soon as one
# part is not a CompositeTensor.
CHAIN_TYPES: tuple[Any, ...] = (_chain._Chain,)
INVERT_TYPES: tuple[Any, ...] = (_invert._Invert,)
TRANSFORMED_TYPES: tuple[Any, ...] = (_transformed._TransformedDistribution,)


def coupling_parts(
    bijector: tfb.RealNVP, x: tf.Tensor
) -> tuple[tf.Tensor, tfb.Bijector, Callable[[tf.Tensor], tf.Tensor]]:
    """Opens a `tfb.RealNVP` at `x`, calling its conditioner once.

    TFP 0.25 asks the conditioner anew in `forward` and in `forward_log_det_jacobian`, and offers no
    method that answers both.

    Args:
      bijector: The coupling bijector.
      x: `[..., D]`, in the domain or the codomain: the half that conditions is the same in both.

    Returns:
      The half of `x` that is transformed, `[..., D - d]`, the bijector that transforms it, and a
      function that puts the transformed half back with the other into `[..., D]`.
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
    """The elementwise bijector that a `tfb.MaskedAutoregressiveFlow` builds at y `[..., D]`.

    Calls the conditioner once, with `kwargs`.
    """
    return bijector._bijector_fn(y, **kwargs)


def live(variable: keras.Variable) -> tf.Variable:
    """The `tf.Variable` under a Keras variable, whatever precision policy is in force.

    Keras 3.15: inside any layer's `call` under mixed precision, `variable.value` is a cast copy,
    which TFP can neither track nor keep live. `AutocastScope` is not exported.
    """
    # Imported here: the bijectors use this module and do without Keras.
    from keras.src.backend.common.variables import AutocastScope

    with AutocastScope(None):
        return variable.value


def as_parameter(value: TensorLike, dtype: tf.DType, name: str) -> tf.Tensor | tf.Variable:
    """Converts `value` to a tensor of `dtype`, unless it is a variable or a deferred tensor.

    What is a reference stays that reference, so that a bijector built around it stays live.
    """
    return _tensor_util.convert_nonref_to_tensor(value, dtype=dtype, name=name)


def is_ref(value: TensorLike) -> bool:
    """Whether `value` is a `tf.Variable`, or a module that acts as a tensor and may change."""
    return _tensor_util.is_ref(value)


def track_loss(model: keras.Model, loss: tf.Tensor, batch_size: tf.Tensor) -> None:
    """Adds a step's loss to the mean that Keras logs as `loss`.

    Keras 3.15: a `train_step` of one's own that leaves the tracker alone reports 0.0, and the
    tracker has no public name.
    """
    model._loss_tracker.update_state(loss, sample_weight=batch_size)


def layers_within(model: keras.Model) -> list[keras.Layer]:
    """A model's layers, those within other layers too.

    Keras 3.15: `model.layers` are the outermost ones, and a layer's own have no public name.
    """
    return list(model._flatten_layers())


@contextmanager
def inference() -> Iterator[None]:
    """Layers called within act as in inference, whatever the call around them is for.

    Keras 3.15: `training=False` given to a layer inside another's call holds for everything that
    the outer one calls afterwards, too, and the call's context has no public name.
    """
    context = _call_context()
    if context is None:  # outside of any call layers are in inference
        yield
        return
    training, context.training = context.training, False
    try:
        yield
    finally:
        context.training = training


class RemembersMoments:
    """For a Keras batch norm: the moments that it takes can be had again within the outermost call.

    Keras 3.15: it takes them in a private method and keeps nothing of them but moving averages.
    They are kept with the context of the call, which ends with it: they are tensors of its graph.
    """

    def _moments(self, inputs: tf.Tensor, mask: tf.Tensor | None) -> tuple[tf.Tensor, tf.Tensor]:
        moments = super()._moments(inputs, mask)  # type: ignore[misc]
        vars(_call_context()).setdefault("_batch_moments", {})[id(self)] = moments
        return moments

    def moments_in_this_call(self) -> tuple[tf.Tensor, tf.Tensor] | None:
        """The last mean and variance that were taken in the outermost call; None for none."""
        return getattr(_call_context(), "_batch_moments", {}).get(id(self))


def _call_context() -> Any:
    """Keras's record of the outermost layer call under way; None outside of any."""
    from keras.src.backend.common.global_state import get_global_attribute

    return get_global_attribute("current_call_ctx")


class BuiltAlready:
    """For a Keras model that is built when it is made: `fit` takes no batch to build it with.

    Keras 3.15 draws one under a strategy, and averages over its replicas and workers what each of
    them has of it, which fails where they have unequal shares or are on several machines. What is
    left to build is the optimizer, whose variables cannot be made inside a step.
    """

    distribute_strategy: tf.distribute.Strategy
    optimizer: Any
    trainable_variables: list[Any]

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        if self.optimizer is not None and not self.optimizer.built:
            with self.distribute_strategy.scope():
                self.optimizer.build(self.trainable_variables)


def apply_summed(optimizer: Any, gradients: Sequence[Any], weights: Sequence[Any]) -> None:
    """`optimizer.apply_gradients` for gradients that are sums over the replicas already.

    Keras 3.15 sums them up itself, but clips before: each replica its part of the gradient, which
    is another step than that of one device. What is clipped here is the whole.
    """
    if tf.distribute.get_strategy().num_replicas_in_sync > 1:
        inner = getattr(optimizer, "inner_optimizer", optimizer)
        inner._all_reduce_sum_gradients = list
    optimizer.apply_gradients(zip(gradients, weights, strict=True))


def as_logs(values: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """A step's scalar logs as Keras takes them.

    Keras 3.15 averages logs over workers along axis 0, which a scalar has not: `[1]` there.
    """
    from keras.src.backend.tensorflow.trainer import _collective_all_reduce_multi_worker

    if not _collective_all_reduce_multi_worker(tf.distribute.get_strategy()):
        return values
    return {name: tf.reshape(value, [1]) for name, value in values.items()}
