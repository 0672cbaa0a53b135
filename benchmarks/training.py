"""Speed of training, sampling and evaluation: `python benchmarks/training.py [part]`.

steps       milliseconds a step of `FlowVAE.fit` (an epoch with its validation over its steps),
            beside a hand-written XLA loop, PyTorch and pythae (the `bench` extra). Contenders take
            turns, an epoch each. `ratio` is our fastest epoch over the rival's; of the rivals
            pythae alone has a validation in it. `train` is the ratio of training alone.
first-step  seconds from the start of a process to the end of the first step, for every preset
sampling    images from the exported SavedModel in one call, for every prior
nll         seconds and memory of the importance-weighted negative log-likelihood

Everything goes to `results/training.json`; a part replaces those rows that it measures anew.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import training_first_step
import training_nll
import training_sampling
import training_steps
from timing import RESULTS, write_results
from training_cases import Options, Row

PACKAGES = ("tensorflow", "tensorflow-probability", "keras", "torch", "pythae")
_TITLES = {
    "first_s": "first s",
    "minimum_ms": "min ms",
    "median_ms": "median",
    "maximum_ms": "max",
    "training_ms": "train ms",
    "training_ratio": "train",
    "peak_mb": "peak MB",
    "grown_mb": "grown MB",
}


PARTS = {
    "steps": training_steps,
    "first-step": training_first_step,
    "sampling": training_sampling,
    "nll": training_nll,
}


def show_head(columns: Sequence[str]) -> None:
    """Prints the titles."""
    print(" ".join(_cell(column, _TITLES.get(column, column)) for column in columns), flush=True)


def show(row: Row, columns: Sequence[str]) -> None:
    """Prints one line of the table."""
    if "left_out" in row:
        cells = [_cell(column, row[column]) for column in columns[:2]]
        print(*cells, f"left out: {row['left_out']}", flush=True)
        return
    verdict = {None: "", True: "met", False: "missed"}[row.get("met")]
    shown = {**row, "met": verdict}
    print(" ".join(_cell(column, shown.get(column, "")) for column in columns), flush=True)


def _cell(column: str, value: Any) -> str:
    if isinstance(value, float):
        value = f"{value:.1%}" if column == "validation" else f"{value:.2f}"
    if column in ("name", "contender"):
        return f"{value:16}"
    return f"{value:>{max(len(_TITLES.get(column, column)), 8)}}"


def earlier_rows() -> list[Row]:
    """What earlier runs have written, of all parts."""
    path = RESULTS / "training.json"
    return json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []


def run(part: str, names: Sequence[str], resume: bool, options: Options) -> None:
    """Measures what was asked for, and writes the results after each name."""
    columns, rows = PARTS[part].COLUMNS, earlier_rows()
    done = {row["name"] for row in rows if row["part"] == part} if resume else set()
    show_head(columns)
    for name in names:
        if name in done:
            continue
        found = [{"part": part, **row} for row in PARTS[part].measure(name, options)]
        rows = [row for row in rows if (row["part"], row["name"]) != (part, name)] + found
        for row in found:
            show(row, columns)
        write_results("training", rows, PACKAGES)
    print(f"\nWritten to {RESULTS}/training.json.")


def main() -> None:
    """Prints the table and writes `benchmarks/results/training.json`."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", nargs="?", choices=PARTS, default="steps", help="default: steps")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="cases, presets or priors")
    parser.add_argument("--turns", type=int, help="default: 7, and 1 process for first-step")
    parser.add_argument(
        "--steps", type=int, help="steps an epoch, default: 500, and 100 for first-step"
    )
    parser.add_argument("--images", type=int, help="default: 10,000 for sampling, 500 for nll")
    parser.add_argument("--samples", type=int, default=5000, help="for nll; default: 5000")
    parser.add_argument("--dataset", help="for steps: as train.py's; default: synthetic images")
    parser.add_argument("--data-dir", metavar="DIR", help="as train.py's")
    parser.add_argument("--resume", action="store_true", help="leave out the names that have rows")
    arguments = parser.parse_args()
    known = PARTS[arguments.part].NAMES
    unknown = [name for name in arguments.only or () if name not in known]
    if unknown:
        parser.error(f"{arguments.part} knows {', '.join(known)}. Received: {' '.join(unknown)}.")
    with tempfile.TemporaryDirectory() as folder:
        given = ("steps", "turns", "images", "samples", "dataset", "data_dir")
        options = Options(Path(folder), **{name: getattr(arguments, name) for name in given})
        run(arguments.part, arguments.only or known, arguments.resume, options)


if __name__ == "__main__":
    main()
