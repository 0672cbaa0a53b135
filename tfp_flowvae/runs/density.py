"""One run of a density: from a table to a fitted `FlowDensity`, its figures and its picture."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tfp_flowvae._quiet import import_tensorflow
from tfp_flowvae.data.table import Table, load_table
from tfp_flowvae.distributions.spec import parse_distribution
from tfp_flowvae.errors import NonFiniteError, UserError
from tfp_flowvae.runs.card import facts_of_density
from tfp_flowvae.runs.failures import failing
from tfp_flowvae.runs.folder import RunFolder
from tfp_flowvae.runs.messages import diverged
from tfp_flowvae.runs.output import Output
from tfp_flowvae.runs.records import run_record, write_records

if TYPE_CHECKING:
    from tfp_flowvae.models import FlowDensity

EXIT_DIVERGED = 1
# The shuffle of the rows into splits is the same for every seed of a run.
_SPLIT_SEED = 1797
_FRACTION = 0.1


@dataclasses.dataclass(frozen=True)
class DensityConfig:
    """Every setting of a run of a density.

    Attributes:
      data: The file of the table.
      flow: The spec of the flow, with the base before it if it is not the normal.
      context: The columns that the density is conditioned on.
      columns: The columns that the density is of; empty for all columns but the context's.
      epochs: How many passes over the training rows, at most.
      batch_size: How many rows to a step.
      learning_rate: Adam's, at the first step; it falls to 0 along a cosine.
      patience: After how many epochs without a better validation log-likelihood to stop.
      seed: The seed.

    Raises:
      UserError: If a number is not allowed, or the spec does not parse.
    """

    data: str
    flow: str = "maf:5"
    context: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    epochs: int = 100
    batch_size: int = 256
    learning_rate: float = 1e-3
    patience: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "patience"):
            if getattr(self, name) < 1:
                flag = f"--{name.replace('_', '-')}"
                raise UserError(f"{flag} must be at least 1. Received: {getattr(self, name)}.")
        if not 0.0 < self.learning_rate < 1.0:
            raise UserError(
                "--learning-rate must lie strictly between 0 and 1. "
                f"Received: {self.learning_rate}."
            )
        both = sorted(set(self.context) & set(self.columns))
        if both:
            raise UserError(
                f"Column {both[0]!r} is in both --columns and --context; name it in one of them."
            )
        parse_distribution(self.flow)


@dataclasses.dataclass(frozen=True)
class _Rows:
    """The rows of a split: `[N, D]`, and `[N, C]` or None, float32."""

    x: np.ndarray
    context: np.ndarray | None

    @property
    def inputs(self) -> tuple[np.ndarray, ...]:
        """The arguments of `fit`."""
        return (self.x,) if self.context is None else (self.x, self.context)


def fit_density(config: DensityConfig, output: Output) -> int:
    """Fits a density to a table, writes the run's folder and prints a summary.

    Args:
      config: What to fit.
      output: Where to write the run, and how much to print.

    Returns:
      An exit status: 0; 1 if the loss or a weight was not finite.

    Raises:
      UserError: For a user's mistake or a failure of the machine.
    """
    started = time.time()
    table = load_table(Path(config.data))
    context = table.select(config.context) if config.context else None
    names = config.columns or table.without(context.names if context else ()).names
    if not names:
        raise UserError("Every column is a context; leave a column out of --context.")
    columns = table.select(names)
    splits = _split(columns, context, config.batch_size)
    stem = f"{Path(config.data).stem}-{config.flow}"
    with RunFolder(output.path, stem, output.overwrite) as folder:
        import_tensorflow()
        from tfp_flowvae.runs.history import EpochHistory

        history = EpochHistory()
        with failing("fit the density", folder, output):
            folder.write_config(json.dumps(dataclasses.asdict(config), indent=2) + "\n")
            try:
                model = _fit(config, splits, history, output.verbose)
            except NonFiniteError as error:
                rate, larger = config.learning_rate, "a larger --batch-size"
                print(diverged(error, rate, folder, output, larger), file=sys.stderr)
                return EXIT_DIVERGED
        metrics = _metrics(model, splits)
        record = run_record(
            len(history.rows),
            started,
            time.time() - started,
            rows={name: len(rows.x) for name, rows in splits.items()},
            columns=list(columns.names),
            context=list(context.names) if context else [],
        )
        with failing("write the results", folder, output):
            model.export(folder.staging)
            write_records(folder.staging, metrics, history.rows, record)
            facts = facts_of_density(
                folder.path.resolve().name, dataclasses.asdict(config), metrics, record
            )
            model.write_card(folder.staging, facts)
            _draw(folder.staging / "corner.png", model, columns.names, splits["test"], config.seed)
            folder.publish()
        print(_summary(folder.path, config, metrics, record))
    return 0


def _split(columns: Table, context: Table | None, batch_size: int) -> dict[str, _Rows]:
    """Shuffles the rows, always in the same way; a tenth each is for validation and testing."""
    count = len(columns.rows)
    order = np.random.default_rng(_SPLIT_SEED).permutation(count)
    held_out = max(1, round(_FRACTION * count))
    if count - 2 * held_out < batch_size:
        raise UserError(
            f"A batch of {batch_size} rows needs more than the {count - 2 * held_out} training "
            f"rows that there are; choose a smaller --batch-size. Received: {count} rows, of "
            f"which {2 * held_out} are held out."
        )
    places = np.split(order, [count - 2 * held_out, count - held_out])

    def rows(where: np.ndarray) -> _Rows:
        given = None if context is None else context.rows[where].astype(np.float32)
        return _Rows(columns.rows[where].astype(np.float32), given)

    return dict(zip(("train", "valid", "test"), map(rows, places), strict=True))


def _fit(
    config: DensityConfig, splits: dict[str, _Rows], history: Any, verbose: int
) -> FlowDensity:
    """Returns the fitted model with its best weights."""
    import keras

    from tfp_flowvae.models import FlowDensity
    from tfp_flowvae.training.callbacks import ProgressLine

    keras.utils.set_random_seed(config.seed)
    train, valid = splits["train"], splits["valid"]
    steps = -(-len(train.x) // config.batch_size)
    model = FlowDensity(
        flow=config.flow,
        event_size=train.x.shape[1],
        context_size=None if train.context is None else train.context.shape[1],
        seed=config.seed,
    )
    schedule = keras.optimizers.schedules.CosineDecay(config.learning_rate, steps * config.epochs)
    model.compile(keras.optimizers.Adam(schedule, global_clipnorm=10.0))
    early = keras.callbacks.EarlyStopping(
        "val_log_likelihood", mode="max", patience=config.patience, restore_best_weights=True
    )
    shown = (
        [ProgressLine(verbose, ("loss", "log_likelihood", "val_log_likelihood"))] if verbose else []
    )
    model.fit(
        *train.inputs,
        batch_size=config.batch_size,
        epochs=config.epochs,
        validation_data=valid.inputs if valid.context is not None else valid.x,
        callbacks=[*shown, history, early],
        verbose=0,
    )
    return model


def _metrics(model: FlowDensity, splits: dict[str, _Rows]) -> dict[str, float]:
    """The mean log-likelihood of the held-out rows, in nats, and its standard error for testing."""
    valid, test = (
        np.asarray(model.log_prob(*splits[name].inputs), np.float64) for name in ("valid", "test")
    )
    return {
        "valid_log_likelihood": float(valid.mean()),
        "test_log_likelihood": float(test.mean()),
        "test_log_likelihood_se": float(np.std(test, ddof=1) / np.sqrt(len(test))),
    }


def _draw(path: Path, model: FlowDensity, names: tuple[str, ...], rows: _Rows, seed: int) -> None:
    """Draws held-out rows beside as many samples, each with the context of its row."""
    from tfp_flowvae.evaluation.corner import save_corner

    if rows.context is None:
        samples = model.sample(len(rows.x), seed=seed)
    else:
        samples = model.sample(1, rows.context, seed=seed)[0]
    save_corner(path, rows.x, np.asarray(samples), names)


def _summary(
    path: Path, config: DensityConfig, metrics: dict[str, float], record: dict[str, Any]
) -> str:
    given = f" given {', '.join(record['context'])}" if record["context"] else ""
    return f"""
test log-likelihood   {metrics["test_log_likelihood"]:.3f} nats per row, standard error \
{metrics["test_log_likelihood_se"]:.3f} ({record["rows"]["test"]} rows held out)
density               of {", ".join(record["columns"])}{given}; flow {config.flow}, \
{record["epochs"]} epochs

model     {path}/ (a SavedModel, and model.keras for keras.saving.load_model)
picture   {path}/corner.png
metrics   {path}/metrics.json, history.csv"""
