"""One training run, from its config to an exported model."""

from __future__ import annotations

import dataclasses
import signal
import sys
import time
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfp_flowvae._quiet import import_tensorflow
from tfp_flowvae.data import ImageSplits, check_dataset
from tfp_flowvae.errors import NonFiniteError, UserError, first_line
from tfp_flowvae.flows.spec import format_stack
from tfp_flowvae.runs import messages
from tfp_flowvae.runs.card import facts_of_run
from tfp_flowvae.runs.config import TrainConfig
from tfp_flowvae.runs.failures import failing, losing_workers
from tfp_flowvae.runs.flow_checks import check_known_images
from tfp_flowvae.runs.folder import RunFolder
from tfp_flowvae.runs.images import load_splits
from tfp_flowvae.runs.output import Output
from tfp_flowvae.runs.records import run_record, write_records
from tfp_flowvae.runs.report import REPORT, write_run_report
from tfp_flowvae.runs.signals import SignalWatch, Stopped
from tfp_flowvae.runs.start import check_state, is_complete
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


def train(config: TrainConfig, output: Output | None = None) -> int:
    """Trains, evaluates and exports a model, and prints a summary.

    Args:
      config: What to run.
      output: Where and how to write the run; by default into a new numbered folder.

    Returns:
      The exit status: 0; 1 if the loss was not finite; 130 after Ctrl-C and 143 after SIGTERM, with
      the state of training saved.

    Raises:
      UserError: For a user's mistake or a failure of the machine, such as a full disk. The last
        state of training is then intact.
      WorkerLostError: A `UserError`: another worker of the cluster is gone.
    """
    output = output or Output()
    check_strategy(output.strategy)
    check_dataset(config.dataset, config.data_dir, image_shape=config.image_shape)
    if config.model == "flow":
        check_known_images(config)
    if output.tensorboard and find_spec("tensorboard") is None:
        raise UserError(
            "--tensorboard needs the package tensorboard, which is not installed: "
            "pip install tensorboard, or leave the option out."
        )
    with SignalWatch() as signals:
        folder = None
        try:
            strategy = _strategy(config, output, signals)
            with (
                _folder(config, output, strategy) as folder,
                losing_workers(strategy, folder, output),
            ):
                return _Run(config, output, folder, signals, strategy).run()
        except Stopped as stop:
            print(messages.stopped(stop, folder, output), file=sys.stderr)
            return stop.status


def _strategy(
    config: TrainConfig, output: Output, signals: SignalWatch
) -> tf.distribute.Strategy | None:
    if output.strategy == "none":
        return None
    import_tensorflow()
    if output.strategy == "multiworker":
        print("Waiting for all workers of the cluster.", file=sys.stderr, flush=True)
    with signals.left_to_the_system():
        strategy = make_strategy(output.strategy)
    check_batch(strategy, config.batch_size)
    return strategy


def _folder(
    config: TrainConfig, output: Output, strategy: tf.distribute.Strategy | None
) -> RunFolder | WorkerFolder:
    if is_chief(strategy):
        return RunFolder(output.path, _stem(config), output.overwrite, output.resume)
    return WorkerFolder(output.path, output.resume)


def _stem(config: TrainConfig) -> str:
    """The start of the name of a numbered folder, such as `digits-iaf-vamp-100`."""
    if config.model == "flow":
        return f"{Path(config.dataset).stem}-{config.flow}"
    prior = str(config.prior_spec)
    parts = [Path(config.dataset).stem, format_stack(config.posterior_spec.flows)]
    return "-".join([*parts, prior] if prior != "none" else parts)


@dataclasses.dataclass
class _Run:
    """A run in its folder.

    Attributes:
      began: When the run began, in seconds since 1970.
      earlier: How many seconds it had taken before it was resumed.
    """

    config: TrainConfig
    output: Output
    folder: RunFolder | WorkerFolder
    signals: SignalWatch
    strategy: tf.distribute.Strategy | None
    began: float = dataclasses.field(default_factory=time.time)
    earlier: float = 0.0

    def __post_init__(self) -> None:
        self._chief, self._resumed = is_chief(self.strategy), self.began

    def run(self) -> int:
        config, folder = self.config, self.folder
        store = CheckpointStore(folder.checkpoints)
        own = folder.earlier == folder.checkpoints
        start = (store if own else CheckpointStore(folder.earlier)).newest()
        if start is not None:
            check_state(config, start, folder.path)
            if is_complete(config, start, folder.earlier.parent):
                self._say(messages.complete(folder.path, start))
                return 0
            self.began = float(start.state.get("started", self.began))
            self.earlier = float(start.state.get("seconds", 0.0))
        import_tensorflow()
        splits = load_splits(self.config, self.output.stream)
        warning = precision_warning(config.precision)
        if warning:
            print(f"Warning: {warning}", file=sys.stderr)
        session = self._session(splits)
        try:
            self._fit(session, store, start)
        except NonFiniteError as error:
            if self._chief:
                said = messages.diverged(error, config.learning_rate, folder, self.output)
                print(said, file=sys.stderr)
            return EXIT_DIVERGED
        self._finish(session, splits)
        return 0

    def _session(self, splits: ImageSplits) -> Session:
        from tfp_flowvae.runs.flow_session import FlowSession
        from tfp_flowvae.runs.session import Session

        kind = FlowSession if self.config.model == "flow" else Session
        return kind(self.config, splits, self.strategy)

    def _fit(self, session: Session, store: CheckpointStore, start: Checkpoint | None) -> None:
        from tfp_flowvae.runs.checkpoint import Interrupted, Saving

        output, folder = self.output, self.folder
        facts = partial(self._facts, session)
        saving = Saving(store, start, output.checkpoint_steps, facts, self._must_stop)
        board = folder.home / "tensorboard" if output.tensorboard and self._chief else None
        with failing("train the model", folder, output), self.signals.waiting():
            folder.write_config(self.config.to_json())
            try:
                session.fit(output.verbose if self._chief else 0, board, saving)
            except Interrupted:
                # All workers wait for each other here. A scheduler that sees one leave ends the
                # others, and the chief must have saved by then.
                self._must_stop()

    def _finish(self, session: Session, splits: ImageSplits) -> None:
        """Evaluates the trained model, writes the results and prints the summary."""
        folder, history = self.folder, session.history
        with failing("evaluate the model", folder, self.output):
            metrics = session.evaluate()
        record = run_record(
            len(history.rows),
            self.began,
            self._seconds(),
            images={name: len(getattr(splits, name)) for name in ("train", "valid", "test")},
            image_shape=list(splits.image_shape),
            **({} if splits.classes is None else {"classes": list(splits.classes.names)}),
        )
        with failing("write the results", folder, self.output):
            session.write(folder.staging)
            write_records(folder.staging, metrics, history.rows, record)
            config = dataclasses.asdict(self.config)
            facts = facts_of_run(folder.path.resolve().name, config, metrics, record)
            session.model.write_card(folder.staging, facts)
            if self._chief:
                self._report(session, splits)
            folder.publish()
        self._say(messages.summary(folder.path, self.config, splits, metrics, record))
        if (folder.path / REPORT).is_file():
            self._say(f"report    {folder.path / REPORT}")
        if history.clipped:
            self._say(f"note      the gradient was clipped in {history.clipped:.1%} of the steps")

    def _report(self, session: Session, splits: ImageSplits) -> None:
        """Writes the report, in place of one of fewer epochs; a failure must not cost the run."""
        folder = self.folder
        (folder.path / REPORT).unlink(missing_ok=True)
        if self.output.no_report:
            return
        try:
            write_run_report(folder.staging, folder.path, session.model, splits, self.config)
        except OSError:
            raise
        except Exception as error:  # Parts of the user's own can raise anything here.
            print(f"Warning: there is no report: {first_line(error)}.", file=sys.stderr)

    def _must_stop(self) -> bool:
        """Whether a signal has come to this worker or to another; all workers stop together."""
        stop = any_worker(self.strategy, self.signals.noted)
        if stop:
            self.signals.note(signal.SIGTERM)  # For a worker that has received no signal itself.
        return stop

    def _say(self, text: str) -> None:
        if self._chief:
            print(text)

    def _facts(self, session: Session) -> dict[str, Any]:
        """What a checkpoint tells about the run besides its state."""
        return {
            "config": dataclasses.asdict(self.config),
            "images": session.images_sum,
            "started": self.began,
            "seconds": self._seconds(),
        }

    def _seconds(self) -> float:
        return self.earlier + time.time() - self._resumed
