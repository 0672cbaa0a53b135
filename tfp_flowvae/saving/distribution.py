"""From any distribution to a SavedModel that plain TensorFlow runs."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_flowvae import _compat, _endpoints
from tfp_flowvae._files import folder_renamed_when_done
from tfp_flowvae.errors import UserError
from tfp_flowvae.saving.distribution_endpoints import (
    Layout,
    Make,
    base_layout,
    endpoints,
    named_specs,
    sample_layout,
)

_PYTHON_OPS = {"EagerPyFunc", "PyFunc", "PyFuncStateless"}


def export_distribution(
    distribution: tfd.Distribution | Callable[[Any], tfd.Distribution],
    path: str | Path,
    context_spec: Any = None,
) -> None:
    """Writes a distribution, or a function from a context to one, as a SavedModel.

    `tf.saved_model.load(path)` needs neither this package nor TensorFlow Probability. Its methods,
    which are its signatures too, each return a dict:

        sample(n, seed)              -> x            [n, *batch, *event]
        log_prob(x)                  -> log_prob     [..., *batch]        nats
        sample_and_log_prob(n, seed) -> x, log_prob
        forward(z), inverse(x)       -> x; z         of a `tfd.TransformedDistribution`'s bijector
        shapes()                     -> event_shape, batch_shape

    `n` is an int32 scalar and `seed` one or a stateless seed `[2]` (Python ints will do). `x` is
    `[..., *batch, *event]` with any leading dimensions, or what broadcasts to that. Any `n` and any
    number of points will do, 0 included. Joint distributions take and return dicts or lists of
    their parts; for a part z of theirs, signatures say `x_z`. With a `context_spec` every method
    takes a context as its last argument, such as `sample(n, seed, context)`.

    The variables are in `variables` and `trainable_variables`, can be assigned, and have gradients.
    Take gradients in another process than the one that wrote the folder: there TensorFlow 2.21 may
    fail at custom gradients within loops, such as those of `PlanarFlow`.
    Methods that the distribution does not have, or that cannot be traced for any `n` and sizes, are
    left out; a warning names them and says why.

    Example:
      >>> scale = tf.Variable([1.0, 2.0])
      >>> fv.export_distribution(tfd.MultivariateNormalDiag(tf.zeros(2), scale), "normal")
      >>> served = tf.saved_model.load("normal")
      >>> served.sample(3, 0)["x"].shape
      TensorShape([3, 2])

    Args:
      distribution: A `tfd.Distribution` whose event shape is known, or a function from a context.
      path: The folder, which must not exist. It appears when it is complete.
      context_spec: For a function, a `tf.TensorSpec` of the context, or a nest of them; None in a
        shape is for any size.

    Raises:
      UserError: If `path` exists or cannot be written, the event shape is not known, `context_spec`
        does not fit, or there is nothing to export.
    """
    path = Path(path)
    if path.exists():
        raise UserError(f"{str(path)!r} exists; choose another path, or remove it.")
    make = _maker(distribution, context_spec)
    context = () if context_spec is None else (named_specs("context", context_spec),)
    name, samples, base = _look(make, context)
    functions, missing = _trace(endpoints(make, context, samples, base))
    if {"sample", "log_prob"} <= set(missing):
        raise UserError(
            f"{name!r} has neither sample nor log_prob to export: {missing['log_prob']}."
        )
    held = _variables(distribution, functions)
    try:
        with folder_renamed_when_done(path) as aside:
            _endpoints.save(aside, functions, held)
    except OSError as error:
        raise UserError(f"Cannot write {str(path)!r}: {error.strerror}.") from error
    if missing:
        reason = next(iter(missing.values()))
        warnings.warn(f"{name!r} is exported without {', '.join(missing)}: {reason}.", stacklevel=2)


def _maker(distribution: Any, context_spec: Any) -> Make:
    """From a context, if there is one, to the distribution."""
    if isinstance(distribution, tfd.Distribution):
        if context_spec is not None:
            raise UserError(
                "A distribution takes no context: leave context_spec out, or give a function from "
                f"a context to a distribution. Received: context_spec={context_spec}."
            )
        return lambda: distribution
    if not callable(distribution):
        raise UserError(
            "export_distribution takes a tfd.Distribution, or a function from a context to one. "
            f"Received: {distribution!r}."
        )
    if context_spec is None:
        raise UserError(
            "A function from a context to a distribution needs context_spec, a tf.TensorSpec or a "
            "nest of them, such as tf.TensorSpec([None, 3])."
        )
    return distribution


def _look(make: Make, context: tuple[Any, ...]) -> tuple[str, Layout, Layout | None]:
    """The distribution's name, the layout of its samples, and that of its base's or None."""
    if not context:
        return _layouts(make())
    found = []

    def look(context: Any) -> None:
        found.append(_layouts(make(context)))

    try:
        tf.function(look, input_signature=context, autograph=False).get_concrete_function()
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"The function does not take a context of context_spec={context[0]}: {_first(error)}."
        ) from error
    return found[0]


def _layouts(distribution: Any) -> tuple[str, Layout, Layout | None]:
    if not isinstance(distribution, tfd.Distribution):
        raise UserError(
            "The function must return a tfd.Distribution for a context. "
            f"Received: {distribution!r}."
        )
    name, samples = distribution.name, sample_layout(distribution)
    if not _is_known(samples):
        raise UserError(
            "export_distribution takes distributions with a known event shape, dtype and number of "
            f"batch dimensions. Received: {distribution!r}."
        )
    if not isinstance(distribution, _compat.TRANSFORMED_TYPES):
        return name, samples, None
    base = base_layout(distribution)
    return name, samples, base if _is_known(base) else None


def _is_known(layout: Layout) -> bool:
    dtypes, events, batches = map(tf.nest.flatten, layout)
    return (
        all(isinstance(dtype, tf.DType) for dtype in dtypes)
        and all(event.is_fully_defined() for event in events)
        and all(batch.rank is not None for batch in batches)
    )


def _first(error: Exception) -> str:
    """An error's type and the first line of its message."""
    line = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {line.rstrip('.')}"


def _trace(
    candidates: dict[str, _endpoints.Endpoint],
) -> tuple[dict[str, _endpoints.Function], dict[str, str]]:
    """The endpoints that can be traced, and by name the errors of those that cannot."""
    functions, missing = {}, {}
    for name, endpoint in candidates.items():
        try:
            functions[name] = _endpoints.trace(endpoint)
        except Exception as error:
            missing[name] = _first(error)
            continue
        graph = functions[name].get_concrete_function().graph.as_graph_def()
        nodes = [*graph.node, *(node for f in graph.library.function for node in f.node_def)]
        if _PYTHON_OPS & {node.op for node in nodes}:
            raise UserError(
                f"{name} runs Python code (tf.py_function or tf.numpy_function), which a "
                "SavedModel cannot hold; use TensorFlow operations."
            )
    return functions, missing


def _variables(
    distribution: Any, functions: dict[str, _endpoints.Function]
) -> dict[str, list[tf.Variable]]:
    """The variables that the distribution lists and those that only its methods know."""
    listed = list(distribution.variables) if isinstance(distribution, tf.Module) else []
    read = [v for f in functions.values() for v in f.get_concrete_function().variables]
    held = list({id(v): v for v in (*listed, *read)}.values())
    return {"variables": held, "trainable_variables": [v for v in held if v.trainable]}
