"""The command line: `train`, `density`, `sample`, `evaluate` and other commands.

Parsing imports nothing heavy, so `--help` and an error in the options come at once.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from tfp_flowvae._backend import BackendError, check_backend
from tfp_flowvae._version import __version__
from tfp_flowvae.cli import density, evaluate, export, report, sample, train
from tfp_flowvae.cli.one_sentence import OneSentenceParser
from tfp_flowvae.errors import UserError
from tfp_flowvae.runs.plugins import import_plugin

EXIT_INTERRUPTED, EXIT_BROKEN_PIPE = 130, 141


def entry_point() -> NoReturn:
    """The console script `tfp-flowvae`."""
    sys.exit(main())


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Runs the command line and returns its exit status.

    Args:
      argv: The arguments; those of the process by default.
      prog: How the user called the training command, if not as `tfp-flowvae train`.

    Returns:
      0; 1 if training diverged; 2 for a mistake of the user; 75 if another worker of the cluster is
      gone; 130 after Ctrl-C; 141 if the reader of the output has gone, such as `head`; 143 after
      SIGTERM.
    """
    try:
        try:
            return _main(argv, prog)
        finally:
            print(end="", flush=True)  # Here a reader that has gone is noticed.
    except BrokenPipeError:
        # Python flushes the output once more when it exits; see "Note on SIGPIPE" in the
        # documentation of the module `signal`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE


def _main(argv: Sequence[str] | None, prog: str | None) -> int:
    try:
        check_backend()
        argv = sys.argv[1:] if argv is None else argv
        for plugin in _named_plugins(argv):
            import_plugin(plugin)
        arguments = _make_parser(prog).parse_args(argv)
        return arguments.run(arguments)
    except (BackendError, UserError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return getattr(error, "status", UserError.status)
    except KeyboardInterrupt:
        print("Stopped by Ctrl-C; nothing was written.", file=sys.stderr)
        return EXIT_INTERRUPTED


def _make_parser(train_prog: str | None) -> OneSentenceParser:
    """The parser. Its result has a method `run(arguments)` that returns an exit status."""
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
    evaluate.add_commands(commands)
    report.add_command(commands)
    export.add_command(commands)
    return parser


def _named_plugins(argv: Sequence[str]) -> list[str]:
    """The values of `--plugin`, which must be imported before the parser is made."""
    parser = OneSentenceParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--plugin", action="append", default=[])
    known: argparse.Namespace = parser.parse_known_args(argv)[0]
    return known.plugin
