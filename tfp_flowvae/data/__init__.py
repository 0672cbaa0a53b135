"""From a data set's name or a path to batches. Importing this does not load TensorFlow."""

from tfp_flowvae.data.batches import evaluation_batches, steps_per_epoch, training_batches
from tfp_flowvae.data.binarize import BINARIZATIONS, binarize_fixed
from tfp_flowvae.data.images import ImageSplits, to_unit
from tfp_flowvae.data.sources import load_images

__all__ = [
    "BINARIZATIONS",
    "ImageSplits",
    "binarize_fixed",
    "evaluation_batches",
    "load_images",
    "steps_per_epoch",
    "to_unit",
    "training_batches",
]
