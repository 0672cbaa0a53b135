"""The study's commands: `python -m benchmarks.study run`, `list`, `score`, `tables`."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path

from .plan import chosen
from .runner import Runner, read_machines
from .store import RESULTS, read_result, write_result

STATE = Path(__file__).parent / "runs"


def run(arguments: argparse.Namespace) -> int:
    """Runs what has no result yet."""
    missing = [
        run
        for run in chosen(arguments.only, here=True)
        if read_result(run.name, arguments.results) is None
    ]
    runner = Runner(missing, arguments.state, arguments.results, arguments.workers, arguments.hours)
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
        elif result["failed"]:
            found = f"failed: {result['failed']}"
        else:
            found = f"valid {result['valid_free_energy']:.2f}"
            if result["test_nll"] is not None:
                found += f"  test {result['test_free_energy']:.2f}  NLL {result['test_nll']:.2f}"
        print(f"{run.name:50} {run.hours:6.2f} h  {found}")
    print(f"left: about {left:.1f} hours of one core")
    return 0


def score(arguments: argparse.Namespace) -> int:
    """Writes the result of one run that has been trained."""
    from .score import failure
    from .score import score as score_run

    (run,) = [run for run in chosen() if run.name == arguments.name]
    folder = arguments.state / run.name
    scratch = arguments.state / f"{run.name}.scratch"
    if arguments.failed:
        result, per_image = failure(folder, arguments.failed)
    else:
        result, per_image = score_run(folder, scratch, run.tests)
    result["machine"] = ", then ".join(read_machines(arguments.state, run))
    # The folder of the data says where it was on this machine, and no more.
    result["config"] = {k: v for k, v in result["config"].items() if k != "data_dir"}
    write_result(arguments.results, run.name, result, per_image)
    shutil.rmtree(scratch, ignore_errors=True)
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
        "--only", nargs="+", default=["*"], metavar="PATTERN", help="names, such as 'A-*'"
    )
    parts = [common, several]
    command = commands.add_parser("run", parents=parts, help="run what has no result yet")
    command.add_argument("--hours", type=float, help="stop after so long, with the state saved")
    command.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="runs at a time (default: cores)"
    )
    command.set_defaults(call=run)
    command = commands.add_parser("list", parents=parts, help="show what there is to run")
    command.set_defaults(call=show)
    command = commands.add_parser("score", parents=[common], help="write one trained run's result")
    command.add_argument("name")
    command.add_argument("--failed", metavar="WHY", help="write that it has no figures, and why")
    command.set_defaults(call=score)
    arguments = parser.parse_args()
    arguments.state, arguments.results = arguments.state.resolve(), arguments.results.resolve()
    return arguments.call(arguments)


if __name__ == "__main__":
    sys.exit(main())
