"""Figures 3 and 4 of the seed study, drawn from our runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from .holes import LEVELS
from .plan import RUNS
from .store import read_result

_COLOURS = {1: "tab:orange", 2: "tab:green", 10: "tab:blue"}


def _lengths(family: str, results: Path) -> dict[int, dict[str, Any]]:
    """The diagnostics of a family's runs of Part A by their length K, those that there are."""
    found = {}
    for run in RUNS:
        name, _, rest = run.flow.partition(":")
        if (run.part, run.label, name, run.seed) == ("A", "", family, 0):
            result, length = read_result(run.name, results), int(rest.split(",")[0])
            if length in _COLOURS and result is not None and not result["failed"]:
                found[length] = result["diagnostics"]
    return dict(sorted(found.items()))


def _draw(axes: Any, runs: dict[int, dict[str, Any]], column: str, band: bool) -> None:
    for length, values in runs.items():
        x, y = np.array(values["epoch"]), np.array(values[column])
        axes.plot(x, y, color=_COLOURS[length], label=f"K = {length}")
        if band:
            spread = np.array(values[f"{column}_std"])
            axes.fill_between(x, y - spread, y + spread, color=_COLOURS[length], alpha=0.15)
    axes.set_xlabel("epoch")


def figure_3(results: Path, file: Path) -> None:
    """log p(z_K) under the prior, planar flows with and without the constraint."""
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True, layout="constrained")
    for axes, family, title in zip(
        panels,
        ("planar", "unconstrained-planar"),
        ("w.u > -1, invertible", "any u, as theirs"),
        strict=True,
    ):
        _draw(axes, _lengths(family, results), "log_prior", band=True)
        axes.set_title(title)
    panels[0].set_ylabel("log p(z_K), nats: mean and deviation")
    _finish(figure, panels, file)


def figure_4(results: Path, file: Path) -> None:
    """log q0(z0), log qK(zK) and the sum of log-dets of IAFs."""
    figure, panels = plt.subplots(1, 3, figsize=(11, 3.2), layout="constrained")
    for axes, column, title in zip(
        panels,
        ("log_base", "log_posterior", "log_det"),
        ("log q0(z0)", "log qK(zK)", "sum of log |det|"),
        strict=True,
    ):
        _draw(axes, _lengths("iaf", results), column, band=False)
        axes.set_title(title)
    panels[0].set_ylabel("nats")
    _finish(figure, panels, file)


def figure_holes(results: Path, file: Path) -> None:
    """log p(z) of draws of the prior and of the aggregated posterior, by quantiles."""
    shown = [run for run in RUNS if (run.seed, run.label) == (0, "") and run.flow == "none"]
    shown = [run for run in shown if (run.part, run.prior) == ("A", "none") or run.part == "B"]
    found = [(run, read_result(run.name, results)) for run in shown]
    done = [(run, r["diagnostics"]) for run, r in found if r is not None and not r["failed"]]
    count = max(len(done), 1)
    figure, panels = plt.subplots(
        1, count, figsize=(2.6 * count, 3.0), squeeze=False, layout="constrained"
    )
    for axes, (run, values) in zip(panels[0], done, strict=False):
        for key, label in (("encoded", "z ~ q(z)"), ("sampled", "z ~ p(z)")):
            axes.plot(values[f"log_prior_{key}"], LEVELS, label=label)
        axes.set_title("standard" if run.prior == "none" else run.prior.split(",")[0])
        axes.set_xlabel("log p(z), nats")
    panels[0][0].set_ylabel("share of draws below")
    _finish(figure, panels[0], file)


def _finish(figure: Any, panels: Sequence[Any], file: Path) -> None:
    if panels[0].lines:
        panels[0].legend()
    file.parent.mkdir(parents=True, exist_ok=True)
    # Without the date and the version, so that the same results give the same file.
    figure.savefig(file, dpi=110, metadata={"Software": None})
    plt.close(figure)
