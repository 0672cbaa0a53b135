"""Scores images by how unlikely the model of a run finds them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from tfp_flowvae.errors import UserError
from tfp_flowvae.runs.evaluation import check_json, check_sizes, write_json
from tfp_flowvae.runs.saved import (
    How,
    fixed_images,
    has_config,
    load_model_and_images,
    progress_bar,
    read_config,
)

SAMPLES = {"vae": 500, "flow": 50}
"""The number of importance samples of each image, by the kind of model."""


def score_run(path: Path, how: How, file: Path | None = None) -> None:
    """Scores images by the model of a run or an export, and prints the least likely ones.

    They are compared with the validation images of the run. For an export without a config.json,
    these are the validation images of the data set that is scored.

    Args:
      path: The folder.
      how: Which images are scored, and with how many samples.
      file: A .json file for the scores of all images, which is written completely or not at all; or
        None.

    Raises:
      UserError: If there is no such model, its images do not fit it, there are none to compare
        with, a number is not allowed, or the file cannot be written.
    """
    check_json(file)
    config = read_config(path, how)
    check_sizes(how)
    own = read_config(path, dataclasses.replace(how, dataset=None)) if has_config(path) else config
    if (own.dataset, how.split) == (config.dataset, "valid"):
        raise UserError(
            "Images are compared with the validation images: score others with --split or "
            "--dataset. Received: --split valid."
        )
    model, splits = load_model_and_images(path, own)
    valid = fixed_images(splits, own, "valid")
    if config != own:
        _, splits = load_model_and_images(path, config)
    from tfp_flowvae.evaluation.figures import Protocol
    from tfp_flowvae.evaluation.outliers import outlier_scores, score_table

    protocol = Protocol(
        dataset=config.dataset,
        split=how.split,
        binarization=config.binarization,
        **{"seed": own.seed, "samples": SAMPLES[config.model], **how.sizes},
    )
    images = fixed_images(splits, config, how.split)
    scores = outlier_scores(
        model, images, valid, protocol.samples, protocol.seed, progress=progress_bar
    )
    if file is not None:
        facts = ("dataset", "split", "binarization", "samples", "seed")
        write_json(
            file,
            {
                **{name: getattr(protocol, name) for name in facts},
                "valid_dataset": own.dataset,
                "valid_images": len(valid),
                **{name: np.asarray(values).tolist() for name, values in scores._asdict().items()},
            },
        )
    protocol = dataclasses.replace(protocol, images=len(images))
    bound = config.model == "flow"
    print(score_table(str(path), scores, protocol, f"{len(valid)} of {own.dataset}", bound))
    if file is not None:
        print(f"\nscores    {file}")
