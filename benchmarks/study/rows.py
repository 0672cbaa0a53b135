"""The rows of the tables: runs that differ by their seed alone, with the results that there are."""

from __future__ import annotations

import statistics
from pathlib import Path

import numpy as np

from .plan import RUNS, Run
from .store import read_per_image, read_result

NOTHING = "–"


class Row:
    """The runs that differ by their seed alone, with the results that there are.

    Attributes:
      run: One of the runs.
      results: By seed, those that are there and did not fail.
      failures: What the failed ones say.
    """

    def __init__(self, runs: list[Run], folder: Path) -> None:
        self.run, self._folder = runs[0], folder
        found = {run.seed: read_result(run.name, folder) for run in runs}
        self._names = {run.seed: run.name for run in runs}
        self.results = {s: r for s, r in found.items() if r is not None and not r["failed"]}
        self.failures = [r["failed"] for r in found.values() if r is not None and r["failed"]]

    @property
    def flow(self) -> str:
        """The posterior's flow, without what all rows have."""
        return self.run.flow.removesuffix(",hidden=320")

    def mean(self, key: str) -> float | None:
        """The mean of a figure over the seeds; None where there are none."""
        values = [result[key] for result in self.results.values()]
        return statistics.mean(values) if values else None

    def cell(self, key: str, digits: int = 2) -> str:
        """The mean over the seeds and, of several, the standard deviation."""
        values = [result[key] for result in self.results.values()]
        if not values:
            return "diverged" if self.failures else NOTHING
        text = f"{statistics.mean(values):.{digits}f}"
        return text + (f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else "")

    def differences(self, other: Row, key: str) -> np.ndarray:
        """Of each test image, this row's value less the other's, its mean over the seeds of both.

        Returns:
          `[N]` in nats, or `[0]` where no seed has both.
        """
        found = []
        for seed in sorted(set(self.results) & set(other.results)):
            mine = read_per_image(self._names[seed], self._folder)[key]
            found.append(mine - read_per_image(other._names[seed], other._folder)[key])
        return np.mean(found, axis=0) if found else np.zeros(0)


def rows(part: str, label: str | None, folder: Path) -> list[Row]:
    """The rows of a part, in the order of the plan; `label` None for any."""
    groups: dict[tuple[str, ...], list[Run]] = {}
    for run in RUNS:
        if run.part == part and label in (None, run.label):
            groups.setdefault((run.label, run.flow, run.prior), []).append(run)
    return [Row(runs, folder) for runs in groups.values()]
