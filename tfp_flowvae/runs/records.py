"""The files in which a run records its numbers: metrics.json, history.csv and run.json."""

from __future__ import annotations

import csv
import json
import os
import shlex
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from tfp_flowvae._version import __version__
from tfp_flowvae.runs.folder import RECORD

METRICS, HISTORY = "metrics.json", "history.csv"

try:
    import resource
except ImportError:  # Windows has none.
    resource = None  # type: ignore[assignment]


def peak_memory_mib() -> int | None:
    """Returns the peak memory of this process, in MiB; None where the system does not tell it."""
    if resource is None:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / 2**20 if sys.platform == "darwin" else peak / 2**10)


def read_json(file: Path) -> dict[str, Any]:
    """Returns the content of a JSON file of a run; empty if there is none."""
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def is_of_density(config: Mapping[str, Any]) -> bool:
    """Whether the command `density` wrote a config.json with this content."""
    return "data" in config


def read_history(file: Path) -> dict[str, np.ndarray]:
    """Returns the columns of history.csv, float64 `[epochs]` each; empty if there is none."""
    if not file.is_file():
        return {}
    with file.open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    return {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}


def write_records(
    folder: Path, metrics: dict[str, float], rows: list[dict[str, float]], record: dict[str, Any]
) -> None:
    """Writes metrics.json, history.csv and run.json."""
    _write_json(folder / METRICS, metrics)
    with (folder / HISTORY).open("w", newline="", encoding="utf-8") as file:
        # A run that is resumed with --clip-norm has one column more from there on.
        names = dict.fromkeys(name for row in rows for name in row)
        writer = csv.DictWriter(file, fieldnames=list(names), restval="nan")
        writer.writeheader()
        writer.writerows(rows)
    _write_json(folder / RECORD, record)


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def run_record(epochs: int, started: float, seconds: float, **data: Any) -> dict[str, Any]:
    """Returns the content of run.json: facts that may differ when a run is repeated.

    Args:
      epochs: How many epochs were trained.
      started: When the run first began, in seconds since 1970.
      seconds: How long the run took, summed over its resumed parts.
      **data: What describes the data, by name.
    """
    packages = ("tensorflow", "tensorflow-probability", "keras", "numpy")
    return {
        "started": datetime.fromtimestamp(started, UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 2),
        "epochs": epochs,
        "peak_memory_mib": peak_memory_mib(),
        "command": shlex.join([os.path.basename(sys.argv[0]), *sys.argv[1:]]),
        **data,
        "python": sys.version.split()[0],
        "packages": {"tfp_flowvae": __version__} | {p: version(p) for p in packages},
    }
