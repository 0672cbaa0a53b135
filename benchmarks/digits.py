"""Free energy on the digits of every posterior and every prior: `python benchmarks/digits.py`.

Every posterior flow with the standard normal prior, every prior with no flow, and ten pairs, three
seeds each. `train.py --flow F --prior P --learning-rate 1e-3 --epochs E --seed S` repeats one, but
for rounding, which depends on the number of threads. Writes `results/digits.json` after each row
and the table `results/digits.md` at the end; a run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import time
from typing import TYPE_CHECKING, Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from timing import RESULTS, write_results

from tfp_flowvae.distributions import BASES
from tfp_flowvae.flows import FLOWS

if TYPE_CHECKING:
    from tfp_flowvae.models import FlowVAE

SEEDS = (0, 1, 2)
# Richer on both sides, or on the side that the single rows favour.
PAIRS = (
    ("none", "mixture+realnvp"),
    ("none", "vamp+realnvp"),
    ("planar", "realnvp"),
    ("householder", "realnvp"),
    ("sylvester", "realnvp"),
    ("realnvp", "realnvp"),
    ("iaf", "realnvp"),
    ("iaf", "maf"),
    ("householder:4+iaf:2", "mixture"),
    ("spline-iaf", "spline-maf"),
)


def table() -> list[dict[str, str]]:
    """What there is to train: posterior flow, its base, prior."""
    singles = [(name, "none") for name, entry in FLOWS.items() if entry.fast_sample]
    singles += [
        ("none", name) for name, entry in FLOWS.items() if entry.fast_density and name != "none"
    ]
    singles += [("none", name) for name, entry in BASES.items() if not entry.posterior]
    rows = [{"flow": f, "base": "normal", "prior": p} for f, p in (*singles, *PAIRS)]
    return [{"flow": "none", "base": "tril", "prior": "none"}, *rows]


def train(job: tuple[dict[str, str], int]) -> dict[str, Any]:
    """One row: its free energy on the test images, in nats per image, for each seed."""
    row, epochs = job
    from tfp_flowvae.data import load_images
    from tfp_flowvae.errors import NonFiniteError
    from tfp_flowvae.runs import TrainConfig
    from tfp_flowvae.runs.session import Session

    splits, found = load_images("digits"), []
    start, compiled = time.perf_counter(), None
    for seed in SEEDS:
        values = {**row, "epochs": epochs, "learning_rate": 1e-3, "seed": seed}
        values["diagnostics"] = False
        session = Session(TrainConfig.from_mapping(values, source="the row"), splits)
        # Compiling takes longer than training: the seeds share the first one's program.
        if compiled is not None:
            start_anew(compiled, session.model)
            session.model = compiled
        compiled = session.model
        try:
            session.fit(verbose=0)
            diverged = False
        except NonFiniteError:
            diverged = True
        found.append({**session.evaluate(), "diverged": diverged})
    energies = [metrics["test_free_energy"] for metrics in found]
    return {
        **row,
        "epochs": epochs,
        "test_free_energy": [round(value, 3) for value in energies],
        "mean": round(statistics.mean(energies), 3),
        "spread": round(max(energies) - min(energies), 3),
        "valid_mean": round(statistics.mean(m["valid_free_energy"] for m in found), 3),
        "kl_mean": round(statistics.mean(m["test_kl"] for m in found), 3),
        "diverged": any(m["diverged"] for m in found),
        "seconds": round(time.perf_counter() - start, 1),
    }


def start_anew(model: FlowVAE, fresh: FlowVAE) -> None:
    """Puts a trained model, with its compiled step, where a fresh one stands."""
    model.set_weights(fresh.get_weights())
    model.seed_generator.state.assign(fresh.seed_generator.state)
    for variable in model.optimizer.variables:
        variable.assign(variable * 0)


def one_thread_each(processes: int) -> None:
    """Shares the cores out among the workers."""
    import tensorflow as tf

    threads = max(1, (os.cpu_count() or 1) // processes)
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)


def write_table(rows: list[dict[str, Any]]) -> None:
    """The rows as Markdown, best first."""
    lines = [
        "| posterior | prior | test free energy | max - min | validation | KL |",
        "|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: row["mean"]):
        posterior = row["flow"] + (" (tril)" if row["base"] == "tril" else "")
        lines.append(
            f"| {posterior} | {row['prior']} | {row['mean']:.2f} | {row['spread']:.2f} "
            f"| {row['valid_mean']:.2f} | {row['kl_mean']:.2f} |"
        )
    (RESULTS / "digits.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    """Trains what `results/digits.json` does not have yet, and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=150, help="default: 150")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--fresh", action="store_true", help="train everything anew")
    arguments = parser.parse_args()
    path = RESULTS / "digits.json"
    kept = [] if arguments.fresh or not path.exists() else json.loads(path.read_text())["rows"]
    done = [row for row in kept if row["epochs"] == arguments.epochs]
    known = {(row["flow"], row["base"], row["prior"]) for row in done}
    missing = [row for row in table() if tuple(row.values()) not in known]
    context = multiprocessing.get_context("spawn")
    jobs = [(row, arguments.epochs) for row in missing]
    with context.Pool(
        arguments.processes, one_thread_each, (arguments.processes,), maxtasksperchild=4
    ) as pool:
        for row in pool.imap_unordered(train, jobs):
            done.append(row)
            print(
                f"{row['flow']:22} {row['base']:5} {row['prior']:18} {row['mean']:7.2f} "
                f"{row['test_free_energy']} {row['seconds']:6.0f} s",
                flush=True,
            )
            write_results("digits", done, ("tensorflow", "tensorflow-probability", "keras"))
    write_table(done)


if __name__ == "__main__":
    main()
