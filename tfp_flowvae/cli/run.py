"""One training run, from config to exported model."""

from __future__ import annotations

import csv
import json
import os
import shlex
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tfp_flowvae._version import __version__
from tfp_flowvae.cli.folder import RunFolder
from tfp_flowvae.cli.quiet import import_tensorflow
from tfp_flowvae.data import ImageSplits, check_dataset, load_images
from tfp_flowvae.errors import UserError
from tfp_flowvae.flows.spec import format_spec
from tfp_flowvae.training.config import TrainConfig

EXIT_DIVERGED = 1
EXIT_INTERRUPTED = 130


def train(
    config: TrainConfig,
    output: Path | None = None,
    overwrite: bool = False,
    verbose: int = 1,
    tensorboard: bool = False,
) -> int:
    """Trains, evaluates, exports and says what it did.

    Args:
      config: What to run.
      output: The folder to write, or None for a new numbered one under `saved_models/`.
      overwrite: Whether `output` may hold something, which is then replaced.
      verbose: 0 for the summary alone, 1 for Keras's progress bar, 2 for a line an epoch.
      tensorboard: Whether to log for TensorBoard, into `tensorboard/` in the folder.

    Returns:
      An exit status: 0, 1 if the loss was no longer finite (nothing is written then), or 130 after
      Ctrl-C (what was trained is exported).

    Raises:
      UserError: For a user's mistake; nothing is written then.
    """
    check_dataset(config.dataset, config.data_dir)
    if tensorboard and find_spec("tensorboard") is None:
        raise UserError(
            "--tensorboard needs the package tensorboard, which is not installed: "
            "pip install tensorboard, or leave the option out."
        )
    with RunFolder(output, _stem(config), overwrite) as folder:
        started = time.time()
        import_tensorflow()
        splits = load_images(config.dataset, config.data_dir)
        from tfp_flowvae.cli.session import Session

        session = Session(config, splits)
        session.fit(verbose, folder.staging / "tensorboard" if tensorboard else None)
        if session.diverged_at is not None:
            print(
                f"Error: the loss became {session.last_loss} at step {session.diverged_at} and "
                "training stopped, with nothing written; try a lower --learning-rate or a shorter "
                "flow.",
                file=sys.stderr,
            )
            return EXIT_DIVERGED
        metrics = session.evaluate()
        trained = time.time()
        session.write(folder.staging)
        _write_records(folder.staging, config, metrics, session.rows)
        run = _run_record(config, splits, session.interrupted, started, trained)
        _write_json(folder.staging / "run.json", run)
        folder.publish()
    print(_summary(folder.path, config, splits, metrics, session.interrupted))
    if session.clipped:
        print(f"note      the gradient was clipped in {session.clipped:.1%} of the steps")
    return EXIT_INTERRUPTED if session.interrupted else 0


def _stem(config: TrainConfig) -> str:
    prior = str(config.prior_spec)
    name = Path(config.dataset).stem
    return "-".join([name, format_spec(config.flow_specs), *([prior] if prior != "none" else [])])


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def _write_records(
    folder: Path, config: TrainConfig, metrics: dict[str, float], rows: list[dict[str, float]]
) -> None:
    (folder / "config.json").write_text(config.to_json(), encoding="utf-8")
    _write_json(folder / "metrics.json", metrics)
    with (folder / "history.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _run_record(
    config: TrainConfig, splits: ImageSplits, interrupted: bool, started: float, trained: float
) -> dict[str, Any]:
    """What differs from one repetition to the next, and what a reader needs to place it."""
    packages = ("tensorflow", "tensorflow-probability", "keras", "numpy")
    return {
        "started": datetime.fromtimestamp(started, UTC).isoformat(timespec="seconds"),
        "seconds": round(trained - started, 2),
        "interrupted": interrupted,
        "command": shlex.join([os.path.basename(sys.argv[0]), *sys.argv[1:]]),
        "images": {k: len(getattr(splits, k)) for k in ("train", "valid", "test")},
        "image_shape": list(splits.image_shape),
        "python": sys.version.split()[0],
        "packages": {"tfp_flowvae": __version__} | {p: version(p) for p in packages},
    }


def _seen(config: TrainConfig) -> str:
    seen = config.binarization
    return "grey levels as they are" if seen == "none" else f"{seen} binarization"


def _summary(
    path: Path,
    config: TrainConfig,
    splits: ImageSplits,
    metrics: dict[str, float],
    interrupted: bool,
) -> str:
    python = Path(sys.executable)
    if python.is_relative_to(Path.cwd()):
        python = python.relative_to(Path.cwd())
    sample = f"-m tfp_flowvae sample {shlex.quote(str(path))} -n 64 --output grid.png"
    stopped = "Stopped by Ctrl-C; what was trained until then:\n" if interrupted else ""
    per_dimension = metrics.get("test_bits_per_dimension")
    more = "" if per_dimension is None else f"\n  bits/dim         {per_dimension:.3f}"
    nll = metrics.get("test_nll")
    if nll is not None:
        more += (
            f"\n-log p(x)          {nll:.2f} (importance-weighted, {config.nll_samples} samples)"
        )
    return f"""
{stopped}test free energy   {metrics["test_free_energy"]:.2f} nats per image \
(-ELBO, one sample; {len(splits.test)} images, {_seen(config)})
  -log p(x|z)      {-metrics["test_log_likelihood"]:.2f}
  KL(q || p)       {metrics["test_kl"]:.2f}{more}

model     {path}/ (a SavedModel, and model.keras for tfp_flowvae.load)
pictures  {path}/samples.png, reconstructions.png, training.png
metrics   {path}/metrics.json, history.csv
sample    {python} {sample}"""
