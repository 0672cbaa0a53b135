"""The command line: `train` and `sample`.

Parsing imports nothing heavy, so `--help` and an error in the options come at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

from tfp_flowvae._backend import BackendError, check_backend
from tfp_flowvae.cli.parser import make_parser, named_plugins
from tfp_flowvae.errors import UserError
from tfp_flowvae.runs.plugins import import_plugin

EXIT_INTERRUPTED = 130


def entry_point() -> NoReturn:
    """The console script `tfp-flowvae`."""
    sys.exit(main())


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Runs the command line and returns its exit status.

    Args:
      argv: The arguments; those of the process by default.
      prog: How the user called the training command, if not as `tfp-flowvae train`.

    Returns:
      0; 1 if training diverged; 2 for a user's mistake; 75 if another worker of the cluster is
      gone; 130 after Ctrl-C; 143 after SIGTERM.
    """
    try:
        check_backend()
        argv = sys.argv[1:] if argv is None else argv
        for plugin in named_plugins(argv):
            import_plugin(plugin)
        arguments = make_parser(prog).parse_args(argv)
        return arguments.run(arguments)
    except (BackendError, UserError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return getattr(error, "status", UserError.status)
    except KeyboardInterrupt:
        print("Stopped by Ctrl-C; nothing was written.", file=sys.stderr)
        return EXIT_INTERRUPTED
