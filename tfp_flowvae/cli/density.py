"""The command `density`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from tfp_flowvae.cli.one_sentence import number, whole_number
from tfp_flowvae.runs.density import DensityConfig, fit_density
from tfp_flowvae.runs.output import Output

_DEFAULTS = {name: field.default for name, field in DensityConfig.__dataclass_fields__.items()}


def add_command(commands: Any) -> None:
    """Adds the command to what `add_subparsers` returned."""
    parser = commands.add_parser(
        "density",
        help="fit a density to a table of numbers and export it",
        description="Fits the density of the columns of a table by a normalizing flow; a tenth of "
        "the rows is for validation and a tenth for testing.",
        allow_abbrev=False,
    )
    parser.set_defaults(run=_run, parser=parser)
    parser.add_argument(
        "data", metavar="DATA", help="the table: a .csv file, or a .npy or .npz file with [N, D]"
    )
    _add(parser, "flow", str, "the flow, and its base before it if it is not the normal")
    for name, what in (
        ("columns", "the columns that the density is of (default: all but the context's)"),
        ("context", "the columns that the density is conditioned on (default: none)"),
    ):
        parser.add_argument(f"--{name}", nargs="+", default=(), metavar="COLUMN", help=what)
    _add(parser, "epochs", whole_number, "the most passes over the training rows")
    _add(parser, "batch_size", whole_number, "rows to a step")
    _add(parser, "learning_rate", number, "Adam's first learning rate, which falls to 0")
    _add(parser, "patience", whole_number, "epochs without a better validation before it stops")
    _add(parser, "seed", whole_number, "the seed")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="the folder to write (default: a new numbered folder under saved_models/)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the content of --output")
    parser.add_argument(
        "--verbose",
        type=int,
        choices=(0, 1, 2),
        default=1,
        help="0: the summary only; 1: one line that is updated (default); 2: one line per epoch",
    )


def _add(parser: Any, name: str, kind: Any, what: str) -> None:
    flag, default = f"--{name.replace('_', '-')}", _DEFAULTS[name]
    parser.add_argument(
        flag, type=kind, default=default, metavar=name.upper(), help=f"{what} (default: {default})"
    )


def _run(arguments: argparse.Namespace) -> int:
    values = vars(arguments)
    given: dict[str, Any] = {name: values[name] for name in _DEFAULTS}
    given |= {name: tuple(given[name]) for name in ("columns", "context")}
    config = DensityConfig(**given)
    output = Output(arguments.output, overwrite=arguments.overwrite, verbose=arguments.verbose)
    return fit_density(config, output)
