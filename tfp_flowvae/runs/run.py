"""One training run, from config to exported model."""

from __future__ import annotations

import dataclasses
import shlex
import signal
import sys
import time
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfp_flowvae._quiet import import_tensorflow
from tfp_flowvae.data import ImageSplits, check_dataset, load_images, stream_images
from tfp_flowvae.errors import UserError
from tfp_flowvae.flows.spec import format_stack
from tfp_flowvae.runs.config import TrainConfig
from tfp_flowvae.runs.failures import failing, losing_workers
from tfp_flowvae.runs.folder import RunFolder
from tfp_flowvae.runs.records import run_record, summary, write_records
from tfp_flowvae.runs.resume import check_state, is_complete, resume_command
from tfp_flowvae.runs.signals import SignalWatch, Stopped
from tfp_flowvae.runs.store import Checkpoint, CheckpointStore
from tfp_flowvae.runs.worker import WorkerFolder
from tfp_flowvae.training.precision import precision_warning
from tfp_flowvae.training.strategy import (
    any_worker,
    check_batch,
    check_strategy,
    is_chief,
    make_strategy,
)

if TYPE_CHECKING:
    import tensorflow as tf

    from tfp_flowvae.runs.session import Session

EXIT_DIVERGED = 1


@dataclasses.dataclass(frozen=True)
class Output:
    """Where a run is written and how much it says: nothing that decides its numbers.

    Attributes:
      path: The folder to write, or None for a new numbered one under `saved_models/`.
      overwrite: Whether the folder may hold something, which is then replaced.
      resume: Whether to go on with the run in it.
      checkpoint_steps: Steps between checkpoints within an epoch; 0 for each epoch's end alone.
      verbose: 0 for the summary alone, 1 for Keras's progress bar, 2 for a line an epoch.
      tensorboard: Whether to log for TensorBoard, into `tensorboard/` in the folder.
      strategy: Of `tf.distribute`, by its name in `STRATEGIES`.
      stream: Where to keep the images on disk; None to hold them in memory.
    """

    path: Path | None = None
    overwrite: bool = False
    resume: bool = False
    checkpoint_steps: int = 0
    verbose: int = 1
    tensorboard: bool = False
    strategy: str = "none"
    stream: Path | None = None

    def resume_command(self, path: Path) -> str:
        """The command that goes on with the run in a folder, with the same output."""
        options = {
            "checkpoint-steps": self.checkpoint_steps,
            "tensorboard": self.tensorboard,
            "strategy": "" if self.strategy == "none" else self.strategy,
            "stream": self.stream and shlex.quote(str(self.stream)),
            "verbose": "" if self.verbose == 1 else str(self.verbose),
        }
        return resume_command(path, options)


def train(config: TrainConfig, output: Output | None = None) -> int:
    """Trains, evaluates, exports and says what it did.

    Args:
      config: What to run.
      output: Where to, and how; by default into a new numbered folder.

    Returns:
      An exit status: 0; 1 if the loss was no longer finite; 130 after Ctrl-C and 143 after SIGTERM,
      with the state of training saved.

    Raises:
      UserError: For a user's mistake, and for what the machine cannot do (a full disk, a data file
        that is gone); the last state of training is then intact.
      WorkerLostError: A `UserError` for what another try may mend: another worker is gone.
    """
    output = output or Output()
    check_strategy(output.strategy)
    check_dataset(config.dataset, config.data_dir, image_shape=config.image_shape)
    if output.tensorboard and find_spec("tensorboard") is None:
        raise UserError(
            "--tensorboard needs the package tensorboard, which is not installed: "
            "pip install tensorboard, or leave the option out."
        )
    with SignalWatch() as signals:
        folder = None
        try:
            strategy = None
            if output.strategy != "none":
                import_tensorflow()
                if output.strategy == "multiworker":
                    print("Waiting for all workers of the cluster.", file=sys.stderr, flush=True)
                with signals.left_to_the_system():
                    strategy = make_strategy(output.strategy)
                check_batch(strategy, config.batch_size)
            with (
                _folder(config, output, strategy) as folder,
                losing_workers(strategy, folder, output),
            ):
                return _Run(config, output, folder, signals, strategy).run()
        except Stopped as stop:
            _say_stopped(stop, folder, output)
            return stop.status


def _folder(
    config: TrainConfig, output: Output, strategy: tf.distribute.Strategy | None
) -> RunFolder | WorkerFolder:
    if is_chief(strategy):
        return RunFolder(output.path, _stem(config), output.overwrite, output.resume)
    return WorkerFolder(output.path, output.resume)


class _Run:
    """A run in a folder of its own."""

    def __init__(
        self,
        config: TrainConfig,
        output: Output,
        folder: RunFolder | WorkerFolder,
        signals: SignalWatch,
        strategy: tf.distribute.Strategy | None,
    ) -> None:
        self._config, self._output, self._folder = config, output, folder
        self._signals, self._strategy = signals, strategy
        self._chief = is_chief(strategy)
        # When the run began and how long it had taken, in its parts before this one.
        self._began = self._first = time.time()
        self._earlier = 0.0

    def run(self) -> int:
        config, folder = self._config, self._folder
        store = CheckpointStore(folder.checkpoints)
        own = folder.earlier == folder.checkpoints
        start = (store if own else CheckpointStore(folder.earlier)).newest()
        if start is not None:
            check_state(config, start, folder.path)
            if is_complete(config, start, folder.earlier.parent):
                self._say(_complete(folder.path, start))
                return 0
            self._first = float(start.state.get("started", self._first))
            self._earlier = float(start.state.get("seconds", 0.0))
        import_tensorflow()
        splits = self._images()
        warning = precision_warning(config.precision)
        if warning:
            print(f"Warning: {warning}", file=sys.stderr)
        from tfp_flowvae.runs.session import Session

        session = Session(config, splits, self._strategy)
        self._fit(session, store, start)
        if session.diverged_at is not None:
            if self._chief:
                print(self._diverged(session), file=sys.stderr)
            return EXIT_DIVERGED
        with failing("evaluate the model", folder, self._output):
            metrics = session.evaluate()
        record = run_record(splits, len(session.rows), self._first, self._seconds())
        with failing("write the results", folder, self._output):
            session.write(folder.staging)
            write_records(folder.staging, metrics, session.rows, record)
            folder.publish()
        self._say(summary(folder.path, config, splits, metrics, record))
        if session.clipped:
            self._say(f"note      the gradient was clipped in {session.clipped:.1%} of the steps")
        return 0

    def _images(self) -> ImageSplits:
        config, cache = self._config, self._output.stream
        rest: dict[str, Any] = {"image_shape": config.image_shape}
        # What is odd about the images is said without the line of code that it comes from.
        with warnings.catch_warnings(record=True) as caught:
            if cache is None:
                images = load_images(config.dataset, config.data_dir, **rest)
            else:
                images = stream_images(config.dataset, config.data_dir, cache, **rest)
        for warning in caught:
            print(f"Warning: {warning.message}", file=sys.stderr)
        return images

    def _fit(self, session: Session, store: CheckpointStore, start: Checkpoint | None) -> None:
        from tfp_flowvae.runs.checkpoint import Interrupted, Saving

        output, folder, signals = self._output, self._folder, self._signals
        saving = Saving(store, start, output.checkpoint_steps, self._facts, stop=self._must_stop)
        board = folder.home / "tensorboard" if output.tensorboard and self._chief else None
        with failing("go on with training", folder, output), signals.waiting():
            folder.write_config(self._config.to_json())
            try:
                session.fit(output.verbose if self._chief else 0, board, saving)
            except Interrupted:
                # All meet once more: a scheduler that sees one worker leave ends the others, and
                # the chief must have saved by then.
                self._must_stop()

    def _must_stop(self) -> bool:
        """Whether a signal came, here or, as all workers stop together, to another."""
        stop = any_worker(self._strategy, self._signals.noted)
        if stop:
            self._signals.note(signal.SIGTERM)  # to another worker, if none came here
        return stop

    def _say(self, text: str) -> None:
        if self._chief:
            print(text)

    def _facts(self) -> dict[str, Any]:
        config = dataclasses.asdict(self._config)
        return {"config": config, "started": self._first, "seconds": self._seconds()}

    def _seconds(self) -> float:
        return self._earlier + time.time() - self._began

    def _diverged(self, session: Session) -> str:
        folder = self._folder
        left = "with nothing written"
        if folder.has_state:
            left = f"with its last states before that in {str(folder.checkpoints)!r}"
        return (
            f"Error: the loss became {session.last_loss} by step {session.diverged_at} and "
            f"training stopped, {left}; try a lower --learning-rate or a shorter flow."
        )


def _complete(path: Path, start: Checkpoint) -> str:
    epochs = f"The run in {path}/ is complete: {start.state['epoch']} epochs"
    if start.stopped_early:
        return f"{epochs}, after which early stopping ended it."
    return f"{epochs}; more --epochs go on from there."


def _say_stopped(stop: Stopped, folder: RunFolder | WorkerFolder | None, output: Output) -> None:
    if isinstance(folder, WorkerFolder):
        print(f"Stopped by {stop.name}; the chief has what is saved.", file=sys.stderr)
        return
    if folder is None or not folder.has_state:
        print(f"Stopped by {stop.name}; nothing was written.", file=sys.stderr)
        return
    command = output.resume_command(folder.path)
    print(f"\nStopped by {stop.name}; the state is saved. Go on with:\n{command}", file=sys.stderr)


def _stem(config: TrainConfig) -> str:
    prior = str(config.prior_spec)
    parts = [Path(config.dataset).stem, format_stack(config.posterior_spec.flows)]
    return "-".join([*parts, prior] if prior != "none" else parts)
