"""One run: its config and presets, its folder, its training, its checkpoints and resuming.

Importing this package loads nothing heavy.
"""

from tfp_flowvae.runs.config import TrainConfig

__all__ = ["TrainConfig"]
