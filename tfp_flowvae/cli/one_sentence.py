"""An argument parser whose errors are one sentence, and readers of numbers for it."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from typing import Any, NoReturn

from tfp_flowvae.errors import UserError, nearest


class OneSentenceParser(argparse.ArgumentParser):
    """Prints an error as one sentence, without the usage."""

    def error(self, message: str) -> NoReturn:
        """Exits with the error."""
        self.exit(UserError.status, f"Error: {message[0].upper()}{message[1:]}.\n")

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parses the arguments.

        Raises:
          UserError: If an option is unknown; the message names similar ones.
        """
        arguments, unknown = self.parse_known_args(args, namespace)
        if unknown:
            command = getattr(arguments, "parser", self)
            known = [*re.findall(r"--[\w-]+", command.format_usage()), "--help"]
            name = unknown[0].partition("=")[0]
            hint = nearest(name, known) or f" See {command.prog} --help."
            raise UserError(f"Unknown option {unknown[0]!r}.{hint}")
        return arguments


def _reader(kind: Callable[[str], Any], words: str) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        try:
            return kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{words} is expected, not {text!r}") from None

    return read


whole_number, number = _reader(int, "a whole number"), _reader(float, "a number")
