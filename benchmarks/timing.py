"""Timing by alternation: every rival runs in turn, many times, and the fastest runs are compared.

Timings on a shared machine drift and jump between two levels; what ran in the same second under
the same load can be compared, and the fastest of many runs is the steadiest figure.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Timing:
    """Milliseconds a call, over rounds of calls, and the first call's (compilation) seconds."""

    first_s: float
    minimum_ms: float
    median_ms: float
    maximum_ms: float


def alternate(
    rivals: Mapping[str, Callable[[], Any]], rounds: int = 7, round_seconds: float = 0.05
) -> dict[str, Timing]:
    """Times each rival in turn, `rounds` times, each time for about `round_seconds`.

    Args:
      rivals: By name; calling one must return when its work is done.
      rounds: How often each gets its turn.
      round_seconds: How long a turn lasts, by repeating the call.
    """
    first, calls = {}, {}
    for name, run in rivals.items():
        first[name] = _seconds(run, 1)
        once = min(_seconds(run, 1) for _ in range(3))
        calls[name] = max(1, round(round_seconds / once))
    samples: dict[str, list[float]] = {name: [] for name in rivals}
    for _ in range(rounds):
        for name, run in rivals.items():
            samples[name].append(1e3 * _seconds(run, calls[name]) / calls[name])
    return {
        name: Timing(first[name], min(ms), statistics.median(ms), max(ms))
        for name, ms in samples.items()
    }


def _seconds(run: Callable[[], Any], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        run()
    return time.perf_counter() - start


def machine(packages: Sequence[str]) -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in packages},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def write_results(name: str, rows: Sequence[Mapping[str, Any]], packages: Sequence[str]) -> Path:
    """Writes the rows, and what they were measured on, to `benchmarks/results/<name>.json`."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    aside = path.with_suffix(".partial")
    content = {"machine": machine(packages), "rows": list(rows)}
    aside.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    aside.replace(path)
    return path


def as_row(timing: Timing) -> dict[str, float]:
    """The timing's numbers, rounded for a table."""
    return {name: round(value, 4) for name, value in asdict(timing).items()}
