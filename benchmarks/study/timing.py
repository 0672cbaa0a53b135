"""The seconds of an epoch of runs that are compared at equal cost.

Taken in turn on a machine that does nothing else: the study's own runs share theirs with whatever
there is, so their times say little.
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from .plan import Run
from .runner import ROOT

_EPOCHS, _ROUNDS = 4, 2


def fastest_epochs(runs: Iterable[Run]) -> dict[str, float]:
    """The seconds of the fastest epoch of each run, by its name, on one core."""
    runs = list(runs)
    found = {run.name: float("inf") for run in runs}
    for _ in range(_ROUNDS):
        for run in runs:
            found[run.name] = min(found[run.name], *_seconds(run))
            print(f"{run.name}: {found[run.name]:.2f} s", flush=True)
    return {name: round(seconds, 3) for name, seconds in found.items()}


def _seconds(run: Run) -> list[float]:
    """The seconds of each epoch of a short run."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(ROOT)}
    environment |= {f"TF_NUM_{kind}_THREADS": "1" for kind in ("INTRAOP", "INTEROP")}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "run"
        options = ["--epochs", str(_EPOCHS), "--no-report", "--output", str(folder)]
        subprocess.run(
            [sys.executable, *run.program, *run.arguments(), *options, "--verbose", "0"],
            cwd=ROOT,
            env=environment,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        with (folder / "history.csv").open(newline="", encoding="utf-8") as file:
            return [float(row["seconds"]) for row in csv.DictReader(file)]
