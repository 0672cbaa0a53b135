"""A `FlowVAE` as files for LiteRT (TensorFlow Lite) and ONNX Runtime."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfp_flowvae import _endpoints
from tfp_flowvae._endpoints import Endpoint
from tfp_flowvae._files import folder_renamed_when_done
from tfp_flowvae.errors import UserError
from tfp_flowvae.models import FlowVAE
from tfp_flowvae.models.card import parts_of
from tfp_flowvae.models.names import NOISE_FUNCTIONS
from tfp_flowvae.saving.noise_functions import noise_functions

_OPSET = 17
# Two programs of some hundred operations agree to many more digits, wrong weights to none.
_SAME = 1e-3
_OPERATION = re.compile(r"'tf\.(\w+)' op")

Run = Callable[..., np.ndarray]


class _Format(NamedTuple):
    """A format.

    Attributes:
      title: Its name in sentences.
      packages: What has to be installed.
      convert: From a function's name, its endpoint and the model to the files' contents by the end
        of their names; the first one has float32 weights.
      runner: From a file's content and the function's name to a function of arrays by name.
    """

    title: str
    packages: tuple[str, ...]
    convert: Callable[[str, Endpoint, FlowVAE], dict[str, bytes]]
    runner: Callable[[bytes, str], Run]


def export_converted(
    vae: FlowVAE, path: str | Path, format: str, functions: Sequence[str] | None = None
) -> None:
    """Writes functions of a model, a file each, into a new folder.

    The functions draw no random numbers: noise is an argument.

        decode(z)               -> images     [B, H, W, C]  means of p(x|z)
        encode(x, e)            -> z          [B, D]        z ~ q(z|x) for e ~ N(0, I), [B, D]
        log_prior(z)            -> log_prior  [B]           nats
        sample_from_noise(e)    -> images     [B, H, W, C]  means of p(x|z), z ~ p(z)
        sample_from_noise(e, u)                             the same for a mixture, u ~ U[0, 1), [B]

    Those of a model with classes or a context take `label` or `context` too, see `noise_functions`.

    "litert" writes `NAME.tflite` with float32 weights and `NAME.int8.tflite` with int8 weights, of
    TensorFlow Lite's own operations alone; "onnx" writes `NAME.onnx`. The batch may have any size
    if the converter can do that, otherwise it is 1. Every float32 file is run once, and compared
    with the model. docs/devices.md says which flows convert to which format.

    Args:
      vae: The model.
      path: The folder, which must not exist.
      format: "litert" or "onnx".
      functions: Names of functions; None for all that can be converted, with a warning that names
        the others.

    Raises:
      UserError: If the format is unknown, its packages are not installed, the folder exists or
        cannot be written, or a function of `functions` cannot be converted.
    """
    path, how = Path(path), _format_of(format)
    if not isinstance(vae, FlowVAE):
        raise UserError(f"Only a FlowVAE can be exported to {how.title}. Received: {vae!r}.")
    if path.exists():
        raise UserError(f"{str(path)!r} exists; choose another path, or remove it.")
    chosen = NOISE_FUNCTIONS if functions is None else tuple(functions)
    for name in set(chosen) - set(NOISE_FUNCTIONS):
        raise UserError(
            f"Functions must be among {', '.join(NOISE_FUNCTIONS)}. Received: {name!r}."
        )
    contents: dict[str, bytes] = {}
    for name in chosen:
        try:
            contents |= _converted(name, vae, how)
        except _CannotConvertError as error:
            if functions is not None:
                raise UserError(f"{error}; leave it out.") from error
            warnings.warn(f"{error}; it is left out.", stacklevel=2)
    if not contents:
        raise UserError(f"{how.title} can convert no function of this model.")
    try:
        with folder_renamed_when_done(path) as aside:
            aside.mkdir()
            for name, content in contents.items():
                (aside / name).write_bytes(content)
    except OSError as error:
        raise UserError(f"Cannot write {str(path)!r}: {error.strerror}.") from error


class _CannotConvertError(Exception):
    """A function cannot be converted; the message is a clause that says why."""


def _format_of(format: str) -> _Format:
    if format not in FORMATS:
        raise UserError(f"The format must be {' or '.join(FORMATS)}. Received: {format!r}.")
    missing = [name for name in FORMATS[format].packages if find_spec(name) is None]
    if missing:
        raise UserError(
            f"The format {format!r} needs {' and '.join(missing)}, which is not installed: "
            f"pip install 'tfp-flowvae[{format}]'."
        )
    return FORMATS[format]


def _converted(name: str, vae: FlowVAE, how: _Format) -> dict[str, bytes]:
    """The contents of a function's files by name, with a batch of any size or else of 1."""
    for batch_size in (None, 1):
        endpoint = noise_functions(vae, batch_size)[name]
        try:
            with _silence():
                files = how.convert(name, endpoint, vae)
                found = how.runner(next(iter(files.values())), name)
                difference = _difference(endpoint, found)
        except Exception as error:  # of whatever type a converter has for what it cannot do
            failure = error
            continue
        if difference > _SAME:
            raise _CannotConvertError(
                f"{how.title} computes other numbers for {name} of {_part(name, vae)}"
            )
        return {f"{name}{end}": content for end, content in files.items()}
    raise _CannotConvertError(
        f"{how.title} cannot convert {name} of {_part(name, vae)}: {_reason(failure)}"
    ) from failure


def _difference(endpoint: Endpoint, run: Run) -> float:
    """The largest difference of the results for a batch of 1 beside the largest result."""
    rng = np.random.default_rng(0)
    inputs = {
        spec.name: rng.uniform(size=[1, *spec.shape[1:]]).astype(spec.dtype.as_numpy_dtype)
        for spec in endpoint.signature
    }
    (wanted,) = endpoint.function(*map(tf.constant, inputs.values())).values()
    return float(np.max(np.abs(run(**inputs) - wanted)) / np.max(np.abs(wanted)))


def _part(name: str, vae: FlowVAE) -> str:
    """The part of the model that a function depends on, in words."""
    if name == "decode":
        return f"the decoder {vae.decoder.name!r}"
    layer, kind = (
        (vae.posterior_layer, "posterior") if name == "encode" else (vae.prior_layer, "prior")
    )
    return f"the {kind} {parts_of(layer)!r}"


def _reason(error: Exception) -> str:
    if isinstance(error, NotImplementedError):
        return str(error)
    found = set(_OPERATION.findall(str(error)))
    if found:
        return _no_operation(found)
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip(".")


def _no_operation(names: set[str]) -> str:
    return f"it has no operation for TensorFlow's {', '.join(sorted(names))}"


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Drops what the process writes to stderr: converters write pages for each failure."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nothing:
            os.dup2(nothing.fileno(), 2)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)


def _to_litert(name: str, endpoint: Endpoint, vae: FlowVAE) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        function = _endpoints.as_function(endpoint)
        held = {"variables": [variable.value for variable in vae.variables]}
        _endpoints.save(folder, {name: function}, held)
        files = {}
        for end, optimizations in ((".tflite", []), (".int8.tflite", [tf.lite.Optimize.DEFAULT])):
            converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=[name])
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
            converter.optimizations = optimizations
            files[end] = converter.convert()
    return files


def _run_litert(content: bytes, name: str) -> Run:
    from ai_edge_litert.interpreter import Interpreter

    run = Interpreter(model_content=content).get_signature_runner(name)
    return lambda **inputs: next(iter(run(**inputs).values()))


def _to_onnx(name: str, endpoint: Endpoint, vae: FlowVAE) -> dict[str, bytes]:
    import onnx
    import tf2onnx

    model, _ = tf2onnx.convert.from_function(
        _endpoints.as_function(endpoint), input_signature=endpoint.signature, opset=_OPSET
    )
    # tf2onnx leaves operations that it does not know as they are.
    unknown = {name for name in _operations(model.graph) if not onnx.defs.has(name)}
    if unknown:
        raise NotImplementedError(_no_operation(unknown))
    return {".onnx": model.SerializeToString()}


def _operations(graph: Any) -> Iterator[str]:
    """The names of the operations of an ONNX graph and of the graphs in it."""
    for node in graph.node:
        yield node.op_type
        for attribute in node.attribute:
            yield from _operations(attribute.g)


def _run_onnx(content: bytes, name: str) -> Run:
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return lambda **inputs: session.run(None, inputs)[0]


FORMATS = {
    "litert": _Format("LiteRT", ("ai_edge_litert",), _to_litert, _run_litert),
    "onnx": _Format("ONNX", ("tf2onnx", "onnxruntime"), _to_onnx, _run_onnx),
}
"""The formats that `export_converted` writes, by name."""
