"""The command `export`."""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path
from typing import Any

from tfp_flowvae.models.names import CONVERTED_FORMATS, NOISE_FUNCTIONS


def add_command(commands: Any) -> None:
    """Adds the command to what `add_subparsers` returned."""
    parser = commands.add_parser(
        "export",
        help="write a trained model for LiteRT or ONNX Runtime",
        description="Writes functions of a trained model, a file each, for LiteRT (TensorFlow "
        "Lite) or ONNX Runtime. Noise is an argument of the functions.",
        allow_abbrev=False,
    )
    parser.set_defaults(run=_run, parser=parser)
    parser.add_argument(
        "path", type=Path, metavar="PATH", help="the folder of a finished run or an export"
    )
    parser.add_argument(
        "--format", choices=CONVERTED_FORMATS, required=True, help="the files' format"
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="the new folder for the files (default: a folder in PATH with the format's name)",
    )
    parser.add_argument(
        "--functions",
        nargs="+",
        choices=NOISE_FUNCTIONS,
        metavar="NAME",
        help=f"which of {', '.join(NOISE_FUNCTIONS)} (default: all that the format can hold)",
    )


def _run(arguments: argparse.Namespace) -> int:
    from tfp_flowvae._quiet import import_tensorflow

    import_tensorflow()
    from tfp_flowvae.saving import export, load

    output = arguments.output or arguments.path / arguments.format
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        export(load(arguments.path), output, arguments.format, arguments.functions)
    for warning in caught:
        if warning.category is UserWarning:
            print(f"Warning: {warning.message}", file=sys.stderr)
    for file in sorted(output.iterdir()):
        print(f"{file}   {file.stat().st_size / 1024:.0f} KiB")
    return 0
