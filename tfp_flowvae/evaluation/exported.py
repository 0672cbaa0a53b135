"""Pictures from an exported model, drawn with plain TensorFlow."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from tfp_flowvae._files import written_aside
from tfp_flowvae.errors import UserError, nearest
from tfp_flowvae.evaluation.plots import save_samples

MOST_SAMPLES = 10_000


def sample_to_picture(
    path: Path,
    n: int,
    seed: int,
    output: Path,
    label: str | None = None,
    temperature: float | None = None,
) -> None:
    """Draws images from the prior of an exported model and writes them as one picture.

    Args:
      path: The folder of the SavedModel.
      n: The number of images.
      seed: The seed of the draw.
      output: The .png file, which is written completely or not at all.
      label: The class of the images: its name in the folder's run.json, or its number; None for
        images of an unknown class, or of a model without classes.
      temperature: The temperature of the draw, at least 0; None for 1.

    Raises:
      UserError: If the folder holds no such model, or an argument is not allowed, or the picture
        cannot be written.
    """
    if not 1 <= n <= MOST_SAMPLES:
        raise UserError(f"-n must be 1 to {MOST_SAMPLES}. Received: {n}.")
    if temperature is not None and not 0.0 <= temperature < math.inf:
        raise UserError(f"--temperature must be at least 0. Received: {temperature:g}.")
    if output.suffix.lower() != ".png":
        raise UserError(f"--output must name a .png file. Received: {str(output)!r}.")
    if not (path / "saved_model.pb").is_file():
        raise UserError(
            f"{str(path)!r} holds no exported model (no saved_model.pb); give the folder of a "
            "finished run, such as saved_models/digits-iaf-vamp-100-001."
        )
    if not output.absolute().parent.is_dir():
        raise UserError(
            f"The folder of --output {str(output)!r} does not exist; make it first, or "
            "choose another."
        )
    images = _draw(path, n, seed, label, temperature)
    try:
        with written_aside(output) as file:
            save_samples(file, images)
    except OSError as error:
        raise UserError(f"Cannot write {str(output)!r}: {error.strerror}.") from error


def _draw(
    path: Path, n: int, seed: int, label: str | None, temperature: float | None
) -> np.ndarray:
    import tensorflow as tf

    from tfp_flowvae import _endpoints

    model = _endpoints.load(path)
    if not hasattr(model, "sample"):
        raise UserError(
            f"{str(path)!r} is a SavedModel without the endpoint 'sample'; tfp_flowvae has not "
            "exported it."
        )
    given = {} if temperature is None else {"temperature": temperature}
    if given and not hasattr(model, "sample_at_temperature"):
        raise UserError(
            f"{str(path)!r} holds a model without a temperature: leave --temperature out. "
            f"Received: --temperature {temperature:g}."
        )
    specs = model.signatures["sample"].structured_input_signature[1]
    if "label" not in specs:
        if label is not None:
            raise UserError(
                f"{str(path)!r} holds a model without classes: leave --label out, or train with "
                f"--labels. Received: --label {label}."
            )
        return _in_unit(model, model.sample(n, seed, **given))
    number = _number(path, label)
    try:
        return _in_unit(model, model.sample(n, number, seed, **given))
    except tf.errors.InvalidArgumentError as error:
        raise UserError(
            f"--label must be a class of {str(path)!r}, a whole number from 0. "
            f"Received: {label}, which is above the last one."
        ) from error


def _in_unit(model: Any, drawn: dict[str, Any]) -> np.ndarray:
    """The images that an exported model drew, in [0, 1]."""
    images = drawn["images"].numpy()
    if hasattr(model, "levels"):  # a density of whole numbers
        return images / (int(model.levels()["levels"]) - 1.0)
    return images


def _number(path: Path, label: str | None) -> int:
    """The number of a class that is given by its name or number; -1 for None."""
    if label is None:
        return -1
    record = path / "run.json"
    names = json.loads(record.read_text("utf-8")).get("classes", []) if record.is_file() else []
    if label in names:
        return names.index(label)
    if names or not label.isdecimal():
        allowed = f": {', '.join(names)}" if names else ", a whole number from 0"
        raise UserError(
            f"--label must be a class of {str(path)!r}{allowed}. Received: {label!r}."
            f"{nearest(label, names)}"
        )
    return int(label)
