"""Evaluates the models of runs and exports, and compares them."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tfp_flowvae._files import KERAS_FILE, written_aside
from tfp_flowvae._quiet import import_tensorflow
from tfp_flowvae.data import ImageSplits, binarize_fixed, check_dataset, to_unit
from tfp_flowvae.errors import UserError
from tfp_flowvae.runs.card import read_facts
from tfp_flowvae.runs.config import TrainConfig
from tfp_flowvae.runs.folder import CONFIG
from tfp_flowvae.runs.images import load_splits

if TYPE_CHECKING:
    from tfp_flowvae.evaluation.figures import Evaluation


@dataclasses.dataclass(frozen=True)
class How:
    """How models are evaluated.

    Attributes:
      dataset: The data set; None for that of the run.
      binarization: One of `BINARIZATIONS`; None for that of the run.
      split: "train", "valid" or "test".
      quick: Whether to take about a minute.
      sizes: Other attributes of `Protocol`, such as `samples`.
    """

    dataset: str | None = None
    binarization: str | None = None
    split: str = "test"
    quick: bool = False
    sizes: dict[str, Any] = dataclasses.field(default_factory=dict)


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
    if file is not None and not file.absolute().parent.is_dir():
        raise UserError(f"The folder of --json {str(file)!r} does not exist; make it first.")
    config = _config(path, how)
    _check_sizes(how)
    found = _evaluate(path, config, how)
    from tfp_flowvae.evaluation.table import table

    if file is not None:
        try:
            with written_aside(file) as out:
                out.write((json.dumps(found.to_dict(), indent=2) + "\n").encode())
        except OSError as error:
            raise UserError(f"Cannot write {str(file)!r}: {error.strerror}.") from error
    if card:
        _write_card(path, found)
    print(table(str(path), found))
    if file is not None:
        print(f"\nfigures   {file}")


def _write_card(path: Path, found: Evaluation) -> None:
    from tfp_flowvae.saving import load

    folder = path.parent if path.suffix == ".keras" else path
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
      UserError: As `evaluate_run`, or if the protocols differ, there are fewer than two paths, or a
        file holds no figures.
    """
    if len(paths) < 2:
        raise UserError(f"compare needs two paths or more. Received: {len(paths)}.")
    _check_sizes(how)
    read = {path: _read(path) for path in paths if path.suffix == ".json"}
    configs = {path: _config(path, how) for path in paths if path not in read}
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
    found = [read.get(path) or _evaluate(path, configs[path], how) for path in paths]
    if not across_protocols:
        check_alike(titles, [one.protocol for one in found])
    print(comparison(titles, found))


def _config(path: Path, how: How) -> TrainConfig:
    """The config of a run, with what `how` overrides; without a config.json, that of the data."""
    folder = path.parent if path.suffix == ".keras" else path
    model = path if path.suffix == ".keras" else path / KERAS_FILE
    if not model.is_file():
        raise UserError(
            f"{str(path)!r} holds no {KERAS_FILE}; give the folder of a finished run or an export, "
            "such as saved_models/digits-iaf-vamp-100-001."
        )
    given: dict[str, Any] = {}
    if how.dataset is not None:
        given |= {"dataset": how.dataset, "image_shape": None}
    if how.binarization is not None:
        given["binarization"] = how.binarization
    if (folder / CONFIG).is_file():
        if _is_of_density(folder / CONFIG):
            raise UserError(f"{str(path)!r} holds a density, and only a FlowVAE can be evaluated.")
        config = TrainConfig.from_file(folder / CONFIG, **given)
    elif how.dataset is None or how.binarization is None:
        raise UserError(
            f"{str(path)!r} has no {CONFIG}, which names the images of a run; give --dataset and "
            "--binarization."
        )
    else:
        config = TrainConfig(**given)
    check_dataset(config.dataset, config.data_dir, image_shape=config.image_shape)
    return config


def _is_of_density(file: Path) -> bool:
    """Whether the command `density` wrote a config.json."""
    try:
        return "data" in json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False  # What reads it next says what is wrong.


def _check_sizes(how: How) -> None:
    from tfp_flowvae.evaluation.figures import Protocol

    Protocol(**how.sizes)


def _evaluate(path: Path, config: TrainConfig, how: How) -> Evaluation:
    splits = load_splits(config)
    import_tensorflow()
    from tfp_flowvae.evaluation.evaluate import evaluate
    from tfp_flowvae.models import FlowVAE
    from tfp_flowvae.saving import load

    model = load(path)
    if not isinstance(model, FlowVAE):
        raise UserError(
            f"{str(path)!r} holds a {type(model).__name__}, and only a FlowVAE can be evaluated."
        )
    if model.image_shape != splits.image_shape:
        raise UserError(
            f"The model in {str(path)!r} needs images of shape {model.image_shape}. Received: "
            f"{config.dataset!r} with images of shape {splits.image_shape}; give another --dataset."
        )
    return evaluate(
        model,
        _images(splits, config, how.split),
        None if how.split == "train" else _images(splits, config, "train"),
        quick=how.quick,
        progress=_progress,
        dataset=config.dataset,
        split=how.split,
        binarization=config.binarization,
        **{"seed": config.seed, **how.sizes},
    )


def _images(splits: ImageSplits, config: TrainConfig, split: str) -> np.ndarray:
    images = getattr(splits, split)
    return to_unit(*binarize_fixed(images, splits.levels, config.binarization, split))


def _progress(places: Iterable[int], title: str) -> Iterable[int]:
    from tqdm import tqdm

    # disable=None shows the bar on terminals only.
    return tqdm(places, title, disable=None, leave=False, file=sys.stderr)


def _read(file: Path) -> Evaluation:
    """The figures in a file that `evaluate_run` wrote."""
    from tfp_flowvae.evaluation.figures import Evaluation

    try:
        return Evaluation.from_dict(json.loads(file.read_text(encoding="utf-8")))
    except OSError as error:
        raise UserError(f"Cannot read {str(file)!r}: {error.strerror}.") from error
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise UserError(
            f"{str(file)!r} holds no figures of this version; write it with evaluate --json."
        ) from error
