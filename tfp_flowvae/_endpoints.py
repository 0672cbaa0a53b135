"""SavedModels of named functions with one signature each, which plain TensorFlow runs."""

from __future__ import annotations

import contextlib
import inspect
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import tensorflow as tf

from tfp_flowvae.errors import UserError

Function: TypeAlias = tf.types.experimental.PolymorphicFunction
_COUNTS = ("n", "steps")


class Endpoint(NamedTuple):
    """A function of a SavedModel.

    Attributes:
      function: It returns tensors by name. Where its last arguments have default values, the method
        of the SavedModel keeps them, and the signature is without these arguments.
      signature: The specifications of all arguments.
    """

    function: Callable[..., dict[str, Any]]
    signature: Sequence[Any]

    @property
    def required(self) -> list[Any]:
        """The specifications of the arguments without a default."""
        return list(self.signature)[: len(self.signature) - len(self.defaults)]

    @property
    def defaults(self) -> list[Any]:
        """The values of the last arguments where they are left out."""
        return _defaults(self.function)


def named(
    function: Callable[..., dict[str, Any]], signature: Sequence[tf.TensorSpec], **defaults: Any
) -> Endpoint:
    """An endpoint whose arguments have the names of their specifications.

    Args:
      function: From the arguments, in their order, to tensors by name.
      signature: The specifications, with names.
      **defaults: Of the last arguments.
    """

    def call(*arguments: Any) -> dict[str, Any]:
        return function(*arguments)

    kind, none = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.empty
    parameters = [
        inspect.Parameter(spec.name, kind, default=defaults.get(spec.name, none))
        for spec in signature
    ]
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    # A `tf.function`, so that `by_row` calls what is exported and traces nothing twice.
    return Endpoint(tf.function(call, input_signature=signature, autograph=False), signature)


def by_row(endpoint: Endpoint) -> Endpoint:
    """An endpoint that takes a value of each scalar for each row of a batch.

    Each row of the results is that of the endpoint for a batch of this row alone, so a server may
    put the rows of several requests into one batch. Arguments with a default are left out. Where
    an argument, n or steps, is the number of results of a row, rows with fewer of them than others
    are filled up with zeros.

    Args:
      endpoint: Its arguments are scalars or `[B, ...]`. If there is a number of results, it comes
        first in their shapes, `[n, B, ...]` or, without a batch, `[n, ...]`.
    """
    names = [spec.name for spec in endpoint.required]
    batched = [spec.shape.rank > 0 for spec in endpoint.required]
    count = next((names.index(name) for name in _COUNTS if name in names), None)
    batch_axis = (0 if count is None else 1) if any(batched) else None

    def call(*arguments: tf.Tensor) -> dict[str, tf.Tensor]:
        rows, most = tf.shape(arguments[0])[0], None
        if count is not None:
            # TensorFlow cannot stack no rows of unknown size: one of no results stands in for them.
            arguments = tuple(_padded(part, tf.maximum(rows, 1)) for part in arguments)
            most = tf.reduce_max(arguments[count])

        def one(row: Sequence[tf.Tensor]) -> dict[str, tf.Tensor]:
            given = [
                part[tf.newaxis] if is_batch else part
                for part, is_batch in zip(row, batched, strict=True)
            ]
            results = endpoint.function(*given, *endpoint.defaults)
            if batch_axis is not None:
                results = {k: tf.squeeze(value, batch_axis) for k, value in results.items()}
            if most is None:
                return results
            return {k: _padded(value, most) for k, value in results.items()}

        results = as_function(endpoint).get_concrete_function().structured_outputs
        types = {k: _without(batch_axis, value) for k, value in results.items()}
        found = tf.map_fn(one, arguments, fn_output_signature=types)
        return {k: value[:rows] for k, value in found.items()}

    signature = [
        spec if is_batch else tf.TensorSpec([None], spec.dtype, spec.name)
        for spec, is_batch in zip(endpoint.required, batched, strict=True)
    ]
    return named(call, signature)


def _without(axis: int | None, value: tf.Tensor) -> tf.TensorSpec:
    """The specification of a part of a value that has no such axis."""
    sizes = [size for i, size in enumerate(value.shape) if i != axis]
    return tf.TensorSpec(sizes, value.dtype)


def _padded(value: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """The value with zeros behind, `[size, ...]`."""
    behind = size - tf.shape(value)[0]
    return tf.pad(value, [[0, behind], *[[0, 0]] * (value.shape.rank - 1)])


def _defaults(function: Callable[..., Any]) -> list[Any]:
    plain = getattr(function, "python_function", function)
    parameters = inspect.signature(plain).parameters.values()
    return [p.default for p in parameters if p.default is not inspect.Parameter.empty]


def as_function(endpoint: Endpoint) -> Function:
    """An endpoint as a `tf.function`, which is not traced yet."""
    if isinstance(endpoint.function, tf.types.experimental.PolymorphicFunction):
        return endpoint.function
    return tf.function(endpoint.function, input_signature=endpoint.signature, autograph=False)


def trace(endpoint: Endpoint) -> Function:
    """An endpoint as a `tf.function`, traced.

    Raises:
      Exception: Whatever the endpoint's function raises for its specifications.
    """
    traced = as_function(endpoint)
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
      endpoints: From `trace`, by name. `serving_default`, or else the first, is the signature that
        TensorFlow Serving takes for a request without a name.
      variables: Lists of the variables that the endpoints use, by the name of the attribute that
        each list becomes, in the order in which they are written.
    """
    served = tf.train.Checkpoint()
    for name, held in variables.items():
        setattr(served, name, held)
    for name, function in endpoints.items():
        setattr(served, name, function)
    signatures = {name: _flat(function) for name, function in endpoints.items()}
    signatures.setdefault("serving_default", next(iter(signatures.values())))
    tf.saved_model.save(served, str(path), signatures=signatures)


def load(path: Path) -> Any:
    """Loads a SavedModel.

    Raises:
      UserError: If TensorFlow cannot load it.
    """
    try:
        with _without_gradient_warning():
            return tf.saved_model.load(str(path))
    except (OSError, ValueError, tf.errors.OpError) as error:
        raise UserError(
            f"{str(path)!r} holds a model that TensorFlow cannot load; export it again. "
            f"TensorFlow says: {str(error).splitlines()[0]}"
        ) from error


@contextlib.contextmanager
def _without_gradient_warning() -> Iterator[None]:
    """Drops TensorFlow's warning that it has saved custom gradients to the first order only."""
    logger = logging.getLogger("absl")

    def drop(record: logging.LogRecord) -> bool:
        return "unsaved custom gradients" not in record.msg

    logger.addFilter(drop)
    try:
        yield
    finally:
        logger.removeFilter(drop)


def _flat(function: Function) -> Function:
    """The function with a tensor for each argument and each result, as signatures must have."""
    defaults = len(_defaults(function.python_function))
    arguments = function.input_signature[: len(function.input_signature) - defaults]

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
