"""The command `report`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from tfp_flowvae.cli.evaluate import add_images
from tfp_flowvae.cli.one_sentence import whole_number
from tfp_flowvae.runs.report import report_run
from tfp_flowvae.runs.saved import How


def add_command(commands: Any) -> None:
    """Adds the command to what `add_subparsers` returned."""
    parser = commands.add_parser(
        "report",
        help="make a page that shows a trained model",
        description="Makes one HTML page about the model of a run: pictures, a map of the latent "
        "space of a VAE, curves, and the figures of evaluate --quick. The page needs no other file "
        "and no network.",
        allow_abbrev=False,
    )
    parser.set_defaults(run=_run, parser=parser)
    parser.add_argument(
        "path", type=Path, metavar="PATH", help="the folder of a finished run or an export"
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="the .html file to write (default: report.html in PATH)",
    )
    parser.add_argument("--open", action="store_true", help="open the page in a browser")
    add_images(parser)
    parser.add_argument(
        "--figures",
        type=Path,
        metavar="FILE",
        help="show the figures in a file of evaluate --json, and measure none (default: those in "
        "PATH/evaluation.json, if there are any of this model)",
    )
    parser.add_argument(
        "--no-evaluate",
        action="store_true",
        help="leave out the figures that take a minute, unless there is a file of them",
    )
    parser.add_argument(
        "--samples",
        type=whole_number,
        metavar="S",
        help="importance samples for each image, or draws of the noise of a flow of images "
        "(default: 200; for a flow of images 5)",
    )
    parser.add_argument(
        "--seed", type=whole_number, help="the seed of the draws (default: that of the run)"
    )


def _run(arguments: argparse.Namespace) -> int:
    given = {"samples": arguments.samples, "seed": arguments.seed}
    how = How(
        dataset=arguments.dataset,
        binarization=arguments.binarization,
        quick=True,
        sizes={name: value for name, value in given.items() if value is not None},
    )
    report_run(
        arguments.path,
        how,
        arguments.output,
        arguments.figures,
        evaluate=not arguments.no_evaluate,
        show=arguments.open,
    )
    return 0
