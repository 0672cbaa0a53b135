"""The errors that are the user's to mend."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake that one sentence can explain: what was received, what is allowed, what to do.

    The command line prints the sentence and exits with `status`; in Python it is a `ValueError`.

    Attributes:
      status: 2.
    """

    status = 2


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint such as ` Did you mean 'planar'?`, or nothing where no known name is near.

    A name that differs in upper and lower case alone is the only one in the hint.
    """
    known = list(known)
    same = [one for one in known if one.lower() == name.lower()]
    matches = same or difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.5)
    return f" Did you mean {' or '.join(repr(m) for m in matches)}?" if matches else ""
