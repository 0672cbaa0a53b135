"""The parser of the command line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from tfp_flowvae._version import __version__
from tfp_flowvae.cli import density, sample, train
from tfp_flowvae.cli.one_sentence import OneSentenceParser


def make_parser(train_prog: str | None = None) -> OneSentenceParser:
    """Returns the parser; what it parses has a `run(arguments)` that returns an exit status.

    Args:
      train_prog: How the user called the training command, if not as `tfp-flowvae train`.
    """
    parser = OneSentenceParser(
        prog="tfp-flowvae",
        description="Normalizing-flow variational autoencoders for TensorFlow.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"tfp_flowvae {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    train.add_command(commands, train_prog)
    density.add_command(commands)
    sample.add_command(commands)
    return parser


def named_plugins(argv: Sequence[str]) -> list[str]:
    """Returns the values of `--plugin`, which must be imported before the parser is made."""
    parser = OneSentenceParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--plugin", action="append", default=[])
    known: argparse.Namespace = parser.parse_known_args(argv)[0]
    return known.plugin
