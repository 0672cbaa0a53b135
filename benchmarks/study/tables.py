"""The tables of `docs/study.md`, made from the results alone.

The page holds `<!-- NAME -->` and, on a line of its own further down, `<!-- end -->`: what lies
between is replaced by the table of that name.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np

from .plan import RUNS, START, Run
from .store import RESULTS, read_optima, read_per_image, read_result

# Test free energies of Henrion & Welleck's Table 1: static MNIST, 2000 epochs.
THEIRS: Mapping[str, float] = {
    "none": 94.8,
    "planar:1": 96.6,
    "planar:2": 97.1,
    "planar:10": 103.5,
    "iaf:1": 94.0,
    "iaf:2": 93.5,
    "iaf:10": 93.6,
    "householder:1": 95.1,
    "householder:2": 95.2,
    "householder:10": 95.3,
}
_FIGURES = ("train_free_energy", "valid_free_energy", "test_free_energy", "test_nll")
_NOTHING = "–"


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
            return "diverged" if self.failures else _NOTHING
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


def table(head: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    """Markdown."""
    head = list(head)
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, ["---"] * len(head), *lines))


def tuning(folder: Path) -> str:
    """What the tuning tried, best first: the validation images' figures alone."""
    tried = rows("tuning", None, folder)
    done = sorted(
        (row for row in tried if row.results), key=lambda row: row.mean("valid_free_energy") or 0.0
    )
    lines = []
    for row in [*done, *(row for row in tried if not row.results)]:
        changed = {k: v for k, v in row.run.options.items() if START.get(k, v) != v}
        changed |= {
            k: row.run.options[k]
            for k in ("input_dropout", "weight_decay", "ema")
            if k in row.run.options
        }
        words = ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in changed.items())
        lines.append(
            [words or "the start", row.cell("train_free_energy"), row.cell("valid_free_energy")]
        )
    return table(["what differs from the start", "train", "valid"], lines)


def _table_1_rows(folder: Path) -> list[Row]:
    found = [r for r in rows("A", "", folder) if not r.run.flow.startswith("unconstrained")]
    families = ("none", "planar", "iaf", "householder")

    def order(row: Row) -> tuple[int, int]:
        family, _, length = row.flow.partition(":")
        return families.index(family), int(length or 0)

    return sorted(found, key=order)


def table_1(folder: Path) -> str:
    """Table 1 anew, beside the seed study's."""
    lines = []
    for row in _table_1_rows(folder):
        theirs, ours = THEIRS.get(row.flow), row.mean("test_free_energy")
        below = _NOTHING if theirs is None or ours is None else f"{theirs - ours:.2f}"
        lines.append(
            [
                row.flow,
                *(row.cell(key) for key in _FIGURES),
                row.cell("kl"),
                row.cell("active_units", 0),
                _NOTHING if theirs is None else f"{theirs:.1f}",
                below,
            ]
        )
    head = ["posterior", "train", "valid", "test", "test NLL", "KL", "active", "theirs", "lower by"]
    return table(head, lines)


def paired(folder: Path) -> str:
    """Each flow against the baseline, image by image."""
    baseline, *others = _table_1_rows(folder)
    lines = []
    for row in others:
        line = [row.flow, str(len(set(row.results) & set(baseline.results)))]
        for key in ("free_energy", "nll"):
            difference = row.differences(baseline, key)
            if not difference.size:
                line += [_NOTHING, _NOTHING]
                continue
            mean, error = difference.mean(), difference.std(ddof=1) / np.sqrt(difference.size)
            verdict = "lower" if mean < -2 * error else "higher" if mean > 2 * error else "neither"
            line += [f"{mean:+.2f} ± {2 * error:.2f}", verdict]
        lines.append(line)
    head = ["posterior", "seeds", "free energy", "", "NLL", ""]
    return table(head, lines)


def causes(folder: Path) -> str:
    """Planar flows without their constraint, and the seed study's schedule in our code."""
    lines = []
    for row in rows("A", None, folder):
        own_map, own_schedule = row.run.flow.startswith("unconstrained"), bool(row.run.label)
        if own_map or own_schedule:
            flow = row.flow.removeprefix("unconstrained-")
            what = "without the constraint" if own_map else "their schedule, 2000 epochs"
            theirs = THEIRS.get(flow)
            lines.append(
                [
                    flow,
                    what,
                    *(row.cell(key) for key in _FIGURES),
                    _NOTHING if theirs is None else f"{theirs:.1f}",
                ]
            )
    return table(
        ["posterior", "what is theirs", "train", "valid", "test", "test NLL", "theirs"], lines
    )


def optima(folder: Path) -> str:
    """What each family of posteriors gives at best, under the baseline's decoder."""
    found = read_optima("A-none-seed0", folder)
    lines = []
    for name, values in found.items():
        against = values - found["diagonal"]
        error = 2 * against.std(ddof=1) / np.sqrt(against.size)
        own = name in ("diagonal", "nll")
        what = {"encoder": "diagonal, by the encoder", "nll": "NLL"}.get(name, name)
        less = _NOTHING if own else f"{against.mean():+.2f} ± {error:.2f}"
        lines.append([what, f"{values.mean():.2f}", less])
    return table(["posterior", "free energy", "less the best diagonal one"], lines)


def priors(folder: Path) -> str:
    """Part B, with the rows of Part A that have the standard prior."""
    standard = [r for r in rows("A", "", folder) if r.flow in ("none", "iaf:2")]
    lines = []
    for row in [*standard, *rows("B", None, folder)]:
        prior = "standard" if row.run.prior == "none" else row.run.prior
        lines.append(
            [
                " ".join(filter(None, (row.flow, row.run.label.replace("_", " ")))),
                prior,
                *(row.cell(key) for key in _FIGURES),
                row.cell("kl"),
                row.cell("active_units", 0),
                _told_apart(row),
                _epoch(row),
            ]
        )
    head = ["posterior", "prior", "train", "valid", "test", "test NLL", "KL", "active"]
    return table([*head, "told apart", "s an epoch"], lines)


def _told_apart(row: Row) -> str:
    """How often q(z) and p(z) are told apart, the mean over the seeds."""
    found = [result["diagnostics"]["told_apart"] for result in row.results.values()]
    return f"{100 * statistics.mean(found):.0f}%" if found else _NOTHING


def _epoch(row: Row) -> str:
    """The seconds of a fast epoch, the tenth of ten: other work ran beside the slower ones."""
    found = [
        float(np.percentile(result["diagnostics"]["seconds"], 10))
        for result in row.results.values()
    ]
    return f"{min(found):.1f}" if found else _NOTHING


def digits(folder: Path) -> str:
    """Part D's digits."""
    lines = [
        [row.flow, row.run.prior, str(len(row.results)), row.cell("test_free_energy"),
         row.cell("test_nll"), row.cell("active_units", 0)]
        for row in rows("D", "digits", folder)
    ]  # fmt: skip
    return table(["posterior", "prior", "seeds", "test", "test NLL", "active"], lines)


def not_run(folder: Path) -> str:
    """What is declared and was not run, and what it would take."""
    lines = [
        [run.name, run.options["dataset"], f"{run.hours:.1f}"]
        for run in RUNS
        if not run.here and read_result(run.name, folder) is None
    ]
    return table(["run", "images", "hours of a core, roughly"], lines)


def progress(folder: Path) -> str:
    """How many runs have a result, by part."""
    lines = []
    for part in ("tuning", "A", "B", "D"):
        runs = [run for run in RUNS if run.part == part and run.here]
        done = [run for run in runs if read_result(run.name, folder) is not None]
        lines.append([part, str(len(done)), str(len(runs))])
    return table(["part", "done", "of"], lines)


TABLES: Mapping[str, Callable[[Path], str]] = {
    "progress": progress,
    "tuning": tuning,
    "table 1": table_1,
    "paired": paired,
    "causes": causes,
    "optima": optima,
    "priors": priors,
    "digits": digits,
    "not run": not_run,
}


def fill(page: str, folder: Path = RESULTS) -> str:
    """The page with every table made anew.

    Raises:
      KeyError: For a name that is none of a table's.
    """

    def replace(match: re.Match[str]) -> str:
        return f"{match[1]}\n{TABLES[match[2]](folder)}\n{match[3]}"

    pattern = r"(<!-- ([a-z0-9 ]+) -->)\n.*?(<!-- end -->)"
    return re.sub(pattern, replace, page, flags=re.DOTALL)
