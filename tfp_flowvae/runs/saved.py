"""The model of a run's folder or of an export, and its images."""

from __future__ import annotations

import dataclasses
import json
import sys
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tfp_flowvae._files import KERAS_FILE
from tfp_flowvae._quiet import import_tensorflow
from tfp_flowvae.data import ImageSplits, binarize_fixed, check_dataset, to_unit
from tfp_flowvae.errors import UserError
from tfp_flowvae.runs.config import TrainConfig
from tfp_flowvae.runs.folder import CONFIG
from tfp_flowvae.runs.images import load_splits
from tfp_flowvae.runs.records import is_of_density, read_json

if TYPE_CHECKING:
    from tfp_flowvae.evaluation.figures import DensityEvaluation, Evaluation
    from tfp_flowvae.models import FlowVAE, ImageDensity


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


def read_config(path: Path, how: How) -> TrainConfig:
    """Returns the config of a run, with what `how` overrides.

    For an export without a config.json, it has the kind of model, the data set and the binarisation
    of `how`, and is right about nothing else.

    Args:
      path: The folder of a run or an export, or a .keras file in one.
      how: How the model is evaluated.

    Raises:
      UserError: If there is no model of images, its images are not known, or they cannot be loaded.
    """
    model = path if path.suffix == ".keras" else path / KERAS_FILE
    if not model.is_file():
        raise UserError(
            f"{str(path)!r} holds no {KERAS_FILE}; give the folder of a finished run or an export, "
            "such as saved_models/digits-iaf-vamp-100-001."
        )
    given: dict[str, Any] = {}
    if how.dataset is not None:
        # The classes of another data set need not be those of the model.
        given |= {"dataset": how.dataset, "image_shape": None, "labels": False}
    if how.binarization is not None:
        given["binarization"] = how.binarization
    if has_config(path):
        if _holds_density(folder_of(path) / CONFIG):
            raise UserError(
                f"{str(path)!r} holds a density of a table, and only models of images can be "
                "evaluated."
            )
        config = TrainConfig.from_file(folder_of(path) / CONFIG, **given)
    else:
        kind = _kind_of(model)
        if how.dataset is None or (how.binarization is None and kind == "vae"):
            options = "--dataset and --binarization" if kind == "vae" else "--dataset"
            raise UserError(
                f"{str(path)!r} has no {CONFIG}, which names the images of a run; give {options}."
            )
        config = TrainConfig(model=kind, **given)
    check_dataset(config.dataset, config.data_dir, image_shape=config.image_shape)
    return config


def folder_of(path: Path) -> Path:
    """Returns the folder of a run, given it or a .keras file in it."""
    return path.parent if path.suffix == ".keras" else path


def has_config(path: Path) -> bool:
    """Whether there is a config.json beside the model."""
    return (folder_of(path) / CONFIG).is_file()


def _holds_density(file: Path) -> bool:
    """Whether the command `density` wrote a config.json."""
    try:
        return is_of_density(read_json(file))
    except (OSError, ValueError):
        return False  # What reads it next says what is wrong.


def _kind_of(file: Path) -> str:
    """The kind of model in a .keras file: "flow" if it is a flow of images, else "vae"."""
    try:
        with zipfile.ZipFile(file) as archive:
            name = json.loads(archive.read("config.json"))["class_name"]
    except (OSError, zipfile.BadZipFile, LookupError, TypeError, ValueError):
        return "vae"  # What loads it says what is wrong.
    return "flow" if name == "ImageDensity" else "vae"


def load_model_and_images(
    path: Path, config: TrainConfig
) -> tuple[FlowVAE | ImageDensity, ImageSplits]:
    """Loads the model of a run or an export, and the images of a config.

    Raises:
      UserError: If either cannot be loaded, or they do not fit each other.
    """
    splits = load_splits(config)
    import_tensorflow()
    from tfp_flowvae.models import FlowVAE, ImageDensity
    from tfp_flowvae.saving import load

    model = load(path)
    flow = config.model == "flow"
    wanted = ImageDensity if flow else FlowVAE
    if not isinstance(model, wanted):
        raise UserError(
            f"The model in {str(path)!r} must be of the kind {wanted.__name__}. "
            f"Received: {type(model).__name__}."
        )
    shape = model.event_shape if flow else model.image_shape
    if shape != splits.image_shape:
        raise UserError(
            f"The model in {str(path)!r} needs images of shape {shape}. Received: "
            f"{config.dataset!r} with images of shape {splits.image_shape}; give another --dataset."
        )
    if flow and model.levels != splits.levels:
        had = "float images" if splits.levels is None else f"{splits.levels} grey levels"
        raise UserError(
            f"The model in {str(path)!r} needs images of {model.levels} grey levels, whole numbers "
            f"from 0 to {model.levels - 1}. Received: {config.dataset!r} with {had}; give another "
            "--dataset."
        )
    return model, splits


def fixed_images(
    splits: ImageSplits, config: TrainConfig, split: str, most: int | None = None
) -> np.ndarray:
    """Returns the images of a split as they are evaluated, float32 `[N, H, W, C]`.

    They are in [0, 1] for a VAE, and whole numbers for a flow of images.

    Args:
      splits: The images.
      config: The config, which says how they become binary.
      split: "train", "valid" or "test".
      most: How many to return at most, from the first; None for all.
    """
    images = getattr(splits, split)
    if most is not None:
        images = np.array(images[:most])  # of a file that is mapped, no more than these
    if config.model == "flow":
        return np.asarray(images, np.float32)
    return to_unit(*binarize_fixed(images, splits.levels, config.binarization, split))


def progress_bar(places: Iterable[Any], title: str) -> Iterable[Any]:
    """Shows the progress through an iterable, on terminals only."""
    from tqdm import tqdm

    return tqdm(places, title, disable=None, leave=False, file=sys.stderr)


def read_evaluation(file: Path) -> Evaluation | DensityEvaluation:
    """Returns the figures in a file that `evaluate --json` wrote.

    Raises:
      UserError: If it cannot be read or holds something else.
    """
    from tfp_flowvae.evaluation.figures import read_figures

    try:
        return read_figures(json.loads(file.read_text(encoding="utf-8")))
    except OSError as error:
        raise UserError(f"Cannot read {str(file)!r}: {error.strerror}.") from error
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise UserError(
            f"{str(file)!r} holds no figures of this version; write it with evaluate --json."
        ) from error
