"""SavedModels of named functions with one signature each, which plain TensorFlow runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import tensorflow as tf

from tfp_flowvae.errors import UserError

Function: TypeAlias = tf.types.experimental.PolymorphicFunction
# A function that returns tensors by name, and the specifications of its arguments.
Endpoint = tuple[Callable[..., dict[str, Any]], Sequence[Any]]


def trace(endpoint: Endpoint) -> Function:
    """An endpoint as a `tf.function`, traced.

    Raises:
      Exception: Whatever the endpoint's function raises for its specifications.
    """
    function, signature = endpoint
    traced = tf.function(function, input_signature=signature, autograph=False)
    traced.get_concrete_function()
    return traced


def save(
    path: str | Path,
    endpoints: Mapping[str, Function],
    variables: Mapping[str, list[tf.Variable]],
) -> None:
    """Writes a SavedModel with endpoints as methods and as signatures.

    `keras.export.ExportArchive` lists the variables in the order of a set of their addresses, so
    that two runs with the same weights make different files, and writes each of them twice.

    Args:
      path: The folder; it is made if need be.
      endpoints: From `trace`, by name. The first is also the signature that TensorFlow Serving
        takes for a request without a name.
      variables: Lists of the variables that the endpoints use, by the name of the attribute that
        each list becomes, in the order in which they are written.
    """
    served = tf.train.Checkpoint()
    for name, held in variables.items():
        setattr(served, name, held)
    for name, function in endpoints.items():
        setattr(served, name, function)
    signatures = {name: _flat(function) for name, function in endpoints.items()}
    signatures["serving_default"] = next(iter(signatures.values()))
    tf.saved_model.save(served, str(path), signatures=signatures)


def load(path: Path) -> Any:
    """Loads a SavedModel.

    Raises:
      UserError: If TensorFlow cannot load it.
    """
    try:
        return tf.saved_model.load(str(path))
    except (OSError, ValueError, tf.errors.OpError) as error:
        raise UserError(
            f"{str(path)!r} holds a model that TensorFlow cannot load; export it again. "
            f"TensorFlow says: {str(error).splitlines()[0]}"
        ) from error


def _flat(function: Function) -> Function:
    """The function with a tensor for each argument and each result, as signatures must have."""
    arguments = function.input_signature
    if not any(map(tf.nest.is_nested, arguments)) and not any(
        map(tf.nest.is_nested, function.get_concrete_function().structured_outputs.values())
    ):
        return function

    def call(*flat: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = function(*tf.nest.pack_sequence_as(arguments, flat))
        named = (leaves(name, value) for name, value in outputs.items())
        return {name: leaf for parts in named for name, leaf in parts.items()}

    return tf.function(call, input_signature=tf.nest.flatten(arguments), autograph=False)


def leaves(name: str, value: Any) -> dict[str, Any]:
    """The leaves of a nest in TensorFlow's order, by the names that they have in signatures.

    A leaf of a nest `x` is named by its path: `x_z` for the key "z", `x_0` for the first in a list.
    """
    if isinstance(value, Mapping):
        parts = sorted(value.items())
    elif isinstance(value, (list, tuple)):
        parts = list(enumerate(value))
    else:
        return {name: value}
    named = (leaves(f"{name}_{key}", part) for key, part in parts)
    return {path: leaf for part in named for path, leaf in part.items()}
