"""The error for a user's mistake."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


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
