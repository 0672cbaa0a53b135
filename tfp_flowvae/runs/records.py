"""What a run writes and says about itself, in words and numbers."""

from __future__ import annotations

import csv
import json
import os
import shlex
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tfp_flowvae._version import __version__
from tfp_flowvae.data import ImageSplits
from tfp_flowvae.runs.config import TrainConfig
from tfp_flowvae.runs.resume import RECORD, python_command

try:
    import resource
except ImportError:  # Windows has none.
    resource = None  # type: ignore[assignment]


def peak_memory_mib() -> int | None:
    """The most memory this process has held so far, in MiB; None where the system does not say."""
    if resource is None:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / 2**20 if sys.platform == "darwin" else peak / 2**10)


def write_records(
    folder: Path, metrics: dict[str, float], rows: list[dict[str, float]], record: dict[str, Any]
) -> None:
    """Writes metrics.json, history.csv and run.json."""
    _write_json(folder / "metrics.json", metrics)
    with (folder / "history.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    _write_json(folder / RECORD, record)


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def run_record(splits: ImageSplits, epochs: int, started: float, seconds: float) -> dict[str, Any]:
    """What differs from one repetition to the next, and what a reader needs to place it.

    Args:
      splits: The images.
      epochs: How many were trained.
      started: When the run began, before it was resumed too, in seconds since 1970.
      seconds: How long it took, all its parts together.
    """
    packages = ("tensorflow", "tensorflow-probability", "keras", "numpy")
    return {
        "started": datetime.fromtimestamp(started, UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 2),
        "epochs": epochs,
        "peak_memory_mib": peak_memory_mib(),
        "command": shlex.join([os.path.basename(sys.argv[0]), *sys.argv[1:]]),
        "images": {k: len(getattr(splits, k)) for k in ("train", "valid", "test")},
        "image_shape": list(splits.image_shape),
        "python": sys.version.split()[0],
        "packages": {"tfp_flowvae": __version__} | {p: version(p) for p in packages},
    }


def summary(
    path: Path,
    config: TrainConfig,
    splits: ImageSplits,
    metrics: dict[str, float],
    record: dict[str, Any],
) -> str:
    """What a run says at its end."""
    sample = f"-m tfp_flowvae sample {shlex.quote(str(path))} -n 64 --output grid.png"
    per_dimension = metrics.get("test_bits_per_dimension")
    more = "" if per_dimension is None else f"\n  bits/dim         {per_dimension:.3f}"
    nll = metrics.get("test_nll")
    if nll is not None:
        more += (
            f"\n-log p(x)          {nll:.2f} (importance-weighted, {config.nll_samples} samples)"
        )
    peak = record["peak_memory_mib"]
    memory = "" if peak is None else f"\nmemory    {peak} MiB at the most"
    return f"""
test free energy   {metrics["test_free_energy"]:.2f} nats per image \
(-ELBO, one sample; {len(splits.test)} images, {_seen(config)})
  -log p(x|z)      {-metrics["test_log_likelihood"]:.2f}
  KL(q || p)       {metrics["test_kl"]:.2f}{more}

model     {path}/ (a SavedModel, and model.keras for tfp_flowvae.load)
pictures  {path}/samples.png, reconstructions.png, training.png
metrics   {path}/metrics.json, history.csv{memory}
sample    {python_command()} {sample}"""


def _seen(config: TrainConfig) -> str:
    seen = config.binarization
    return "grey levels as they are" if seen == "none" else f"{seen} binarization"
