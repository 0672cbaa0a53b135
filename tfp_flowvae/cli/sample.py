"""The command `sample`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from tfp_flowvae._quiet import import_tensorflow
from tfp_flowvae.cli.one_sentence import number, whole_number


def add_command(commands: Any) -> None:
    """Adds the command to what `add_subparsers` returned."""
    parser = commands.add_parser(
        "sample",
        help="draw images from an exported model",
        description="Draws images from the prior of an exported model into one picture.",
        allow_abbrev=False,
    )
    parser.set_defaults(run=_run, parser=parser)
    parser.add_argument("path", type=Path, metavar="PATH", help="the folder of a finished run")
    parser.add_argument(
        "-n", type=whole_number, default=64, metavar="N", help="the number of images (default: 64)"
    )
    parser.add_argument(
        "--seed", type=whole_number, default=0, help="the seed of the draw (default: 0)"
    )
    parser.add_argument(
        "--label",
        metavar="CLASS",
        help="the class of the images, for a model that was trained with --labels: its name, or "
        "its number in an export without run.json (default: images of an unknown class)",
    )
    parser.add_argument(
        "--temperature",
        type=number,
        metavar="T",
        help="the temperature of the draw; below 1 images are more typical and less varied "
        "(default: 1)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("samples.png"),
        metavar="FILE",
        help="the picture to write, a .png file (default: samples.png)",
    )


def _run(arguments: argparse.Namespace) -> int:
    import_tensorflow()
    from tfp_flowvae.evaluation.exported import sample_to_picture

    sample_to_picture(
        arguments.path,
        arguments.n,
        arguments.seed,
        arguments.output,
        arguments.label,
        arguments.temperature,
    )
    print(f"{arguments.n} samples from {arguments.path} written to {arguments.output}")
    return 0
