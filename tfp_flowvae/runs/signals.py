"""Ctrl-C and SIGTERM: training finishes its step and saves; other work stops at once."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any, Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """A signal ended the run.

    Args:
      number: The number of the signal.

    Attributes:
      status: The exit status that a shell expects: 130 for SIGINT, 143 for SIGTERM.
      name: The signal's name for messages.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.status = 128 + number
        self.name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name


class SignalWatch:
    """A context in which SIGINT and SIGTERM raise `Stopped`; in `waiting`, they are only noted.

    Python handles signals in the main thread only; in another thread the context does nothing.
    """

    def __init__(self) -> None:
        self._noted: int | None = None
        self._waiting = False
        self._previous: dict[int, Any] = {}

    @property
    def noted(self) -> bool:
        """Whether a signal has been noted."""
        return self._noted is not None

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """A context in which the first signal is only noted and the second raises `Stopped`.

        Raises:
          Stopped: At the start or at the end of the context, if a signal was noted.
        """
        self._raise_noted()
        self._waiting = True
        try:
            yield
        finally:
            self._waiting = False
        self._raise_noted()

    def _raise_noted(self) -> None:
        if self._noted is not None:
            raise Stopped(self._noted)

    def note(self, number: int) -> None:
        """Notes a signal, unless one has been noted already."""
        if self._noted is None:
            self._noted = number

    @contextlib.contextmanager
    def left_to_the_system(self) -> Iterator[None]:
        """A context in which a signal ends the process at once, even inside native code.

        Python calls a handler only after native code has returned. When the context ends, it
        installs the handlers again, because native code may have replaced them: TensorFlow 2.21
        installs a handler for SIGTERM that ignores the signal when it joins a cluster, before it
        waits for the other workers. So only SIGINT ends that wait.
        """
        self._install(signal.SIG_DFL)
        try:
            yield
        finally:
            self._install(self._handle)

    def __enter__(self) -> Self:
        self._previous = self._install(self._handle)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def _install(self, handler: Any) -> dict[int, Any]:
        """Sets the handler of both signals, and returns the handlers that they had."""
        if threading.current_thread() is not threading.main_thread():
            return {}
        return {number: signal.signal(number, handler) for number in _SIGNALS}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        again = self.noted
        # Noted even when it is raised: a callback of native code can lose an exception.
        self.note(number)
        if again or not self._waiting:
            raise Stopped(number)
