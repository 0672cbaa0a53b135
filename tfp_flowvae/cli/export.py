"""The command `export`."""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path
from typing import Any

from tfp_flowvae._quiet import import_tensorflow
from tfp_flowvae.errors import UserError
from tfp_flowvae.models.names import CONVERTED_FORMATS, NOISE_FUNCTIONS
from tfp_flowvae.runs.publish import publish

_FORMATS = ("saved_model", *CONVERTED_FORMATS)


def add_command(commands: Any) -> None:
    """Adds the command to what `add_subparsers` returned."""
    parser = commands.add_parser(
        "export",
        help="write a trained model to publish it, or for LiteRT or ONNX Runtime",
        description="Writes a trained model into a new folder. saved_model: the folder of a run "
        "without what only training needs, to publish it. litert, onnx: functions of the model, a "
        "file each, for LiteRT (TensorFlow Lite) or ONNX Runtime, with noise as an argument.",
        allow_abbrev=False,
    )
    parser.set_defaults(run=_run, parser=parser)
    parser.add_argument(
        "path", type=Path, metavar="PATH", help="the folder of a finished run or an export"
    )
    parser.add_argument(
        "--format", choices=_FORMATS, default=_FORMATS[0], help="the format (default: %(default)s)"
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="the new folder (default for litert and onnx: one in PATH with the format's name)",
    )
    parser.add_argument(
        "--functions",
        nargs="+",
        choices=NOISE_FUNCTIONS,
        metavar="NAME",
        help=f"for litert and onnx, which of {', '.join(NOISE_FUNCTIONS)} (default: all that the "
        "format can hold)",
    )
    parser.add_argument(
        "--license",
        default="",
        metavar="NAME",
        help="for saved_model, the license in the model card, such as apache-2.0 (default: that "
        "of the run's card)",
    )


def _run(arguments: argparse.Namespace) -> int:
    output: Path | None = arguments.output
    if arguments.format == _FORMATS[0]:
        if output is None:
            raise UserError("--format saved_model needs --output, the new folder.")
        if arguments.functions is not None:
            raise UserError(
                f"--functions is for {' and '.join(CONVERTED_FORMATS)}; a SavedModel has all "
                "functions."
            )
        publish(arguments.path, output, arguments.license)
    else:
        if arguments.license:
            raise UserError("--license is for --format saved_model; other formats have no card.")
        output = output or arguments.path / arguments.format
        _convert(arguments, output)
    for file in sorted(file for file in output.rglob("*") if file.is_file()):
        print(f"{file}   {file.stat().st_size / 1024:.0f} KiB")
    return 0


def _convert(arguments: argparse.Namespace, output: Path) -> None:
    import_tensorflow()
    from tfp_flowvae.saving import export, load

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        export(load(arguments.path), output, arguments.format, arguments.functions)
    for warning in caught:
        if warning.category is UserWarning:
            print(f"Warning: {warning.message}", file=sys.stderr)
