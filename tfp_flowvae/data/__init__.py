"""From a data set's name or a path to batches. Importing this package loads nothing heavy."""

from __future__ import annotations

from tfp_flowvae._lazy import lazy
from tfp_flowvae.data.binarize import BINARIZATIONS, binarize_fixed, check_binarization
from tfp_flowvae.data.images import Classes, ImageSplits, to_unit
from tfp_flowvae.data.labels import load_classes, load_labels
from tfp_flowvae.data.loading import load_images
from tfp_flowvae.data.sources import check_dataset, known_layout
from tfp_flowvae.data.stream import stream_images

_LAZY = {
    "evaluation_batches": "batches",
    "steps_per_epoch": "batches",
    "training_batches": "batches",
}

__all__ = [
    *_LAZY,
    "BINARIZATIONS",
    "Classes",
    "ImageSplits",
    "binarize_fixed",
    "check_binarization",
    "check_dataset",
    "known_layout",
    "load_classes",
    "load_images",
    "load_labels",
    "stream_images",
    "to_unit",
]

__getattr__ = lazy(__name__, _LAZY)
