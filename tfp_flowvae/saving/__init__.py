"""From a model to a SavedModel that plain TensorFlow runs, and back from its folder."""

from tfp_flowvae.saving.saved_model import export, load

__all__ = ["export", "load"]
