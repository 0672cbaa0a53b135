"""What an error says, short enough for one sentence."""

from __future__ import annotations


def first_line(error: BaseException) -> str:
    """The first line of an error's message, without its full stop; its class without a message."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = [line.strip() for line in str(error).split("\n") if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300].rstrip(".")
