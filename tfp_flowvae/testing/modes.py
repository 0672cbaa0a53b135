"""Properties of the same computation run eagerly, as a graph, by XLA, and from disk."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from tfp_flowvae.testing.compare import assert_close, assert_finite
from tfp_flowvae.testing.subject import Side, Subject, batch_of, fresh

Outputs = dict[str, tf.Tensor]


def outputs(subject: Subject, x: tf.Tensor, y: tf.Tensor, gradients: bool = True) -> Outputs:
    """Values, log-dets and, on request, gradients of a fixed weighted sum of both.

    Every method gets its own copy of its point, so that none finds another's result in TFP's cache.
    """
    results: Outputs = {}
    for side, point in zip(subject.sides, (x, y), strict=True):
        variables = list(subject.bijector.trainable_variables)
        with tf.GradientTape() as tape:
            tape.watch(point)
            value, log_det = side.apply(tf.identity(point)), side.log_det(tf.identity(point))
            loss = _weighted(value, subject.seed) + _weighted(log_det, subject.seed + 1)
        results[side.name], results[side.log_det_name] = value, log_det
        if not gradients:
            continue
        zero = tf.UnconnectedGradients.ZERO
        found = tape.gradient(loss, [point, *variables], unconnected_gradients=zero)
        source = "x" if side.name == "forward" else "y"
        names = [source, *(f"variable {v.name!r}" for v in variables)]
        for i, (name, gradient) in enumerate(zip(names, found, strict=True)):
            # The index keeps two variables of one name apart.
            label = f"gradient {i} of {side.name} and its log-det with respect to {name}"
            results[label] = tf.convert_to_tensor(gradient)
    return results


def _weighted(value: tf.Tensor, seed: int) -> tf.Tensor:
    """The sum of `value` with weights that are drawn once per shape, so that none cancel."""
    weights = np.random.default_rng(seed).uniform(0.5, 1.5, value.shape.as_list())
    return tf.reduce_sum(value * tf.constant(weights, value.dtype))


def finite_gradients(subject: Subject) -> None:
    """Gradients of value and log-det, with respect to points and variables, are finite."""
    for label, got in outputs(subject, fresh(subject.x), fresh(subject.y)).items():
        assert_finite(label, got.numpy())


def graph(subject: Subject) -> None:
    """`tf.function` gives the eager numbers, gradients included."""
    _compare_compiled(subject, "graph", jit_compile=False)


def xla(subject: Subject) -> None:
    """`tf.function(jit_compile=True)` gives the eager numbers, gradients included."""
    _compare_compiled(subject, "xla", jit_compile=True)


def _compare_compiled(subject: Subject, name: str, jit_compile: bool) -> None:
    x, y = fresh(subject.x), fresh(subject.y)
    traced = tf.function(lambda x, y: outputs(subject, x, y), jit_compile=jit_compile)
    compiled = traced.get_concrete_function(_spec(x), _spec(y))
    _compare(subject, name, compiled(x, y), outputs(subject, x, y))


def _spec(value: tf.Tensor, batch_ndims: int = 0) -> tf.TensorSpec:
    """The type of `value`, its first `batch_ndims` dimensions unknown."""
    return tf.TensorSpec([None] * batch_ndims + value.shape.as_list()[batch_ndims:], value.dtype)


def _compare(subject: Subject, name: str, got: Outputs, wanted: Outputs) -> None:
    slack = dict(_slack(subject))
    for label, value in wanted.items():
        kind = "value" if label in ("forward", "inverse") else "log_det"
        if label.startswith("gradient"):
            kind = "gradient"
        tolerance = subject.tolerance(name, kind)
        allowed = slack.get(label, tolerance.rtol * float(np.max(np.abs(value), initial=0.0)))
        assert_close(
            f"{label}, {name} against eager", got[label].numpy(), value.numpy(), tolerance, allowed
        )


def _slack(subject: Subject) -> Iterator[tuple[str, float]]:
    """What rounding may cost the values and the log-dets, at the worst of the points."""
    matrices = (subject.forward_jacobian, subject.inverse_jacobian)
    for (side, point), matrix in zip(subject.points(), matrices, strict=True):
        noise = subject.rounding(matrix, point, side.apply(fresh(point)), side)
        yield side.name, float(np.max(noise.value))
        yield side.log_det_name, float(np.max(noise.log_det))


def dynamic_shape(subject: Subject) -> None:
    """With batch dimensions unknown to the trace, one trace serves any number of samples."""
    functions = [_dynamic(*parts).get_concrete_function() for parts in _methods(subject)]
    # The last sample alone: a result remembered from the trace, or from before, has another shape.
    cuts = [slice(None), slice(-1, None)] if subject.sample_axis else [slice(None)]
    for cut in cuts:
        got, wanted = {}, {}
        for (side, method, point), function in zip(_methods(subject), functions, strict=True):
            label = side.name if method is side.apply else side.log_det_name
            part = fresh(point[cut]) if subject.sample_axis else fresh(point)
            got[label], wanted[label] = function(part), method(fresh(part))
        _compare(subject, "dynamic_shape", got, wanted)


def _methods(subject: Subject) -> list[tuple[Side, Callable[[tf.Tensor], tf.Tensor], tf.Tensor]]:
    return [
        (side, method, point)
        for side, point in subject.points()
        for method in (side.apply, side.log_det)
    ]


def _dynamic(
    side: Side, method: Callable[[tf.Tensor], tf.Tensor], point: tf.Tensor
) -> tf.types.experimental.PolymorphicFunction:
    """`method` as a function of points whose batch dimensions are unknown."""
    spec = _spec(point, len(batch_of(point, side.in_ndims)))
    return tf.function(method, input_signature=[spec])


def saved_model(subject: Subject) -> None:
    """Both values and both log-dets survive `tf.saved_model.save` and `load`."""
    module = tf.Module()
    module.bijector = subject.bijector
    module.functions = [_dynamic(*parts) for parts in _methods(subject)]
    # A variable that the bijector reads but does not list would stop the export; that it is not
    # listed is what the property `variables` says.
    module.held = [f.get_concrete_function().variables for f in module.functions]
    with tempfile.TemporaryDirectory(prefix="check_bijector_") as folder:
        tf.saved_model.save(module, folder)
        loaded = tf.saved_model.load(folder)
        got, wanted = {}, {}
        for (side, method, point), function in zip(
            _methods(subject), loaded.functions, strict=True
        ):
            label = side.name if method is side.apply else side.log_det_name
            got[label], wanted[label] = function(fresh(point)), method(fresh(point))
    _compare(subject, "saved_model", got, wanted)
