"""The error for a user's mistake."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

# Lines of an error's text that do not say what went wrong: blank and indented ones, and those in
# which TensorFlow says where in a graph the error was raised.
_NO_REASON = re.compile(r"$|\s|Graph execution error:|Detected at node |<stack traces unavailable>")


class UserError(ValueError):
    """A user's mistake, in one sentence: what was received, what is allowed, what to do.

    The command line prints the sentence and exits with `status`; in Python it is a `ValueError`.

    Attributes:
      status: 2.
    """

    status = 2


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns a hint such as ` Did you mean 'planar'?`, or "" if no known name is similar.

    If a known name differs only in upper and lower case, the hint is that name alone.
    """
    known = list(known)
    same = [one for one in known if one.lower() == name.lower()]
    matches = same or difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.5)
    return f" Did you mean {' or '.join(repr(m) for m in matches)}?" if matches else ""


def first_line(error: BaseException) -> str:
    """Returns the reason that an error gives, short enough to be part of a sentence.

    Args:
      error: An error of Python, or of TensorFlow, whose text may have many lines.

    Returns:
      The first line that says what went wrong, without a full stop; the name of the error's class
      if there is none.
    """
    text = getattr(error, "strerror", None) or getattr(error, "message", None) or str(error)
    lines = (line for line in text.splitlines() if not _NO_REASON.match(line))
    return next(lines, type(error).__name__)[:1000].rstrip(" .")
