"""Densities by `fit`: held-out log-likelihood and speed against zuko and normflows on PyTorch.

    python benchmarks/density.py              # every case; some half an hour on two cores
    python benchmarks/density.py --sizes 6    # one size

The same architecture, data, batches (in the same order), optimizer and number of steps for all. The
data's own density is known, so that the table shows how far each is from the optimum.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from density_rivals import RIVALS, set_threads
from timing import alternate, write_results

FLOWS = ("maf", "spline")
SIZES = (6, 64)
BATCH = 512
ROWS, HELD_OUT = 50_000, 10_000
RATE = 1e-3
_COMPONENTS = 6


def make_data(size: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of a known density: a bent and rotated mixture of normals.

        y ~ sum_k N(m_k, 0.6^2 I) / K,  u = y + tanh(2 y) / 2,  x = u Q,  Q orthogonal

    Returns:
      Training rows `[N, D]`, held-out rows `[M, D]`, both float32, and log p of the held-out rows
      `[M]`, in nats.
    """
    generator = np.random.default_rng(seed)
    means = generator.normal(0.0, 1.5, (_COMPONENTS, size))
    rotation, _ = np.linalg.qr(generator.normal(size=(size, size)))
    component = generator.integers(0, _COMPONENTS, ROWS + HELD_OUT)
    y = means[component] + 0.6 * generator.normal(size=(ROWS + HELD_OUT, size))
    x = (y + 0.5 * np.tanh(2.0 * y)) @ rotation
    held_out = y[ROWS:]
    squares = np.square((held_out[:, None] - means) / 0.6).sum(axis=-1)
    log_normals = -0.5 * squares - size * np.log(0.6 * np.sqrt(2.0 * np.pi))
    log_mixture = np.logaddexp.reduce(log_normals, axis=1) - np.log(_COMPONENTS)
    log_det = np.log1p(1.0 - np.square(np.tanh(2.0 * held_out))).sum(axis=1)
    x = x.astype(np.float32)
    return x[:ROWS], x[ROWS:], log_mixture - log_det


def make_batches(rows: np.ndarray, steps: int, seed: int) -> np.ndarray:
    """Batches `[S, B, D]` for all rivals: shuffled anew in each epoch, its odd rest left out."""
    generator = np.random.default_rng(seed)
    in_epoch = len(rows) // BATCH
    epochs = -(-steps // in_epoch)
    order = np.concatenate(
        [generator.permutation(len(rows))[: in_epoch * BATCH] for _ in range(epochs)]
    )
    return rows[order[: steps * BATCH]].reshape(steps, BATCH, -1)


def compare(flow: str, size: int, steps: int, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Trains every rival with every seed, then times steps and samples by turns."""
    rows, held_out, truth = make_data(size)
    mean, scale = rows.mean(axis=0), rows.std(axis=0)
    table = {name: [] for name in RIVALS}  # type: dict[str, list[np.ndarray]]
    trained = {}
    for seed in seeds:
        batches = make_batches(rows, steps, seed)
        for name, make in RIVALS.items():
            rival = make(flow, size, mean, scale, RATE, steps, seed)
            rival.train(batches)
            table[name].append(rival.log_prob(held_out))
            trained[name] = rival
            print(f"{flow} D={size} seed={seed} {name}: {table[name][-1].mean():.3f}", flush=True)
    batches = make_batches(rows, 50, 0)
    timed: dict[str, Callable[[], Any]] = {
        name: partial(rival.train, batches) for name, rival in trained.items()
    }
    step = alternate(timed, rounds=9, round_seconds=1.0)
    drawn = alternate({name: rival.sample for name, rival in trained.items()}, rounds=9)
    result = []
    for name, values in table.items():
        differences = np.mean(values, axis=0) - truth
        result.append(
            {
                "flow": flow,
                "D": size,
                "rival": name,
                "weights": trained[name].weights(),
                "steps": steps,
                "log_likelihood": [round(float(v.mean()), 4) for v in values],
                "below_truth": round(float(-differences.mean()), 4),
                "below_truth_se": round(float(differences.std() / np.sqrt(len(truth))), 4),
                "step_ms": round(step[name].minimum_ms / 50, 4),
                "sample_1000_ms": round(drawn[name].minimum_ms, 4),
            }
        )
    return result


def main() -> None:
    """Runs the cases asked for, prints the table and writes it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--flows", nargs="+", default=FLOWS, choices=FLOWS)
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES)
    parser.add_argument("--steps", type=int, default=3000, help="of training (default: 3000)")
    parser.add_argument("--seeds", nargs="+", type=int, default=(0, 1, 2))
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="(default: all cores)")
    arguments = parser.parse_args()
    set_threads(arguments.threads)
    rows: list[dict[str, Any]] = []
    for flow in arguments.flows:
        for size in arguments.sizes:
            found = compare(flow, size, arguments.steps, arguments.seeds)
            rows += [{**row, "threads": arguments.threads} for row in found]
            packages = ("tensorflow", "keras", "torch", "zuko", "normflows")
            path = write_results("density", rows, packages)
    print(to_markdown(rows))
    print(f"written to {path}")


def to_markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The table: log-likelihoods over seeds, and times as ratios to the faster PyTorch rival."""
    lines = [
        "| flow | D | | weights | log-likelihood | below the truth | step | of the best | "
        "sample 1000 | of the best |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        others = [
            r
            for r in rows
            if (r["flow"], r["D"]) == (row["flow"], row["D"]) and r["rival"] != "tfp_flowvae"
        ]
        ratios = [
            f"{row[key] / min((r[key] for r in others), default=row[key]):.2f}"
            for key in ("step_ms", "sample_1000_ms")
        ]
        likelihoods = row["log_likelihood"]
        spread = f" ({min(likelihoods):.3f} to {max(likelihoods):.3f})"
        lines.append(
            f"| {row['flow']}-5 | {row['D']} | {row['rival']} | {row['weights']} | "
            f"{np.mean(likelihoods):.3f}{spread} | {row['below_truth']:.3f} | "
            f"{row['step_ms']:.2f} ms | {ratios[0]} | {row['sample_1000_ms']:.2f} ms | "
            f"{ratios[1]} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
