"""Checks on parameters and inputs that every bijector of ours makes, with one wording.

An axis is named by a letter: a parameter with axes "KD" has shape `[..., K, D]`, one with axes ""
has shape `[...]`. Axes of the same letter have the same size in every parameter of a bijector.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from tensorflow_probability import bijectors as tfb

from tfp_flowvae import _compat
from tfp_flowvae._typing import TensorLike

_ALLOWED_DTYPES = (tf.float32, tf.float64)


def convert_parameters(
    owner: str, axes: Mapping[str, str], values: Mapping[str, TensorLike]
) -> dict[str, tf.Tensor | tf.Variable]:
    """Converts parameters to tensors of one dtype (references are kept) and checks their shapes.

    Args:
      owner: The bijector's class name, for messages.
      axes: For each parameter its event axes, one letter an axis, such as `{"u": "KD", "b": "K"}`.
      values: For each parameter its value.

    Returns:
      The parameters by name, in the order of `axes`.

    Raises:
      TypeError: If the dtypes differ or are not float32 or float64.
      ValueError: If a rank is too small, an axis has size 0 or different sizes in two parameters,
        or the batch shapes do not broadcast, as far as the static shapes tell.
    """
    dtype = _common_dtype(owner, values)
    parameters = {name: _compat.as_parameter(values[name], dtype, name) for name in axes}
    shapes = {name: tf.TensorShape(value.shape) for name, value in parameters.items()}
    problem = _shape_problem(axes, shapes)
    if problem:
        wanted = ", ".join(f"{name} {_pattern(letters)}" for name, letters in axes.items())
        received = ", ".join(f"{name}.shape={_text(shape)}" for name, shape in shapes.items())
        raise ValueError(
            f"{owner} takes {wanted}, with leading dimensions that broadcast, but {problem}. "
            f"Received: {received}."
        )
    return parameters


def check_event(owner: str, x: tf.Tensor, event_shape: tf.TensorShape) -> tf.Tensor:
    """Returns `x` of `[..., D]` with its last dimension pinned to the parameters' D.

    Raises:
      ValueError: If `x` is a scalar or its last dimension is known to differ from `event_shape`.
      tf.errors.InvalidArgumentError: If the last dimension is found to differ when the graph runs.
    """
    rank = x.shape.rank
    size = None if event_shape.rank is None else event_shape[0]
    if rank is None or size is None:
        return x
    if rank < 1 or x.shape[-1] not in (None, size):
        raise ValueError(
            f"{owner} with parameters of D={size} takes inputs of shape [..., {size}]. "
            f"Received: shape {_text(x.shape)}."
        )
    if x.shape[-1] is None:
        return tf.ensure_shape(x, [None] * (rank - 1) + [size])
    return x


def check_choice(owner: str, label: str, value: str, choices: Iterable[str]) -> None:
    """Raises `ValueError` on behalf of `owner` if `value` is none of `choices`."""
    choices = tuple(choices)
    if value not in choices:
        known = " or ".join(repr(choice) for choice in choices)
        raise ValueError(f"{owner} takes the {label} {known}. Received: {value!r}.")


def check_count(owner: str, label: str, value: int, least: int = 1) -> None:
    """Raises `ValueError` on behalf of `owner` if `value` is no integer from `least` on."""
    if not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(
            f"{owner} takes an integer {label} of at least {least}. Received: {label}={value!r}."
        )


def parameter_properties(
    axes: Mapping[str, str], positive: Mapping[str, tf.DType] | None = None
) -> dict[str, tfp.util.ParameterProperties]:
    """The properties of each parameter, for batch shapes, slicing and `make_trainable`.

    A bijector's input tells D but not the other sizes, K steps and J mirrors: `make_trainable`
    makes one of each, unless its `initial_parameters` is a function, which may return any number.

    Args:
      axes: As for `convert_parameters`.
      positive: The parameters that have to be positive, with their dtypes.
    """
    positive = positive or {}

    def properties(name: str, letters: str) -> tfp.util.ParameterProperties:
        constrain = tfb.Identity
        if name in positive:
            low = np.finfo(tf.as_dtype(positive[name]).as_numpy_dtype).eps
            constrain = partial(tfb.Softplus, low=low)
        return tfp.util.ParameterProperties(
            event_ndims=len(letters),
            shape_fn=partial(_parameter_shape, letters),
            default_constraining_bijector_fn=constrain,
        )

    return {name: properties(name, letters) for name, letters in axes.items()}


def assertions(
    value: TensorLike,
    is_init: bool,
    message: str,
    problem: Callable[[np.ndarray], str],
    assertion: Callable[[tf.Tensor, str], tf.Operation],
) -> list:
    """What `validate_args` checks of one parameter.

    As in TFP, constants are checked once, at construction, and references at each use. What is
    known when this runs raises a `ValueError` with the value; the rest becomes an assertion.

    Args:
      value: The parameter.
      is_init: Whether this is the construction.
      message: Which values the parameter may have.
      problem: From the values, if they are known, to those that it may not have, or to "".
      assertion: From the tensor, if they are not, and the message to the assertion.
    """
    if is_init == _compat.is_ref(value):
        return []
    tensor = tf.convert_to_tensor(value)
    static = tf.get_static_value(tensor)
    if static is None:
        return [assertion(tensor, f"{message}.")]
    if received := problem(static):
        raise ValueError(f"{message}. Received: {received}.")
    return []


def finite_assertions(owner: str, parameters: Mapping[str, TensorLike], is_init: bool) -> list:
    """The `assertions` that all parameters are finite."""
    found = []
    for name, value in parameters.items():
        message = f"{owner} with validate_args=True takes finite parameters"

        def problem(values: np.ndarray, name: str = name) -> str:
            bad = values[~np.isfinite(values)]
            return f"{name} holding {bad[0]}" if bad.size else ""

        def assertion(tensor: tf.Tensor, message: str, name: str = name) -> tf.Operation:
            return tf.debugging.assert_all_finite(tensor, f"{message} Received others in {name}.")

        found += assertions(value, is_init, message, problem, assertion)
    return found


def _common_dtype(owner: str, values: Mapping[str, TensorLike]) -> tf.DType:
    found = {}
    for name, value in values.items():
        for leaf in [value] if hasattr(value, "dtype") else tf.nest.flatten(value):
            if getattr(leaf, "dtype", None) is not None:
                found[name] = tf.as_dtype(leaf.dtype)
    dtypes = set(found.values())
    if len(dtypes) > 1 or not dtypes.issubset(_ALLOWED_DTYPES):
        received = ", ".join(f"{name}.dtype={dtype.name}" for name, dtype in found.items())
        raise TypeError(
            f"{owner} takes parameters that are all float32 or all float64. Received: {received}."
        )
    return dtypes.pop() if dtypes else tf.float32


def _shape_problem(axes: Mapping[str, str], shapes: Mapping[str, tf.TensorShape]) -> str:
    sizes: dict[str, int] = {}
    batch = tf.TensorShape([])
    for name, shape in shapes.items():
        letters = axes[name]
        if shape.rank is None:
            return ""
        if shape.rank < len(letters):
            return f"{name} has too few dimensions"
        split = shape.rank - len(letters)
        for letter, size in zip(letters, shape.as_list()[split:], strict=True):
            if size == 0:
                return f"{letter} is 0 in {name}"
            if size is not None and sizes.setdefault(letter, size) != size:
                return f"{letter} is {sizes[letter]} and, in {name}, {size}"
        try:
            batch = tf.broadcast_static_shape(batch, shape[:split])
        except ValueError:
            return f"the leading dimensions of {name} do not broadcast with the others"
    return ""


def _parameter_shape(letters: str, input_shape: TensorLike) -> tf.Tensor:
    shape = tf.convert_to_tensor(input_shape, tf.int32)
    sizes = [shape[-1:] if letter == "D" else tf.constant([1]) for letter in letters]
    return tf.concat([shape[:-1], *sizes], axis=0)


def _pattern(letters: str) -> str:
    return "[" + ", ".join(["...", *letters]) + "]"


def _text(shape: tf.TensorShape) -> str:
    return "unknown" if shape.rank is None else str(tuple(shape.as_list()))
