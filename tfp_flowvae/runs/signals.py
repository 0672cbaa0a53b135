"""Ctrl-C and SIGTERM: training finishes its step and saves; everything else stops at once."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any, Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """A signal ended the run.

    Args:
      number: Of the signal.

    Attributes:
      status: The exit status by which a shell knows: 130 for SIGINT, 143 for SIGTERM.
      name: What to call the cause.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.status = 128 + number
        self.name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name


class SignalWatch:
    """A context in which SIGINT and SIGTERM raise `Stopped`, or are noted where that is asked for.

    In another thread than the main one, where Python has no signals, it does nothing.
    """

    def __init__(self) -> None:
        self._noted: int | None = None
        self._waiting = False
        self._previous: dict[int, Any] = {}

    @property
    def noted(self) -> bool:
        """Whether a signal is waiting to be obeyed."""
        return self._noted is not None

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """A context in which the first signal is only noted; a second raises `Stopped`.

        Raises:
          Stopped: On leaving it, if a signal came.
        """
        self._waiting = True
        try:
            yield
        finally:
            self._waiting = False
        self.obey()

    def note(self, number: int) -> None:
        """Takes a signal as come, to be obeyed in time; of several the first counts."""
        if self._noted is None:
            self._noted = number

    @contextlib.contextmanager
    def left_to_the_system(self) -> Iterator[None]:
        """A context in which a signal ends the process at once, for waits inside native code.

        Python would run a handler only when the wait is over. On leaving it the handlers are put
        in place again, over any that native code has installed: TensorFlow 2.21 takes SIGTERM for
        itself as it joins a cluster, notes it, and goes on. (It does so before it waits for the
        other workers, so that of the two only SIGINT ends that wait.)
        """
        self._install(signal.SIG_DFL)
        try:
            yield
        finally:
            self._install(self._handle)

    def obey(self) -> None:
        """Raises `Stopped` if a signal has been noted."""
        if self._noted is not None:
            raise Stopped(self._noted)

    def __enter__(self) -> Self:
        self._previous = self._install(self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def _install(self, handler: Any) -> dict[int, Any]:
        """Sets the handler of both signals, and returns what they had in Python's eyes."""
        if threading.current_thread() is not threading.main_thread():
            return {}
        return {number: signal.signal(number, handler) for number in _SIGNALS}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._waiting and self._noted is None:
            self.note(number)
        else:
            raise Stopped(number)
