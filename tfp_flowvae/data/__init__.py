"""From a data set's name or a path to batches. Importing this does not load TensorFlow."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tfp_flowvae.data.binarize import BINARIZATIONS, binarize_fixed, check_binarization
from tfp_flowvae.data.images import ImageSplits, to_unit
from tfp_flowvae.data.sources import check_dataset, load_images
from tfp_flowvae.data.stream import stream_images

if TYPE_CHECKING:
    from tfp_flowvae.data.batches import evaluation_batches, steps_per_epoch, training_batches

__all__ = [
    "BINARIZATIONS",
    "ImageSplits",
    "binarize_fixed",
    "check_binarization",
    "check_dataset",
    "evaluation_batches",
    "load_images",
    "steps_per_epoch",
    "stream_images",
    "to_unit",
    "training_batches",
]

_WITH_TENSORFLOW = ("evaluation_batches", "steps_per_epoch", "training_batches")


def __getattr__(name: str) -> Any:
    if name in _WITH_TENSORFLOW:
        return getattr(importlib.import_module("tfp_flowvae.data.batches"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
