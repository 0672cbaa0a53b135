"""The part of a run of `--model flow` that needs TensorFlow."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import keras
import numpy as np
import tensorflow as tf

from tfp_flowvae.errors import UserError
from tfp_flowvae.evaluation.plots import save_bits, save_samples
from tfp_flowvae.models import ImageDensity
from tfp_flowvae.runs.flow_checks import check_images
from tfp_flowvae.runs.session import Session
from tfp_flowvae.saving import export


class FlowSession(Session):
    """An `ImageDensity`, its data and its training; see `Session`."""

    shown: ClassVar[tuple[str, ...]] = ("loss", "bits_per_dim", "val_bits_per_dim")
    monitor: ClassVar[str] = "val_bits_per_dim"
    mode: ClassVar[str] = "min"

    def _build(self) -> ImageDensity:
        config, splits = self.config, self._splits
        check_images(config, splits.image_shape, splits.levels is not None)
        assert splits.levels is not None
        model = ImageDensity(
            config.flow,
            event_shape=splits.image_shape,
            levels=splits.levels,
            dequantize=config.dequantize,
            seed=config.seed,
        )
        if not model.trainable_weights:
            raise UserError(
                "The flow has no weights to train: choose another one, such as glow. "
                f"Received: --flow {config.flow}."
            )
        return model

    def _adapt(self) -> None:
        self.model.adapt(self._splits.train)

    def _as_taken(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        top = self.model.levels - 1.0
        return batches.map(lambda x: tf.round(tf.cast(x, tf.float32) * top))

    def _diagnostics(self) -> list[keras.callbacks.Callback]:
        return []

    def _board(self, tensorboard: Path) -> list[keras.callbacks.Callback]:
        return []

    def evaluate(self) -> dict[str, float]:
        """Returns upper bounds of -log P(x) of the validation and test images, in nats and bits.

        With `nll_samples` in the config, the bound of the test images with so many draws of the
        noise is added.
        """
        metrics, model, config = {}, self.model, self.config
        for split, images in (("valid", self._valid), ("test", self._test)):
            nats = float(np.mean(model.nll(images, 1, seed=config.seed)))
            metrics[f"{split}_nll_bound"] = nats
            metrics[f"{split}_bits_per_dimension"] = model.bits_per_dim(nats)
        if config.nll_samples:
            nll = model.nll(self._test, config.nll_samples, seed=config.seed)
            metrics["test_nll"] = float(np.mean(nll))
        return metrics

    def write(self, folder: Path) -> None:
        """Writes the SavedModel, the `.keras` file and the pictures."""
        export(self.model, folder)
        config, top = self.config, self.model.levels - 1.0
        images = self.model.sample(64, seed=config.seed, temperature=config.temperature)
        save_samples(folder / "samples.png", images.numpy() / top)
        save_bits(folder / "training.png", self.history.rows)
