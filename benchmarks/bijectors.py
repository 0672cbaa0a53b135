"""Speed of the bijectors: `python benchmarks/bijectors.py`.

For each family, vector size D and length K: one evaluation of forward + log-det, of
inverse + log-det, and of the gradient of a density (inverse + log-det, by x and all parameters), on
a batch of 100. Each runs compiled by XLA (a plain graph where XLA lacks an operation), in turns
with its rivals: TFP's own bijector, a `tfb.Chain` of K single ones, or the formula taken literally;
and `normflows` on PyTorch where that is installed (the `bench` extra).

Steps and Sylvester flows have parameters of their own for each example, as in an amortised
posterior (not in normflows, which shares them: less work); those of the others are shared. The
networks of couplings and the MADEs have 320 hidden units, splines 8 bins; Sylvester's M is 8 or D
where it is free. Forward is the direction in which `tfb.MaskedAutoregressiveFlow` takes D passes.

The table is written to `results/bijectors.json` after each combination; `--resume` keeps what is
there and goes on.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from bijector_cases import BATCH, CASES, FORWARD, INVERSE, Builder
from normflows_rivals import normflows_rival
from timing import RESULTS, alternate, as_row, write_results

from tfp_flowvae import bijectors as fvb

SIZES, LENGTHS = (2, 40, 256), (1, 10, 80)
OURS = "tfp_flowvae"
PACKAGES = ("tensorflow", "tensorflow-probability", "torch", "normflows")
KEYS = ("bijector", "D", "K", "part")
LAYOUT = "{:21} {:>4} {:>3} {:9} {:29} {:>8} {:>9} {:>9} {:>9} {:>7}"
HEAD = (*KEYS, "contender", "first s", "min ms", "median", "max", "ratio")
SHOWN = (*KEYS, "contender", "first_s", "minimum_ms", "median_ms", "maximum_ms", "ours_over_it")

Row = dict[str, Any]


def compiled(
    build: Builder, parameters: Sequence[tf.Tensor], x: tf.Tensor, part: str, xla: bool = True
) -> Callable[[], Any]:
    """A call without arguments that evaluates one part of a bijector, compiled by XLA or not."""

    @tf.function(jit_compile=xla, autograph=False)
    def run(x: tf.Tensor, *parameters: tf.Tensor) -> Any:
        if part == FORWARD:
            return fvb.forward_and_log_det(build(*parameters), x)
        if part == INVERSE:
            return fvb.inverse_and_log_det(build(*parameters), x)
        with tf.GradientTape() as tape:
            tape.watch((x, *parameters))
            bijector = build(*parameters)
            z, log_det = fvb.inverse_and_log_det(bijector, x)
            energy = tf.reduce_sum(log_det) - 0.5 * tf.reduce_sum(tf.square(z))
        sources = (x, *parameters, *bijector.trainable_variables)
        return tape.gradient(energy, sources, unconnected_gradients=tf.UnconnectedGradients.ZERO)

    return lambda: tf.nest.map_structure(lambda t: t.numpy(), run(x, *parameters))


def measure(name: str, size: int, length: int, part: str, how: dict[str, Any]) -> list[Row]:
    """The rows of one combination, ours first; a rival that was left out has a row that says so."""
    case, rng = CASES[name], np.random.default_rng(0)
    points = rng.normal(size=(BATCH, size)).astype(np.float32)
    parameters = case.draw(
        lambda *shape: tf.constant(rng.normal(size=shape), tf.float32), size, length
    )
    x = tf.constant(points)
    runs, left_out = {OURS: compiled(case.build, parameters, x, part)}, {}
    for rival in case.rivals:
        if part not in rival.parts:
            continue
        if length > rival.longest:
            left_out[rival.name] = f"XLA would compile it for minutes (K > {rival.longest})"
        else:
            runs[rival.name] = compiled(rival.build, parameters, x, part, rival.xla)
    torch_run = normflows_rival(name, size, length, points, part)
    if torch_run is not None:
        runs["normflows"] = torch_run
    timings = alternate(runs, **how)
    here = dict(zip(KEYS, (name, size, length, part), strict=True))
    ours = timings[OURS].minimum_ms
    return [
        *(
            {
                **here,
                "contender": contender,
                "ours_over_it": round(ours / timing.minimum_ms, 3),
                **as_row(timing),
            }
            for contender, timing in timings.items()
        ),
        *({**here, "contender": rival, "left_out": why} for rival, why in left_out.items()),
    ]


def combinations(
    names: Sequence[str], sizes: Sequence[int], lengths: Sequence[int]
) -> Iterator[tuple[str, int, int, str]]:
    """All that there is to measure of what was asked for."""
    for name, size, length in itertools.product(names, sizes, lengths):
        if length in CASES[name].lengths and size <= CASES[name].largest:
            yield from ((name, size, length, part) for part in CASES[name].parts)


def show(row: Row) -> None:
    """Prints one line of the table."""
    if "left_out" in row:
        cells = [row[key] for key in (*KEYS, "contender")]
        print(LAYOUT.format(*cells, *[""] * 5).rstrip(), f"left out: {row['left_out']}", flush=True)
    else:
        print(LAYOUT.format(*(row[key] for key in SHOWN)), flush=True)


def earlier_rows() -> list[Row]:
    """What an earlier run has written."""
    path = RESULTS / "bijectors.json"
    return json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []


def main() -> None:
    """Prints the table and writes `benchmarks/results/bijectors.json`."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--sizes", nargs="+", type=int, default=list(SIZES), metavar="D")
    parser.add_argument("--lengths", nargs="+", type=int, default=list(LENGTHS), metavar="K")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each contender")
    parser.add_argument("--seconds", type=float, default=0.02, help="how long a turn lasts")
    parser.add_argument("--resume", action="store_true", help="keep the rows that are there")
    arguments = parser.parse_args()
    how = {"rounds": arguments.rounds, "round_seconds": arguments.seconds}
    rows = earlier_rows() if arguments.resume else []
    done = {tuple(row[key] for key in KEYS) for row in rows}
    print(LAYOUT.format(*HEAD))
    for combination in combinations(arguments.only, arguments.sizes, arguments.lengths):
        if combination in done:
            continue
        found = measure(*combination, how)
        rows += found
        for row in found:
            show(row)
        write_results("bijectors", rows, PACKAGES)
    print(f"\nratio: our fastest run over the contender's. Written to {RESULTS}/bijectors.json.")


if __name__ == "__main__":
    main()
