"""Building sublayers at once, for layers that know every size from their constructor."""

from __future__ import annotations

from collections.abc import Sequence

import keras


def ensure_built(
    layer: keras.layers.Layer, input_size: int | Sequence[int | None] | None = None
) -> None:
    """Builds `layer` for inputs `[B, input_size]` or `[B, *input_size]` unless it is built already.

    Keras builds each layer of a deserialised model from its own config, before its parent's turn
    comes, and a layer that is built refuses to be built again.
    """
    if not layer.built:
        sizes = input_size if isinstance(input_size, Sequence) else (input_size,)
        layer.build((None, *sizes))
