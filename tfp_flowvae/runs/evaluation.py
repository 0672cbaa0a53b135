"""Evaluates the models of runs and exports, and compares them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tfp_flowvae._files import written_aside
from tfp_flowvae._quiet import import_tensorflow
from tfp_flowvae.data import ImageSplits, load_labels
from tfp_flowvae.errors import UserError
from tfp_flowvae.runs.card import read_facts
from tfp_flowvae.runs.config import TrainConfig
from tfp_flowvae.runs.saved import (
    How,
    fixed_images,
    folder_of,
    load_model_and_images,
    progress_bar,
    read_config,
    read_evaluation,
)

if TYPE_CHECKING:
    from tfp_flowvae.evaluation.figures import DensityEvaluation, Evaluation
    from tfp_flowvae.models import FlowVAE, ImageDensity


def evaluate_run(path: Path, how: How, file: Path | None = None, card: bool = False) -> None:
    """Evaluates the model of a run or an export, and prints its figures.

    Args:
      path: The folder.
      how: How it is evaluated.
      file: A .json file for the figures, which is written completely or not at all; or None.
      card: Whether to write the figures into the model card, README.md in the folder.

    Raises:
      UserError: If there is no such model, its images do not fit it, a number is not allowed, or
        the file cannot be written.
    """
    check_json(file)
    config = read_config(path, how)
    check_sizes(how)
    if card:
        _check_card(folder_of(path))
    found = _measured(path, config, how)
    from tfp_flowvae.evaluation.table import table

    if file is not None:
        write_json(file, found.to_dict())
    if card:
        _write_card(path, found)
    print(table(str(path), found))
    if file is not None:
        print(f"\nfigures   {file}")


def _check_card(folder: Path) -> None:
    import_tensorflow()
    from tfp_flowvae.models.card import CARD, has_other_readme

    if has_other_readme(folder):
        raise UserError(
            f"{str(folder / CARD)!r} is no model card of this package and is not overwritten; move "
            "it away, or leave --card out."
        )


def _write_card(path: Path, found: Evaluation | DensityEvaluation) -> None:
    from tfp_flowvae.saving import load

    folder = folder_of(path)
    try:
        load(path).write_card(folder, read_facts(folder, found))
    except OSError as error:
        raise UserError(
            f"Cannot write the model card of {str(path)!r}: {error.strerror}."
        ) from error


def compare_runs(paths: Sequence[Path], how: How, across_protocols: bool = False) -> None:
    """Evaluates several models, and prints one table.

    Args:
      paths: Folders of runs, or .json files that `evaluate_run` wrote.
      how: How the models of the folders are evaluated.
      across_protocols: Whether figures of different protocols may be compared.

    Raises:
      UserError: As `evaluate_run`, or if the protocols or the kinds of model differ, there are
        fewer than two paths, or a file holds no figures.
    """
    if len(paths) < 2:
        raise UserError(f"compare needs two paths or more. Received: {len(paths)}.")
    check_sizes(how)
    read = {path: read_evaluation(path) for path in paths if path.suffix == ".json"}
    configs = {path: read_config(path, how) for path in paths if path not in read}
    _check_one_kind({path: (read.get(path) or configs[path]).model for path in paths})
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


def _check_one_kind(kinds: Mapping[Path, str]) -> None:
    first, kind = next(iter(kinds.items()))
    for path, other in kinds.items():
        if other != kind:
            what = {"vae": "a VAE", "flow": "a flow of images"}
            raise UserError(
                "compare takes models of one kind, because others have other figures: evaluate "
                f"each alone. Received: {what[kind]} in {str(first)!r} and {what[other]} in "
                f"{str(path)!r}."
            )


def check_json(file: Path | None) -> None:
    """Raises `UserError` if a file that will be written has no folder, or is one."""
    if file is None:
        return
    if not file.absolute().parent.is_dir():
        raise UserError(f"The folder of --json {str(file)!r} does not exist; make it first.")
    if file.is_dir():
        raise UserError(f"--json must name a file. Received: {str(file)!r}, which is a folder.")


def write_json(file: Path, values: Mapping[str, Any]) -> None:
    """Writes a .json file completely or not at all.

    Raises:
      UserError: If it cannot be written.
    """
    try:
        with written_aside(file) as out:
            out.write((json.dumps(values, indent=2) + "\n").encode())
    except OSError as error:
        raise UserError(f"Cannot write {str(file)!r}: {error.strerror}.") from error


def check_sizes(how: How) -> None:
    """Raises `UserError` if a number in `how.sizes` is not allowed."""
    from tfp_flowvae.evaluation.figures import Protocol

    Protocol(**how.sizes)


def _measured(path: Path, config: TrainConfig, how: How) -> Evaluation | DensityEvaluation:
    return measure(*load_model_and_images(path, config), config, how)


def measure(
    model: FlowVAE | ImageDensity, splits: ImageSplits, config: TrainConfig, how: How
) -> Evaluation | DensityEvaluation:
    """Evaluates a model, with progress bars.

    Args:
      model: The model.
      splits: The images.
      config: The config.
      how: How it is evaluated.
    """
    from tfp_flowvae.evaluation.classes import Labels, labels_by_name
    from tfp_flowvae.evaluation.evaluate import evaluate

    labels: Any = None
    classes = splits.classes
    if classes is not None:
        counts = np.bincount(classes.train[classes.train >= 0], minlength=len(classes.names))
        labels = Labels(getattr(classes, how.split), classes.names, counts / counts.sum())
    elif config.model == "flow":
        # The model does not know them, but each class has figures at no cost.
        shape = config.image_shape
        names = load_labels(config.dataset, config.data_dir, image_shape=shape, split=how.split)
        labels = None if names is None else labels_by_name(names)
    return evaluate(
        model,
        fixed_images(splits, config, how.split),
        None if how.split == "train" else fixed_images(splits, config, "train"),
        labels=labels,
        quick=how.quick,
        progress=progress_bar,
        dataset=config.dataset,
        split=how.split,
        binarization=config.binarization,
        **{"seed": config.seed, **how.sizes},
    )
