"""Failures of the machine as errors of one sentence: a full disk, a lost file, a lost worker."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tfp_flowvae.errors import UserError, first_line
from tfp_flowvae.runs.folder import RunFolder
from tfp_flowvae.runs.output import Output
from tfp_flowvae.runs.worker import WorkerFolder

if TYPE_CHECKING:
    import tensorflow as tf

# A worker's name in the errors of TensorFlow, which name the lost worker first; but before it may
# come the device of the operation that failed, which belongs to this worker.
_TASK = re.compile(r"/job:(\w+)(?:/replica:\d+)?/task:(\d+)\b(?!/device)")


class WorkerLostError(UserError):
    """Another worker of the cluster is gone, and training may succeed when it is started again.

    Attributes:
      status: 75, `EX_TEMPFAIL` in `sysexits.h`: a script may try again.
    """

    status = 75


@contextlib.contextmanager
def failing(what: str, folder: RunFolder | WorkerFolder, output: Output) -> Iterator[None]:
    """A context in which an error of the file system becomes one sentence.

    Args:
      what: What the context does, for the sentence "Cannot ...".
      folder: The folder of the run.
      output: The output of the run.

    Raises:
      UserError: If Python or TensorFlow cannot read or write a file, or memory is exhausted.
    """
    import tensorflow as tf

    # TensorFlow's errors for ENOENT, EACCES, ENOSPC and EFBIG. ResourceExhaustedError also means
    # that a device has no memory left.
    refusals = (
        OSError,
        tf.errors.NotFoundError,
        tf.errors.PermissionDeniedError,
        tf.errors.ResourceExhaustedError,
        tf.errors.OutOfRangeError,
    )
    try:
        yield
    except refusals as error:
        if _is_loss(error) or isinstance(error, BrokenPipeError):
            raise  # Neither is about a file: the command line is told of a reader that has gone.
        file = getattr(error, "filename", None)
        after = "nothing was written"
        if folder.has_state:
            after = f"the state of training is intact: {output.resume_command(folder.path)}"
        raise UserError(
            f"Cannot {what}: {first_line(error)}{f' ({file})' if file else ''}; {after}."
        ) from error


@contextlib.contextmanager
def losing_workers(
    strategy: tf.distribute.Strategy | None, folder: RunFolder | WorkerFolder, output: Output
) -> Iterator[None]:
    """A context in which the loss of another worker becomes one sentence.

    Args:
      strategy: The strategy, or None for one device.
      folder: The folder of the run.
      output: The output of the run.

    Raises:
      WorkerLostError: If a collective operation fails because a worker is gone.
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
            f"{who} of the cluster is gone, and the others cannot continue without it; {after}."
        ) from error


def _is_loss(error: Exception) -> bool:
    """Whether a collective operation failed because a worker is gone."""
    import tensorflow as tf

    lost = isinstance(error, (tf.errors.UnavailableError, tf.errors.AbortedError))
    return lost or "Collective ops is aborted" in getattr(error, "message", "")
