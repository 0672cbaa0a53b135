"""What machines do to a run, each said in one sentence: a full disk, a lost file, a lost worker."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tfp_flowvae.errors import UserError
from tfp_flowvae.runs.folder import RunFolder
from tfp_flowvae.runs.worker import WorkerFolder

if TYPE_CHECKING:
    import tensorflow as tf

    from tfp_flowvae.runs.run import Output

# How TensorFlow names a worker in its errors; the first it names is the one that is gone.
_TASK = re.compile(r"/job:(\w+)(?:/replica:\d+)?/task:(\d+)")

_PYTHONS = re.compile(r"\bOSError: (.+)")
_WHERE = re.compile(r"Graph execution error:|Detected at node |\s|<stack traces unavailable>")


class WorkerLostError(UserError):
    """Another worker is gone, without which no step can be done; to be tried again.

    The command line's exit status for it is that of a temporary failure in `sysexits.h`, so that a
    script can tell it from what would only happen again.
    """

    status = 75


@contextlib.contextmanager
def failing(what: str, folder: RunFolder | WorkerFolder, output: Output) -> Iterator[None]:
    """A context that says in one sentence what the file system refuses, here or to TensorFlow.

    Args:
      what: What cannot be done then.
      folder: The run's, which knows whether there is a state to go on from.
      output: Which knows the command for it.

    Raises:
      UserError: Instead of the error.
    """
    import tensorflow as tf

    errors = tf.errors
    refusals = (
        OSError,
        errors.NotFoundError,
        errors.PermissionDeniedError,
        errors.ResourceExhaustedError,
        errors.FailedPreconditionError,
        errors.OutOfRangeError,
        errors.DataLossError,
        errors.UnknownError,  # what TensorFlow makes of an OSError in Python that it calls
    )
    try:
        yield
    except refusals as error:
        unknown = isinstance(error, errors.UnknownError) and not _PYTHONS.search(error.message)
        if unknown or _is_loss(error):
            raise
        file = getattr(error, "filename", None)
        after = "nothing was written"
        if folder.has_state:
            after = f"the state of training is intact: {output.resume_command(folder.path)}"
        raise UserError(
            f"Cannot {what}: {_reason(error)}{f' ({file})' if file else ''}; {after}."
        ) from error


@contextlib.contextmanager
def losing_workers(
    strategy: tf.distribute.Strategy | None, folder: RunFolder | WorkerFolder, output: Output
) -> Iterator[None]:
    """A context that says in one sentence that another worker is gone.

    Args:
      strategy: Or None for one device, where this does nothing.
      folder: The run's.
      output: The run's.

    Raises:
      WorkerLostError: Instead of what the next collective operation raises.
    """
    if strategy is None:
        yield
        return
    import tensorflow as tf

    try:
        yield
    except tf.errors.OpError as error:
        if not _is_loss(error):
            raise
        named = _TASK.search(error.message)
        who = f"The {named[1]} {named[2]}" if named else "A worker"
        after = "start all workers again, with --resume if the chief has saved a state"
        if folder.has_state:
            again = output.resume_command(folder.path)
            after = f"the state of training is intact, start all workers again: {again}"
        raise WorkerLostError(
            f"{who} of the cluster is gone, and the others cannot go on without it; {after}."
        ) from error


def _reason(error: Exception) -> str:
    """What an error says, in a line: without where in the graph, with which TensorFlow begins."""
    text = getattr(error, "strerror", None) or getattr(error, "message", None) or str(error)
    if python := _PYTHONS.search(text):
        return python[1].strip().rstrip(".")
    lines = [line for line in text.splitlines() if line.strip() and not _WHERE.match(line)]
    return (lines[0] if lines else type(error).__name__).strip().rstrip(".")


def _is_loss(error: Exception) -> bool:
    """Whether a worker is gone, or TensorFlow has given up on what it does with the others."""
    import tensorflow as tf

    lost = isinstance(error, (tf.errors.UnavailableError, tf.errors.AbortedError))
    return lost or "Collective ops is aborted" in getattr(error, "message", "")
