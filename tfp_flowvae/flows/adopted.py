"""A user's own TFP objects in a Keras model; here, a bijector as a flow.

Keras trains `keras.Variable`s only, TFP's objects hold `tf.Variable`s. A `keras.Variable` made of a
`tf.Variable` holds that very variable, so what Keras trains, saves and exports is the user's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, Self

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import bijectors as tfb

from tfp_flowvae.errors import UserError
from tfp_flowvae.flows.base import Flow

Factory = Callable[[], Any]


def adopt(variables: Sequence[tf.Variable]) -> list[keras.Variable]:
    """Keras variables that are these TensorFlow variables, to be attributes of a layer.

    Keras 3.15 keeps a `tf.Variable` that it is given as the initial value; `tests/test_compat.py`
    fails when that changes.
    """
    return [
        keras.Variable(
            variable,
            trainable=variable.trainable,
            autocast=False,
            name=variable.name.partition(":")[0].replace("/", "_"),
        )
        for variable in variables
    ]


# The parts that `supplied` gives to the layers that are being loaded.
_SUPPLIED: ContextVar[Mapping[str, Any]] = ContextVar("supplied", default=MappingProxyType({}))


@contextmanager
def supplied(**parts: Any) -> Iterator[None]:
    """A context in which `.keras` files load with a `prior` and `flow` that they cannot hold.

    Args:
      **parts: Objects, or functions that return them.
    """
    token = _SUPPLIED.set({name: part for name, part in parts.items() if part is not None})
    try:
        yield
    finally:
        _SUPPLIED.reset(token)


def made(source: Any, kind: type, what: str) -> tuple[Any, Factory | None]:
    """The user's object, and the function that made it, or None if the user gave the object.

    Raises:
      UserError: If the object is not an instance of `kind`.
    """
    factory = None
    if not isinstance(source, kind) and callable(source):
        factory, source = source, source()
    if not isinstance(source, kind):
        raise UserError(
            f"{what} must be a {kind.__module__.split('.')[0]} {kind.__name__}, or a function "
            f"without arguments that returns one. Received: {type(source).__name__}."
        )
    return source, factory


def factory_config(factory: Factory | None) -> Any:
    """The registered name of the factory for a `.keras` file, or None where it has none."""
    if factory is None or keras.saving.get_registered_name(factory) == factory.__name__:
        return None
    return keras.saving.serialize_keras_object(factory)


def factory_from(config: dict[str, Any], key: str, what: str) -> Any:
    """The factory or the object to rebuild a layer with, from its config or from `supplied`.

    Raises:
      UserError: If there is neither.
    """
    found = config.pop("factory")
    if key in _SUPPLIED.get():
        return _SUPPLIED.get()[key]
    if found is None:
        raise UserError(
            f"This model's {what} was built by its user in TFP, and the file holds its weights "
            f"alone: load it with {key}=... set to such an object, or to a function that returns "
            "one, or register the function with keras.saving.register_keras_serializable and give "
            "it, not what it returns, to the model before saving."
        )
    return keras.saving.deserialize_keras_object(found)


@keras.saving.register_keras_serializable(package="tfp_flowvae")
class Adopted(Flow):
    """A bijector that the user built in TFP as a flow; its variables are trained with the rest.

    It is the same for every example: it ignores a context.

    Example:
      >>> flow = Adopted(tfb.Scale(log_scale=tf.Variable(tf.zeros(2))), event_size=2)
      >>> len(flow.trainable_weights)
      1

    Args:
      source: A `tfb.Bijector` on float32 vectors, or a function without arguments that returns one.
        A function that is registered with `keras.saving.register_keras_serializable` makes the
        model's `.keras` file complete; otherwise `tfp_flowvae.load` needs `flow=`.
      **kwargs: See `Flow`.

    Raises:
      UserError: If it is not a bijector, or does not map vectors of size D to such vectors.
    """

    def __init__(self, source: tfb.Bijector | Factory, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        bijector, self._factory = made(source, tfb.Bijector, "A flow of your own")
        self._adopted = adopt(bijector.variables)
        self._get: Callable[[], tfb.Bijector] = lambda: bijector

    def build(self, z_shape: Any = None, context_shape: Any = None) -> None:
        """Checks that the bijector takes vectors of this size; the variables are the user's."""
        super().build(z_shape, context_shape)
        _check_bijector(self._get(), self.event_size)

    def make_bijector(self, context: tf.Tensor | None) -> tfb.Bijector:
        """The user's bijector."""
        return self._get()

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, of the factory its registered name, or None."""
        return {**super().get_config(), "factory": factory_config(self._factory)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Rebuilds the layer around what the factory returns."""
        return cls(factory_from(config, "flow", "flow"), **config)


def _check_bijector(bijector: tfb.Bijector, event_size: int) -> None:
    def refuse(must: str, received: str) -> UserError:
        name = type(bijector).__name__
        return UserError(f"A flow of your own must {must}. Received: {name}, {received}")

    if bijector.forward_min_event_ndims != bijector.inverse_min_event_ndims:
        raise refuse("map vectors to vectors", "which changes the number of event dimensions.")
    try:
        shape = bijector.forward(tf.zeros([1, event_size])).shape
        log_det = bijector.forward_log_det_jacobian(tf.zeros([1, event_size]), event_ndims=1)
    except (ValueError, TypeError, NotImplementedError, tf.errors.InvalidArgumentError) as error:
        raise refuse(
            f"take float32 vectors of size {event_size} and have a log-det",
            f"which says: {str(error).splitlines()[0] or error!r}",
        ) from error
    if shape != [1, event_size] or not np.all(np.isfinite(log_det)):
        raise refuse(
            f"map [B, {event_size}] to [B, {event_size}] with a finite log-det at 0",
            f"with output {tuple(shape)} and log-det {log_det}.",
        )
