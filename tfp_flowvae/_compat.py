"""Every private name of TensorFlow Probability and Keras that the project leans on, in one place.

TFP 0.25 (November 2024) is older than the TensorFlow 2.21 and Keras 3.15 it runs with, and some of
what a flow needs has no public name. `tests/test_compat.py` fails when any of it moves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import tensorflow as tf
from tensorflow_probability import bijectors as tfb
from tensorflow_probability.python.bijectors import chain as _chain
from tensorflow_probability.python.bijectors import invert as _invert
from tensorflow_probability.python.internal import tensor_util as _tensor_util

from tfp_flowvae._typing import TensorLike

if TYPE_CHECKING:
    import keras


# TFP 0.25: `tfb.Chain(...)` and `tfb.Invert(...)` return instances of these private bases, which
# are not instances of the public classes, as soon as one part is not a CompositeTensor.
CHAIN_TYPES: tuple[Any, ...] = (_chain._Chain,)
INVERT_TYPES: tuple[Any, ...] = (_invert._Invert,)


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
