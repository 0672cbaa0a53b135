"""What the Keras layers of this package share: building at once, and their configs."""

from __future__ import annotations

import inspect
from typing import Any

import keras


class ConfiguredLayer(keras.layers.Layer):
    """A layer whose config is made of the attributes that are named as its constructor's arguments.

    The arguments of the base classes' constructors count too. One that is kept under another name,
    or that JSON does not hold, needs a `get_config` of the subclass.
    """

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        classes = type(self).__mro__[: type(self).__mro__.index(ConfiguredLayer)]
        makers = [vars(cls)["__init__"] for cls in classes if "__init__" in vars(cls)]
        names = [name for maker in makers for name in inspect.signature(maker).parameters]
        kept = {name: getattr(self, name) for name in names if hasattr(self, name)}
        return {**super().get_config(), **kept}


def ensure_built(layer: keras.layers.Layer, *shapes: Any) -> None:
    """Builds `layer` for inputs of these shapes, such as `(None, 3)`, unless it is built already.

    Keras builds each layer of a deserialised model from its own config, before its parent builds
    it, and a layer that is built refuses to be built again.
    """
    if not layer.built:
        layer.build(*shapes)


def check_sizes(name: str, sizes: Any) -> tuple[int, ...]:
    """The sizes of layers as a tuple.

    Raises:
      ValueError: Unless there is at least one size and each is at least 1.
    """
    if not sizes or min(sizes) < 1:
        raise ValueError(
            f"{name} must name at least one layer, each of at least 1. "
            f"Received: {name}={tuple(sizes)}."
        )
    return tuple(sizes)


def check_context(layer: Any, context: Any) -> None:
    """Raises `ValueError` unless a network with `context_size` gets a context, others none."""
    if (context is None) != (layer.context_size is None):
        wanted = "no context" if layer.context_size is None else "a context"
        raise ValueError(
            f"This {type(layer).__name__} was built for {wanted}. Received: {context=}."
        )
