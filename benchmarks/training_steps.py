"""Milliseconds a step: `FlowVAE.fit` and its rivals, in processes of their own, turn by turn."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from types import MappingProxyType

from timing import Timing, as_row
from training_cases import CASES, STEPS, Case, Job, Options, Row, write_images
from training_workers import LeftOutError, Worker

FIT, FLOOR, PYTHAE = "model.fit", "XLA loop", "pythae"
EAGER, COMPILED = "PyTorch eager", "PyTorch compiled"
CONTENDERS = MappingProxyType(
    {
        FIT: "training_fit:fit",
        FLOOR: "training_floor:train",
        EAGER: "training_torch:eager",
        COMPILED: "training_torch:compiled",
        PYTHAE: "training_pythae:train",
    }
)
NAMES = tuple(CASES)
COLUMNS = (
    "name",
    "contender",
    "parameters",
    "first_s",
    "minimum_ms",
    "median_ms",
    "maximum_ms",
    "training_ms",
    "validation",
    "peak_mb",
    "ratio",
    "training_ratio",
    "target",
    "met",
)


def measure(name: str, options: Options) -> list[Row]:
    """The rows of one case, ours first; a rival that was left out has a row that says so.

    Each contender takes `turns` (7) epochs of `steps` (500), after one that does not count.
    """
    steps, folder = options.steps or STEPS, options.folder
    if not (folder / "train.npy").exists():
        write_images(folder, steps, options.dataset, options.data_dir)
    case, left_out = CASES[name], {}
    contenders = {k: v for k, v in CONTENDERS.items() if k != PYTHAE or case.pythae}
    workers: dict[str, Worker] = {}
    with ExitStack() as stack:
        for contender, target in contenders.items():
            worker = stack.enter_context(Worker(target, Job(name, folder)))
            try:
                worker.start()
                workers[contender] = worker
            except LeftOutError as reason:
                left_out[contender] = str(reason)
        for _ in range(options.turns or 7):
            for worker in workers.values():
                worker.take_turn()
        for worker in workers.values():
            worker.check_losses()
    rows = [_step_row(name, contender, worker, steps) for contender, worker in workers.items()]
    _compare(rows, case)
    return [
        *rows,
        *({"name": name, "contender": k, "left_out": why} for k, why in left_out.items()),
    ]


def _step_row(name: str, contender: str, worker: Worker, steps: int) -> Row:
    epochs = [1e3 * turn.epoch_s / steps for turn in worker.turns]
    fastest = min(worker.turns, key=lambda turn: turn.epoch_s)
    timing = Timing(worker.first_s, min(epochs), statistics.median(epochs), max(epochs))
    return {
        "name": name,
        "contender": contender,
        "parameters": worker.parameters,
        "steps": steps,
        "turns": len(epochs),
        **as_row(timing),
        "training_ms": round(min(1e3 * turn.training_s / steps for turn in worker.turns), 4),
        "peak_mb": round(worker.turns[-1].peak_mb),
        "validation": round(1.0 - fastest.training_s / fastest.epoch_s, 3),
    }


def _compare(rows: Sequence[Row], case: Case) -> None:
    """Adds the ratios, and the verdicts: of PyTorch's two loops the faster one is the rival."""
    ours = rows[0]
    by_name = {row["contender"]: row for row in rows}
    for row in rows[1:]:
        row["ratio"] = round(ours["minimum_ms"] / row["minimum_ms"], 3)
        row["training_ratio"] = round(ours["training_ms"] / row["training_ms"], 3)
        if row["contender"] != PYTHAE and row["parameters"] != ours["parameters"]:
            raise RuntimeError(f"The rivals must be of one size. Received: {rows}.")
    pytorch = [by_name[name] for name in (EAGER, COMPILED) if name in by_name]
    faster = min(pytorch, key=lambda row: row["minimum_ms"])["contender"] if pytorch else None
    for contender, target in ((FLOOR, case.floor), (faster, case.pytorch), (PYTHAE, case.pythae)):
        if contender in by_name:
            row = by_name[contender]
            row |= {"target": target, "met": row["ratio"] <= target}
