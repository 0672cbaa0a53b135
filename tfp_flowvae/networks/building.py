"""Building sublayers at once, for layers that know every size."""

from __future__ import annotations

from typing import Any

import keras


def ensure_built(layer: keras.layers.Layer, *shapes: Any) -> None:
    """Builds `layer` for inputs of these shapes, such as `(None, 3)`, unless it is built already.

    Keras builds each layer of a deserialised model from its own config, before its parent's turn
    comes, and a layer that is built refuses to be built again.
    """
    if not layer.built:
        layer.build(*shapes)
