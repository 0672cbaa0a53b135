"""Training: the config, the callbacks and the run. Importing this package loads nothing heavy."""

from tfp_flowvae.runs.config import TrainConfig

__all__ = ["TrainConfig"]
