"""Properties of the same computation run eagerly, as a graph, by XLA, and from disk."""

from __future__ import annotations

import tempfile

import numpy as np
import tensorflow as tf

from tfp_flowvae.testing.compare import assert_close, assert_finite
from tfp_flowvae.testing.subject import Subject, fresh

Outputs = dict[str, tf.Tensor]


def outputs(subject: Subject, x: tf.Tensor, y: tf.Tensor) -> Outputs:
    """Values, log-dets, and the gradients of a fixed weighted sum of both.

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
        zero = tf.UnconnectedGradients.ZERO
        found = tape.gradient(loss, [point, *variables], unconnected_gradients=zero)
        names = [side.source, *(f"variable {v.name!r}" for v in variables)]
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
    compiled = traced.get_concrete_function(*(tf.TensorSpec(p.shape, p.dtype) for p in (x, y)))
    _compare(subject, name, compiled(x, y), outputs(subject, x, y))


def _compare(subject: Subject, name: str, got: Outputs, wanted: Outputs) -> None:
    # What rounding may cost the values and the log-dets, at the worst of the points.
    slack = {}
    for part in subject.evaluations:
        slack[part.side.name] = float(np.max(part.noise.value))
        slack[part.side.log_det_name] = float(np.max(part.noise.log_det))
    for label, value in wanted.items():
        kind = "value" if label in ("forward", "inverse") else "log_det"
        if label.startswith("gradient"):
            kind = "gradient"
        tolerance = subject.tolerance(name, kind)
        allowed = slack.get(label, tolerance.rtol * float(np.max(np.abs(value), initial=0.0)))
        assert_close(
            f"{label}, {name} against eager", got[label].numpy(), value.numpy(), tolerance, allowed
        )


def dynamic_shape(subject: Subject) -> None:
    """With batch dimensions unknown to the trace, one trace serves any number of samples."""
    # The last sample alone: a result remembered from the trace, or from before, has another shape.
    for cut in (slice(None), slice(-1, None)) if subject.sample_axis else (...,):
        got, wanted = {}, {}
        for method in subject.methods:
            part = fresh(method.point[cut])
            # Asked for by its one signature: traced once, and no retracing for TF to warn of.
            got[method.name] = method.traced.get_concrete_function()(part)
            wanted[method.name] = method.call(fresh(part))
        _compare(subject, "dynamic_shape", got, wanted)


def saved_model(subject: Subject) -> None:
    """Both values and both log-dets survive `tf.saved_model.save` and `load`."""
    module = tf.Module()
    module.bijector = subject.bijector
    module.functions = [method.traced for method in subject.methods]
    # A variable that the bijector reads but does not list would stop the export; the property
    # `variables` reports it.
    module.held = [f.get_concrete_function().variables for f in module.functions]
    with tempfile.TemporaryDirectory(prefix="check_bijector_") as folder:
        tf.saved_model.save(module, folder)
        loaded = tf.saved_model.load(folder)
        got, wanted = {}, {}
        for method, function in zip(subject.methods, loaded.functions, strict=True):
            got[method.name] = function(fresh(method.point))
            wanted[method.name] = method.call(fresh(method.point))
    _compare(subject, "saved_model", got, wanted)
