"""Contenders in processes of their own, which take turns: memory and threads stay apart.

A contender is a function of a job and of `Turns`. It prepares, says `ready`, and from then on waits
for its turn, takes it (one epoch) and reports it, until `wait` ends the process.
"""

from __future__ import annotations

import concurrent.futures
import importlib
import io
import math
import multiprocessing
import resource
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Self, TypeVar

_Result = TypeVar("_Result")
_SPAWN = multiprocessing.get_context("spawn")
_PATIENCE_S = 20.0  # for a process to end by itself


@dataclass(frozen=True)
class Turn:
    """One epoch: its seconds, those without validation, mean loss in nats, peak memory so far."""

    epoch_s: float
    training_s: float
    loss: float
    peak_mb: float


class LeftOutError(Exception):
    """A contender that cannot run here; the message says why."""


class Turns:
    """A contender's end of the line."""

    def __init__(self, line: Connection) -> None:
        self._line = line

    def ready(self, parameters: int) -> None:
        """Says that everything but the first epoch is done, and how many weights there are."""
        self._line.send(("ready", parameters))

    def wait(self) -> None:
        """Returns when it is this contender's turn; ends the process when there are no more."""
        try:
            message = self._line.recv()
        except EOFError:
            message = "stop"
        if message == "stop":
            raise SystemExit(0)

    def report(self, epoch_s: float, training_s: float, loss: float) -> None:
        """Ends the turn."""
        self._line.send(("turn", Turn(epoch_s, training_s, float(loss), peak_mb())))

    def take(self, epoch: Callable[[], float]) -> None:
        """Takes all the turns, each by a call that trains for an epoch and returns its loss."""
        while True:
            self.wait()
            start = time.perf_counter()
            loss = epoch()
            seconds = time.perf_counter() - start
            self.report(seconds, seconds, loss)


class _NullTerminal(io.TextIOBase):
    """A terminal that shows nothing: what is printed for people is formatted all the same."""

    def isatty(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        return len(text)


def _serve(line: Connection, contender: str, job: Any) -> None:
    sys.stdout = sys.stderr = _NullTerminal()
    module, _, name = contender.partition(":")
    try:
        getattr(importlib.import_module(module), name)(job, Turns(line))
    except LeftOutError as reason:
        line.send(("left out", str(reason)))
    except Exception:
        line.send(("failed", traceback.format_exc()))


class Worker:
    """The other end: a contender's process. A context manager.

    Args:
      contender: `module:function`.
      job: Its first argument.

    Attributes:
      parameters: How many weights it trains.
      first_s: Seconds of the first turn, compilation included; it counts for nothing else.
      turns: Those that count.
    """

    def __init__(self, contender: str, job: Any) -> None:
        self.parameters, self.first_s = 0, math.nan
        self.turns: list[Turn] = []
        self._losses: list[float] = []
        self._contender = contender
        self._line, theirs = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=_serve, args=(theirs, contender, job))
        self._process.start()
        theirs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *unused: object) -> None:
        if self._process.is_alive():
            try:
                self._line.send("stop")
            except OSError:  # it has just gone
                self._process.kill()
            self._process.join(_PATIENCE_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._line.close()

    def start(self) -> None:
        """Waits until it is ready, and has it take the first turn.

        Raises:
          LeftOutError: If it cannot run here.
        """
        self.parameters = self._receive("ready")
        self.first_s = self._turn().epoch_s

    def take_turn(self) -> None:
        """Has it take one turn that counts."""
        self.turns.append(self._turn())

    def check_losses(self) -> None:
        """Raises `RuntimeError` if the loss was not finite or did not fall."""
        if not all(map(math.isfinite, self._losses)) or self._losses[-1] >= self._losses[0]:
            raise RuntimeError(f"{self._contender} does not learn. Received: {self._losses}.")

    def _turn(self) -> Turn:
        self._line.send("go")
        turn: Turn = self._receive("turn")
        self._losses.append(turn.loss)
        return turn

    def _receive(self, wanted: str) -> Any:
        try:
            kind, content = self._line.recv()
        except EOFError:
            self._process.join(_PATIENCE_S)
            raise RuntimeError(
                f"{self._contender} ended without a word. Received: exit status "
                f"{self._process.exitcode}."
            ) from None
        if kind == "left out":
            raise LeftOutError(content)
        if kind != wanted:
            raise RuntimeError(f"{self._contender} failed:\n{content}")
        return content


def in_fresh_process(function: Callable[..., _Result], *arguments: Any) -> _Result:
    """The function's result, computed where nothing has been imported or compiled before."""
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=_SPAWN) as pool:
        return pool.submit(function, *arguments).result()


def peak_mb() -> float:
    """The most memory that this process has held so far, in MB."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage counts in what the parent held when it started this process
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) * 1024 / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3
