"""Runs what has no result yet, each run by a `train.py` of its own, and can be stopped at any time.

A run that is cut goes on where its last checkpoint is; a figure that is cut is computed again, but
for the likelihoods that are there already.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .plan import Run
from .store import read_result

ROOT = Path(__file__).parents[2]
# What `train.py` exits with when a signal has stopped it and the state is saved.
_STOPPED = (130, 143)
_CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_tile")


def machine(threads: int) -> str:
    """The machine in neutral words: cores, what of them a run has, and the kind of processor."""
    try:
        flags = next(
            line.split(":")[1].split()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("flags")
        )
    except (OSError, StopIteration):
        flags = []
    known = [flag for flag in _CPU_FLAGS if flag in flags]
    described = " with " + ", ".join(known) if known else ""
    return f"{threads} of {os.cpu_count()} cores{described}"


class Runner:
    """Works through the runs that have no result yet, several at a time.

    Args:
      runs: What to run, in this order.
      state: Folder of the runs' folders.
      results: Folder of the results.
      workers: How many runs at a time, the cores shared out among them.
      hours: When to stop; None for never.
    """

    def __init__(
        self, runs: Sequence[Run], state: Path, results: Path, workers: int, hours: float | None
    ) -> None:
        self._left = [run for run in runs if read_result(run.name, results) is None]
        self._state, self._results = state, results
        self._workers = workers
        self._threads = max(1, (os.cpu_count() or 1) // workers)
        self._end = None if hours is None else time.monotonic() + 3600 * hours
        self._lock = threading.Lock()
        self._children: set[subprocess.Popen[bytes]] = set()
        self._stopping = threading.Event()
        self.failed: list[str] = []

    def run(self) -> bool:
        """Runs until there is nothing left, or it is stopped; says whether all were done."""
        self._state.mkdir(parents=True, exist_ok=True)
        with (self._state / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise SystemExit(f"Another runner works in {self._state}.") from None
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: self._stopping.set())
            workers = [threading.Thread(target=self._work) for _ in range(self._workers)]
            for worker in workers:
                worker.start()
            while any(worker.is_alive() for worker in workers):
                if self._end is not None and time.monotonic() > self._end:
                    self._stopping.set()
                if self._stopping.wait(1.0):
                    self._stop_children()
            return not (self._left or self.failed or self._stopping.is_set())

    def _stop_children(self) -> None:
        """Asks each once: a second signal would end `train.py` before it has saved."""
        with self._lock:
            children, self._children = self._children, set()
        for child in children:
            child.terminate()
        time.sleep(0.2)

    def _work(self) -> None:
        while not self._stopping.is_set():
            with self._lock:
                if not self._left:
                    return
                run = self._left.pop(0)
            try:
                self._complete(run)
            except Exception as error:  # one run's trouble is not the others'
                self._say(run, f"failed: {error}")
                self.failed.append(run.name)

    def _complete(self, run: Run) -> None:
        """Trains, unless that was done before, and writes the result."""
        folder = self._state / run.name
        log = self._state / f"{run.name}.log"
        self._note_machine(run)
        failed = None
        if not (folder / "run.json").exists():
            if folder.exists() and not (folder / "checkpoints").exists():
                shutil.rmtree(folder)
            resumed = folder.exists()
            self._say(run, "goes on" if resumed else "begins")
            where = ["--resume", str(folder)] if resumed else ["--output", str(folder)]
            options = [] if resumed else run.arguments()
            status = self._call([*run.program, *options, *where, "--verbose", "2"], log)
            if self._stopping.is_set() or status in _STOPPED:
                return self._say(run, "stopped, its state saved")
            failed = _divergence(log) if status else None
            if status and failed is None:
                raise RuntimeError(f"train.py exited with {status}, see {log}")
        self._say(run, "is scored")
        command = ["-m", "benchmarks.study", "score", run.name, "--state", str(self._state)]
        command += ["--results", str(self._results)] + (["--failed", failed] if failed else [])
        command += [] if run.tests else ["--untested"]
        status = self._call(command, log)
        if self._stopping.is_set():
            return self._say(run, "stopped")
        if status:
            raise RuntimeError(f"its figures could not be computed, see {log}")
        return self._say(run, "is done")

    def _call(self, command: list[str], log: Path) -> int:
        environment = {
            **os.environ,
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "TF_NUM_INTRAOP_THREADS": str(self._threads),
            "TF_NUM_INTEROP_THREADS": str(self._threads),
            "PYTHONPATH": str(ROOT),
        }
        with log.open("ab") as output, self._lock:
            if self._stopping.is_set():
                return _STOPPED[-1]
            child = subprocess.Popen(
                [sys.executable, *command],
                cwd=ROOT,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                # Ctrl-C is for the runner, which passes it on once.
                process_group=0,
            )
            self._children.add(child)
        try:
            return child.wait()
        finally:
            with self._lock:
                self._children.discard(child)

    def _note_machine(self, run: Run) -> None:
        """Keeps the machines that a run was on: it may go on elsewhere than it began."""
        path = self._state / f"{run.name}.machines.json"
        known = read_machines(self._state, run.name)
        found = machine(self._threads)
        if found not in known:
            path.write_text(json.dumps([*known, found]))

    def _say(self, run: Run, what: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {run.name} {what}", flush=True)


def _divergence(log: Path) -> str | None:
    """What `train.py` said last, if it is that a number was no longer finite."""
    found = re.findall(
        r"Error: (training failed in epoch \d+ at step \d+)", log.read_text()[-2000:]
    )
    return found[-1] if found else None


def read_machines(state: Path, name: str) -> list[str]:
    """The machines that a run was on, in turn."""
    path = state / f"{name}.machines.json"
    found: list[Any] = json.loads(path.read_text()) if path.exists() else []
    return found
