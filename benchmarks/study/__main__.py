"""The commands of `python -m benchmarks.study`: `run`, `list`, `score`, `tables` and others."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from .plan import CLAIM, chosen
from .runner import ROOT, Runner, machine, read_machines
from .store import RESULTS, read_result, write_epochs, write_optima, write_result
from .tables import fill
from .timing import fastest_epochs

PAGES = (ROOT / "docs" / "study.md", ROOT / "README.md")
STATE = Path(__file__).parent / "runs"


def run(arguments: argparse.Namespace) -> int:
    """Runs what has no result yet."""
    runs = chosen(arguments.only, here=not arguments.anywhere)
    runner = Runner(runs, arguments.state, arguments.results, arguments.workers, arguments.hours)
    return 0 if runner.run() else 1


def show(arguments: argparse.Namespace) -> int:
    """Prints every run, whether it is done, and what is left."""
    left = 0.0
    for run in chosen(arguments.only):
        result = read_result(run.name, arguments.results)
        if result is None:
            begun = (arguments.state / run.name).exists()
            found = "begun" if begun else "to do" if run.here else "not on this machine"
            left += run.hours if run.here else 0.0
        else:
            found = summary(result)
        print(f"{run.name:50} {run.hours:6.2f} h  {found}")
    print(f"left: about {left:.1f} hours of one core")
    return 0


def summary(result: dict[str, Any]) -> str:
    """A result in a line."""
    if result["failed"]:
        return f"failed: {result['failed']}"
    text = f"valid {result['valid_free_energy']:.2f}"
    if result["test_nll"] is None:
        return text
    return f"{text}  test {result['test_free_energy']:.2f}  NLL {result['test_nll']:.2f}"


def score(arguments: argparse.Namespace) -> int:
    """Writes the result of one run that has been trained."""
    from .score import failure
    from .score import score as score_run

    name = arguments.name
    folder, scratch = arguments.state / name, arguments.state / f"{name}.scratch"
    if arguments.failed:
        result, per_image = failure(folder, arguments.failed)
    else:
        result, per_image = score_run(folder, scratch, not arguments.untested)
    result["machine"] = ", then ".join(read_machines(arguments.state, name))
    # The folder of the data says where it was on this machine, and no more.
    result["config"] = {k: v for k, v in result["config"].items() if k != "data_dir"}
    write_result(arguments.results, name, result, per_image)
    shutil.rmtree(scratch, ignore_errors=True)
    return 0


def optima(arguments: argparse.Namespace) -> int:
    """Fits a posterior of every family to each of some images, under a trained decoder."""
    from .score import optima as find

    found = find(arguments.state / arguments.name, arguments.images)
    write_optima(arguments.results, arguments.name, found)
    return 0


def seconds(arguments: argparse.Namespace) -> int:
    """Takes the seconds of an epoch of what is compared at equal cost."""
    found = fastest_epochs(CLAIM)
    write_epochs(arguments.results, {"machine": machine(1), "seconds": found})
    return 0


def tables(arguments: argparse.Namespace) -> int:
    """Makes the tables and figures of the page anew."""
    from .figures import figure_3, figure_4, figure_holes

    for page in PAGES:
        page.write_text(fill(page.read_text(encoding="utf-8"), arguments.results), encoding="utf-8")
    pictures = PAGES[0].parent / "study"
    figure_3(arguments.results, pictures / "figure-3.png")
    figure_4(arguments.results, pictures / "figure-4.png")
    figure_holes(arguments.results, pictures / "holes.png")
    return 0


def main() -> int:
    """Parses and runs a command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.study", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--state", type=Path, default=STATE, help="folder of the runs' folders")
    common.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    several = argparse.ArgumentParser(add_help=False)
    several.add_argument(
        "--only",
        nargs="+",
        default=["*"],
        metavar="PATTERN",
        help="names, such as 'A-*', first things first",
    )
    parts = [common, several]
    command = commands.add_parser("run", parents=parts, help="run what has no result yet")
    command.add_argument("--hours", type=float, help="stop after so long, with the state saved")
    command.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="runs at a time (default: cores)"
    )
    command.add_argument(
        "--anywhere", action="store_true", help="also what needs a GPU or other data sets"
    )
    command.set_defaults(call=run)
    command = commands.add_parser("list", parents=parts, help="show what there is to run")
    command.set_defaults(call=show)
    command = commands.add_parser("score", parents=[common], help="write one trained run's result")
    command.add_argument("name")
    command.add_argument(
        "--untested", action="store_true", help="leave the test images alone: a run of the tuning"
    )
    command.add_argument("--failed", metavar="WHY", help="write that it has no figures, and why")
    command.set_defaults(call=score)
    command = commands.add_parser(
        "optima", parents=[common], help="what each family of posteriors gives at best"
    )
    command.add_argument("name", help="a run without a flow, which has been trained")
    command.add_argument("--images", type=int, default=200, help="of validation (default: 200)")
    command.set_defaults(call=optima)
    command = commands.add_parser(
        "seconds", parents=[common], help="time an epoch of what is compared at equal cost"
    )
    command.set_defaults(call=seconds)
    command = commands.add_parser(
        "tables", parents=[common], help="make the tables and figures of docs/study.md and README"
    )
    command.set_defaults(call=tables)
    arguments = parser.parse_args()
    arguments.state, arguments.results = arguments.state.resolve(), arguments.results.resolve()
    return arguments.call(arguments)


if __name__ == "__main__":
    sys.exit(main())
