"""The data that `fit` and `adapt` of a density take, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import keras
import tensorflow as tf

from tfp_flowvae._typing import TensorLike
from tfp_flowvae.errors import UserError

_ROWS_AT_ONCE = 65_536


def as_rows(name: str, x: TensorLike, size: int) -> tf.Tensor:
    """float32 `[..., size]`; raises `UserError` for another size."""
    x = tf.cast(tf.convert_to_tensor(x), tf.float32)
    if x.shape.rank == 0 or x.shape[-1] not in (None, size):
        raise UserError(
            f"{name} must have shape [..., {size}]. Received: {name}.shape={tuple(x.shape)}."
        )
    return x


def training_rows(arguments: Mapping[str, Any]) -> int:
    """How many rows of the array that `fit` is given it trains on."""
    # Keras takes the validation data from the end.
    return int(len(arguments["x"]) * (1.0 - (arguments.get("validation_split") or 0.0)))


def is_array(x: Any) -> bool:
    """Whether x holds all rows at once, as an array, a tensor or a data frame."""
    return hasattr(x, "shape") and hasattr(x, "__len__")


def batches_of(
    x: Any, context: Any = None, weight: Any = None, steps: int | None = None
) -> Iterator[tuple[Any, Any, Any]]:
    """Batches of x, context and weights.

    Args:
      x: Rows `[N, D]`; or a `tf.data.Dataset` or `keras.utils.PyDataset` with batches of x,
        (x, context) or (x, context, weight).
      context: `[N, C]`, or None; with batches None.
      weight: `[N]`, or None; with batches None.
      steps: How many batches to take; None for all.

    Raises:
      UserError: If the data cannot be read twice, or do not end.
    """
    if is_array(x):
        for start in range(0, len(x), _ROWS_AT_ONCE):
            part = slice(start, start + _ROWS_AT_ONCE)
            given = None if context is None else context[part]
            yield x[part], given, None if weight is None else weight[part]
    elif isinstance(x, tf.data.Dataset):
        if steps is None and x.cardinality() == tf.data.INFINITE_CARDINALITY:
            raise UserError(
                "An endless dataset needs a number of steps: give fit its steps_per_epoch, or "
                "adapt its steps. Received: None."
            )
        for batch in x if steps is None else x.take(steps):
            yield keras.utils.unpack_x_y_sample_weight(batch)
    elif isinstance(x, keras.utils.PyDataset):
        for i in range(x.num_batches if steps is None else steps):
            yield keras.utils.unpack_x_y_sample_weight(x[i])
    else:
        raise UserError(
            "Data that can be read only once cannot be standardised by fit: call adapt before it, "
            "with arrays or a tf.data.Dataset, or give standardize=False. "
            f"Received: {type(x).__name__}."
        )
