"""From a model or a distribution to a SavedModel that plain TensorFlow runs, and back."""

from tfp_flowvae.saving.distribution import export_distribution
from tfp_flowvae.saving.loaded import load_distribution
from tfp_flowvae.saving.saved_model import export, load

__all__ = ["export", "export_distribution", "load", "load_distribution"]
