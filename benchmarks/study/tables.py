"""The tables of `docs/study.md` and of the README, made from the results alone.

A page holds `<!-- NAME -->` and, on a line of its own further down, `<!-- end -->`: what lies
between is replaced by the table of that name.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .plan import CLAIM, IAF, RUNS
from .recipe import BEST_FLOW, BEST_PRIOR, SEARCH, TUNING
from .rows import NOTHING, Row, rows
from .store import RESULTS, read_epochs, read_optima, read_result

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
# The plain VAE whose decoder the optima of families are found under.
OPTIMA_OF = "A-none-seed1"
_FIGURES = ("train_free_energy", "valid_free_energy", "test_free_energy", "test_nll")


def table(head: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    """Markdown."""
    head = list(head)
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, ["---"] * len(head), *lines))


def trials(part: str, changes: Mapping[str, Mapping[str, Any]], start: str, folder: Path) -> str:
    """What was tried, best first: the validation images' figures alone.

    Args:
      part: The part of the runs.
      changes: What each of them changes, by its label.
      start: What to call the one that changes nothing.
      folder: Of the results.
    """

    def place(row: Row) -> float:
        valid = row.mean("valid_free_energy")
        return np.inf if valid is None else valid

    lines = []
    for row in sorted(rows(part, None, folder), key=place):
        words = [
            f"{name.replace('_', ' ')} {'x'.join(map(str, v)) if isinstance(v, tuple) else v}"
            for name, v in changes[row.run.label].items()
            if v is not None
        ]
        figures = (row.cell("train_free_energy"), row.cell("valid_free_energy"))
        lines.append([", ".join(words) or start, *figures])
    return table(["what it changes", "train", "valid"], lines)


def tuning(folder: Path) -> str:
    """What was tried for the recipe of Part A."""
    return trials("tuning", TUNING, "the start", folder)


def search(folder: Path) -> str:
    """What was tried for the best dense model of Part B."""
    return trials("search", SEARCH, "the recipe, 300 epochs", folder)


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
        below = NOTHING if theirs is None or ours is None else f"{theirs - ours:.2f}"
        lines.append(
            [
                row.flow,
                *(row.cell(key) for key in _FIGURES),
                row.cell("kl"),
                row.cell("active_units", 0),
                NOTHING if theirs is None else f"{theirs:.1f}",
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
                line += [NOTHING, NOTHING]
                continue
            mean, error = difference.mean(), difference.std(ddof=1) / np.sqrt(difference.size)
            verdict = "lower" if mean < -2 * error else "higher" if mean > 2 * error else "neither"
            line += [f"{mean:+z.2f} ± {2 * error:.2f}", verdict]
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
            schedule = f"their schedule, {row.run.options['epochs']} epochs"
            what = "without the constraint" if own_map else schedule
            theirs = THEIRS.get(flow)
            lines.append(
                [
                    flow,
                    what,
                    *(row.cell(key) for key in _FIGURES),
                    NOTHING if theirs is None else f"{theirs:.1f}",
                ]
            )
    return table(
        ["posterior", "what is theirs", "train", "valid", "test", "test NLL", "theirs"], lines
    )


def optima(folder: Path) -> str:
    """What each family of posteriors gives at best, under the baseline's decoder."""
    found = read_optima(OPTIMA_OF, folder)
    lines = []
    for name, values in found.items():
        against = values - found["diagonal"]
        error = 2 * against.std(ddof=1) / np.sqrt(against.size)
        own = name in ("diagonal", "nll")
        what = {"encoder": "diagonal, by the encoder", "nll": "NLL"}.get(name, name)
        less = NOTHING if own else f"{against.mean():+.2f} ± {error:.2f}"
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
                row.flow,
                prior,
                *(row.cell(key) for key in _FIGURES),
                row.cell("kl"),
                row.cell("active_units", 0),
                _told_apart(row),
            ]
        )
    head = ["posterior", "prior", "train", "valid", "test", "test NLL", "KL", "active"]
    return table([*head, "told apart"], lines)


def claim(folder: Path) -> str:
    """A posterior flow and prior flows, with as many weights and for as many seconds."""
    timed, lines = read_epochs(folder), []
    compared = [Row([run], folder) for run in CLAIM]
    plain = compared[0]
    for row in compared:
        weights = [r["diagnostics"]["weights"] for r in row.results.values()]
        seconds, epochs = timed.get(row.run.name), row.run.options["epochs"]
        line = [row.flow, "standard" if row.run.prior == "none" else row.run.prior]
        line += [f"{weights[0]:,}" if weights else NOTHING]
        line += [NOTHING if seconds is None else f"{seconds * epochs / 60:.0f}"]
        line += [row.cell(key) for key in _FIGURES[2:]]
        for key in ("free_energy", "nll"):
            gain = -row.differences(plain, key)
            line.append(f"{gain.mean():.2f}" if gain.size and row is not plain else NOTHING)
        lines.append(line)
    head = ["posterior", "prior", "weights", "minutes", "test", "test NLL"]
    return table([*head, "gain", "gain in NLL"], lines)


def _told_apart(row: Row) -> str:
    """How often q(z) and p(z) are told apart, the mean over the seeds."""
    found = [result["diagnostics"]["told_apart"] for result in row.results.values()]
    return f"{100 * statistics.mean(found):.0f}%" if found else NOTHING


def summary(folder: Path) -> str:
    """The README's table: what there is of a posterior flow, a prior flow and the best model."""
    shown = [("A", "", flow, "none") for flow in ("none", "planar:10", f"iaf:2,{IAF}")]
    shown += [("B", "", flow, BEST_PRIOR) for flow in ("none", BEST_FLOW)]
    known = {
        (row.run.part, row.run.label, row.run.flow, row.run.prior): row
        for row in rows("A", None, folder) + rows("B", None, folder)
    }
    lines = []
    for key in shown:
        row = known[key]
        if row.results:
            theirs = THEIRS.get(row.flow) if row.run.prior == "none" else None
            prior = "standard" if row.run.prior == "none" else row.run.prior
            figures = [row.cell(figure) for figure in ("test_free_energy", "test_nll")]
            lines.append([row.flow, prior, *figures, NOTHING if theirs is None else f"{theirs}"])
    head = ["posterior", "prior", "free energy", "NLL", "free energy of Henrion & Welleck"]
    return table(head, lines)


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
    for part in ("tuning", "A", "B", "search", "D"):
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
    "claim": claim,
    "study": summary,
    "search": search,
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
