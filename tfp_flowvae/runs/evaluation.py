"""Evaluates the models of runs and exports, and compares them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tfp_flowvae._files import written_aside
from tfp_flowvae._quiet import import_tensorflow
from tfp_flowvae.data import ImageSplits
from tfp_flowvae.errors import UserError
from tfp_flowvae.runs.config import TrainConfig
from tfp_flowvae.runs.saved import (
    How,
    fixed_images,
    load_model_and_images,
    progress_bar,
    read_config,
    read_evaluation,
)

if TYPE_CHECKING:
    from tfp_flowvae.evaluation.figures import Evaluation
    from tfp_flowvae.models import FlowVAE


def evaluate_run(path: Path, how: How, file: Path | None = None) -> None:
    """Evaluates the model of a run or an export, and prints its figures.

    Args:
      path: The folder.
      how: How it is evaluated.
      file: A .json file for the figures, which is written completely or not at all; or None.

    Raises:
      UserError: If there is no such model, its images do not fit it, a number is not allowed, or
        the file cannot be written.
    """
    if file is not None and not file.absolute().parent.is_dir():
        raise UserError(f"The folder of --json {str(file)!r} does not exist; make it first.")
    config = read_config(path, how)
    check_sizes(how)
    found = _measured(path, config, how)
    from tfp_flowvae.evaluation.table import table

    if file is not None:
        try:
            with written_aside(file) as out:
                out.write((json.dumps(found.to_dict(), indent=2) + "\n").encode())
        except OSError as error:
            raise UserError(f"Cannot write {str(file)!r}: {error.strerror}.") from error
    print(table(str(path), found))
    if file is not None:
        print(f"\nfigures   {file}")


def compare_runs(paths: Sequence[Path], how: How, across_protocols: bool = False) -> None:
    """Evaluates several models, and prints one table.

    Args:
      paths: Folders of runs, or .json files that `evaluate_run` wrote.
      how: How the models of the folders are evaluated.
      across_protocols: Whether figures of different protocols may be compared.

    Raises:
      UserError: As `evaluate_run`, or if the protocols differ, there are fewer than two paths, or a
        file holds no figures.
    """
    if len(paths) < 2:
        raise UserError(f"compare needs two paths or more. Received: {len(paths)}.")
    check_sizes(how)
    read = {path: read_evaluation(path) for path in paths if path.suffix == ".json"}
    configs = {path: read_config(path, how) for path in paths if path not in read}
    import_tensorflow()
    from tfp_flowvae.evaluation.figures import Protocol
    from tfp_flowvae.evaluation.table import check_alike, comparison

    titles = list(map(str, paths))
    if not across_protocols:
        # What is known before anything is evaluated.
        known = [
            (p.dataset, p.split, p.binarization)
            if path in read and (p := read[path].protocol)
            else (configs[path].dataset, how.split, configs[path].binarization)
            for path in paths
        ]
        check_alike(titles, [Protocol(*facts) for facts in known])
    found = [read.get(path) or _measured(path, configs[path], how) for path in paths]
    if not across_protocols:
        check_alike(titles, [one.protocol for one in found])
    print(comparison(titles, found))


def check_sizes(how: How) -> None:
    """Raises `UserError` if a number in `how.sizes` is not allowed."""
    from tfp_flowvae.evaluation.figures import Protocol

    Protocol(**how.sizes)


def _measured(path: Path, config: TrainConfig, how: How) -> Evaluation:
    return measure(*load_model_and_images(path, config), config, how)


def measure(model: FlowVAE, splits: ImageSplits, config: TrainConfig, how: How) -> Evaluation:
    """Evaluates a model, with progress bars.

    Args:
      model: The model.
      splits: The images.
      config: The config.
      how: How it is evaluated.
    """
    from tfp_flowvae.evaluation.evaluate import evaluate

    return evaluate(
        model,
        fixed_images(splits, config, how.split),
        None if how.split == "train" else fixed_images(splits, config, "train"),
        quick=how.quick,
        progress=progress_bar,
        dataset=config.dataset,
        split=how.split,
        binarization=config.binarization,
        **{"seed": config.seed, **how.sizes},
    )
