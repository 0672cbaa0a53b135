"""What a run prints about itself."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from tfp_flowvae.data import ImageSplits
from tfp_flowvae.errors import NonFiniteError
from tfp_flowvae.runs.config import TrainConfig
from tfp_flowvae.runs.folder import RunFolder
from tfp_flowvae.runs.output import Output, python
from tfp_flowvae.runs.signals import Stopped
from tfp_flowvae.runs.store import Checkpoint
from tfp_flowvae.runs.worker import WorkerFolder


def summary(
    path: Path,
    config: TrainConfig,
    splits: ImageSplits,
    metrics: dict[str, float],
    record: dict[str, Any],
) -> str:
    """Returns the summary that a run prints at its end."""
    if config.model == "flow":
        return _summary_of_flow(path, config, splits, metrics)
    sample = ["-m", "tfp_flowvae", "sample", str(path), "-n", "64", "--output", "grid.png"]
    more = ""
    if "test_bits_per_dimension" in metrics:
        more += f"\n  bits/dim         {metrics['test_bits_per_dimension']:.3f}"
    if "test_nll" in metrics:
        how = f"importance-weighted, {config.nll_samples} samples"
        how += "" if splits.classes is None else ", given their labels"
        more += f"\n-log p(x)          {metrics['test_nll']:.2f} ({how})"
    peak = record["peak_memory_mib"]
    memory = "" if peak is None else f"\nmemory    {peak} MiB at the most"
    seen = f"{config.binarization} binarization"
    if config.binarization == "none":
        seen = "grey levels as they are"
    if splits.classes is not None:
        seen += ", given their labels"
    return f"""
test free energy   {metrics["test_free_energy"]:.2f} nats per image \
(-ELBO, one sample; {len(splits.test)} images, {seen})
  -log p(x|z)      {-metrics["test_log_likelihood"]:.2f}
  KL(q || p)       {metrics["test_kl"]:.2f}{more}

model     {path}/ (a SavedModel, and model.keras for tfp_flowvae.load)
pictures  {path}/samples.png, reconstructions.png, training.png
metrics   {path}/metrics.json, history.csv{memory}
sample    {shlex.join([python(), *sample])}"""


def _summary_of_flow(
    path: Path, config: TrainConfig, splits: ImageSplits, metrics: dict[str, float]
) -> str:
    more = ""
    if "test_nll" in metrics:
        more = f"\n  with {config.nll_samples} draws    {metrics['test_nll']:.2f} nats per image"
    given = "" if splits.classes is None else ", given their labels"
    sample = ["-m", "tfp_flowvae", "sample", str(path), "-n", "64", "--output", "grid.png"]
    return f"""
test bits/dim      {metrics["test_bits_per_dimension"]:.3f}, an upper bound \
({config.dequantize} dequantisation; {len(splits.test)} images{given})
  -log P(x)        {metrics["test_nll_bound"]:.2f} nats per image at the most{more}

model     {path}/ (a SavedModel, and model.keras for tfp_flowvae.load)
pictures  {path}/samples.png (temperature {config.temperature:g}), training.png
metrics   {path}/metrics.json, history.csv
sample    {shlex.join([python(), *sample])}"""


def complete(path: Path, start: Checkpoint) -> str:
    """Returns the message of `--resume` for a run that is complete."""
    epochs = f"The run in {path}/ is complete: {start.state['epoch']} epochs"
    if start.stopped_early:
        return f"{epochs}, after which early stopping ended it."
    return f"{epochs}; give more --epochs to continue it."


def diverged(
    error: NonFiniteError,
    rate: float,
    folder: RunFolder | WorkerFolder,
    output: Output,
    steadier: str = "--clip-norm 10",
) -> str:
    """Returns the message of a run that failed because a number was not finite.

    Args:
      error: What was not finite.
      rate: The learning rate of the run.
      folder: The folder of the run.
      output: The output of the run.
      steadier: The option that makes the steps of the optimizer steadier.
    """
    lower = f"--learning-rate {rate / 10:g}"
    said = f"Error: {error.sentence}. {error.advice(lower, steadier)}"
    if not folder.has_state:
        return f"{said} Nothing was written."
    command = f"{output.resume_command(folder.path)} {lower}"
    return f"{said} The last good state is saved; go on from it with:\n{command}"


def stopped(stop: Stopped, folder: RunFolder | WorkerFolder | None, output: Output) -> str:
    """Returns the message of a run that a signal stops."""
    if isinstance(folder, WorkerFolder):
        return f"Stopped by {stop.name}; the chief has what is saved."
    if folder is None or not folder.has_state:
        return f"Stopped by {stop.name}; nothing was written."
    command = output.resume_command(folder.path)
    return f"\nStopped by {stop.name}; the state is saved. Resume with:\n{command}"
