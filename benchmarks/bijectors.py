"""Speed of the bijectors: `python benchmarks/bijectors.py`.

For each bijector, vector size D and length K: one evaluation of forward + log-det, of
inverse + log-det, and of the gradient of a density (inverse + log-det, by x and all parameters), on
a batch of 100 with parameters of their own for each example, as in an amortised posterior. Each
runs compiled by XLA, in turns with its rivals: a `tfb.Chain` of K single bijectors or TFP's own,
and `normflows` on PyTorch where that is installed (the `bench` extra; its parameters are shared by
the batch, which is less work). An autoregressive flow, which a MADE of 320 hidden units conditions,
is measured in the direction that takes `tfb.MaskedAutoregressiveFlow` D passes.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import os
from collections.abc import Callable, Iterator
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from tensorflow_probability import bijectors as tfb
from timing import alternate, as_row, write_results

from tfp_flowvae import bijectors as fvb
from tfp_flowvae.flows.conditioner import AutoregressiveConditioner
from tfp_flowvae.networks import MADE

BATCH = 100
SIZES, LENGTHS = (2, 40, 256), (1, 10, 80)
PARTS = ("forward", "inverse", "gradient")
# A chain of more parts takes XLA minutes to compile; that is what the stacks are for.
LONGEST_CHAIN = 10
OURS = "tfp_flowvae"

Builder = Callable[..., tfb.Bijector]


def _planar(u: tf.Tensor, w: tf.Tensor, b: tf.Tensor) -> tfb.Bijector:
    return fvb.PlanarFlow(u, w, b)


def _planar_chain(u: tf.Tensor, w: tf.Tensor, b: tf.Tensor) -> tfb.Bijector:
    steps = [fvb.Planar(u[:, k], w[:, k], b[:, k]) for k in range(u.shape[1])]
    return tfb.Chain(steps[::-1])


def _radial(center: tf.Tensor, w: tf.Tensor, beta: tf.Tensor) -> tfb.Bijector:
    return fvb.RadialFlow(center, tf.ones_like(beta), beta)


def _radial_chain(center: tf.Tensor, w: tf.Tensor, beta: tf.Tensor) -> tfb.Bijector:
    alpha = tf.ones_like(beta)
    steps = [fvb.Radial(center[:, k], alpha[:, k], beta[:, k]) for k in range(beta.shape[1])]
    return tfb.Chain(steps[::-1])


def _householder(v: tf.Tensor, w: tf.Tensor, b: tf.Tensor) -> tfb.Bijector:
    return fvb.HouseholderFlow(v)


def _householder_chain(v: tf.Tensor, w: tf.Tensor, b: tf.Tensor) -> tfb.Bijector:
    return tfb.Chain([tfb.Householder(v[:, k]) for k in range(v.shape[1])][::-1])


@functools.cache
def _conditioner(size: int) -> AutoregressiveConditioner:
    """A MADE whose weights are all random: it starts with an output of zero."""
    rng = np.random.default_rng(0)
    with tf.init_scope():
        made = MADE(size, hidden=(320,))
        made.build()
        for weight in made.weights:
            weight.assign(rng.normal(scale=0.5 / np.sqrt(weight.shape[0]), size=weight.shape))
    return AutoregressiveConditioner(made)


def _autoregressive(u: tf.Tensor, w: tf.Tensor, b: tf.Tensor) -> tfb.Bijector:
    return fvb.ParallelMaskedAutoregressiveFlow(_conditioner(u.shape[-1]))


def _autoregressive_loop(u: tf.Tensor, w: tf.Tensor, b: tf.Tensor) -> tfb.Bijector:
    return tfb.MaskedAutoregressiveFlow(_conditioner(u.shape[-1]))


CASES: dict[str, tuple[Builder, str, Builder]] = {
    "planar": (_planar, "chain of Planar", _planar_chain),
    "radial": (_radial, "chain of Radial", _radial_chain),
    "householder": (_householder, "chain of tfb.Householder", _householder_chain),
    "autoregressive": (_autoregressive, "tfb.MaskedAutoregressiveFlow", _autoregressive_loop),
}
# The one K and the parts of a case that is not measured in all: its other direction is TFP's own.
ONLY: dict[str, tuple[int, tuple[str, ...]]] = {"autoregressive": (1, ("forward",))}


def compiled(build: Builder, parameters: tuple[tf.Tensor, ...], x: tf.Tensor, part: str) -> Any:
    """A call without arguments that evaluates one part of a bijector, compiled by XLA."""

    @tf.function(jit_compile=True, autograph=False)
    def run(x: tf.Tensor, *parameters: tf.Tensor) -> Any:
        if part == "forward":
            return fvb.forward_and_log_det(build(*parameters), x)
        if part == "inverse":
            return fvb.inverse_and_log_det(build(*parameters), x)
        with tf.GradientTape() as tape:
            tape.watch((x, *parameters))
            z, log_det = fvb.inverse_and_log_det(build(*parameters), x)
            energy = tf.reduce_sum(log_det) - 0.5 * tf.reduce_sum(tf.square(z))
        return tape.gradient(
            energy, (x, *parameters), unconnected_gradients=tf.UnconnectedGradients.ZERO
        )

    return lambda: tf.nest.map_structure(lambda t: t.numpy(), run(x, *parameters))


def normflows_rival(name: str, size: int, length: int, x: np.ndarray, part: str) -> Any:
    """The same part in normflows, or None where it has none; it has no inverse of planar flows."""
    try:
        import normflows
        import torch
    except ImportError:
        return None
    kinds = {"planar": normflows.flows.Planar, "radial": normflows.flows.Radial}
    if name not in kinds or part != "forward":
        return None
    shape = (size,)
    steps = [kinds[name](shape) for _ in range(length)]
    inputs = torch.as_tensor(x)

    def run() -> None:
        z, total = inputs, torch.zeros(len(inputs))
        with torch.no_grad():
            for step in steps:
                z, log_det = step(z)
                total = total + log_det

    return run


def rows(cases: list[str], sizes: list[int], lengths: list[int]) -> Iterator[dict[str, Any]]:
    """One row for each case, size, length, part and rival, ours first."""
    rng = np.random.default_rng(0)
    for name, size, length in itertools.product(cases, sizes, lengths):
        build, rival_name, rival = CASES[name]
        only_length, parts = ONLY.get(name, (length, PARTS))
        if length != only_length:
            continue
        x = rng.normal(size=(BATCH, size)).astype(np.float32)
        scale = 1 / np.sqrt(size)
        parameters = tuple(
            tf.constant(rng.normal(scale=scale, size=(BATCH, length, *tail)), tf.float32)
            for tail in ((size,), (size,), ())
        )
        for part in parts:
            runs = {OURS: compiled(build, parameters, tf.constant(x), part)}
            if length <= LONGEST_CHAIN:
                runs[rival_name] = compiled(rival, parameters, tf.constant(x), part)
            torch_run = normflows_rival(name, size, length, x, part)
            if torch_run is not None:
                runs["normflows"] = torch_run
            timings = alternate(runs)
            ours = timings[OURS].minimum_ms
            for contender, timing in timings.items():
                yield {
                    "bijector": name,
                    "D": size,
                    "K": length,
                    "part": part,
                    "contender": contender,
                    "ours_over_it": round(ours / timing.minimum_ms, 3),
                    **as_row(timing),
                }


def main() -> None:
    """Prints the table and writes `benchmarks/results/bijectors.json`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--sizes", nargs="+", type=int, default=list(SIZES), metavar="D")
    parser.add_argument("--lengths", nargs="+", type=int, default=list(LENGTHS), metavar="K")
    arguments = parser.parse_args()
    head = (
        "bijector",
        "D",
        "K",
        "part",
        "contender",
        "first s",
        "min ms",
        "median",
        "max",
        "ratio",
    )
    layout = "{:14} {:>4} {:>3} {:9} {:29} {:>8} {:>9} {:>9} {:>9} {:>7}"
    print(layout.format(*head))
    done = []
    for row in rows(arguments.only, arguments.sizes, arguments.lengths):
        done.append(row)
        keys = ("bijector", "D", "K", "part", "contender", "first_s", "minimum_ms", "median_ms")
        print(layout.format(*(row[k] for k in (*keys, "maximum_ms", "ours_over_it"))), flush=True)
    path = write_results("bijectors", done, ("tensorflow", "tensorflow-probability", "torch"))
    print(f"\nratio: our fastest run over the contender's. Written to {path}.")


if __name__ == "__main__":
    main()
