"""The part of a run of `--model flow` that needs TensorFlow."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np
import tensorflow as tf

from tfp_flowvae.errors import UserError
from tfp_flowvae.evaluation.plots import save_bits
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
            num_classes=self._num_classes,
            label_dropout=config.label_dropout,
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

        def whole(x: tf.Tensor, *label: tf.Tensor) -> Any:
            x = tf.round(tf.cast(x, tf.float32) * top)
            return (x, *label) if label else x

        return batches.map(whole)

    def _diagnostics(self) -> list[keras.callbacks.Callback]:
        return []

    def _board(self, tensorboard: Path) -> list[keras.callbacks.Callback]:
        return []

    def evaluate(self) -> dict[str, float]:
        """Returns upper bounds of -log P(x) of the validation and test images, in nats and bits.

        For a model with classes they are those of -log P(x|y), given the labels.

        With `nll_samples` in the config, the bound of the test images with so many draws of the
        noise is added.
        """
        metrics, model, config = {}, self.model, self.config
        for split, images in (("valid", self._valid), ("test", self._test)):
            label = self._labels(split)
            nats = float(np.mean(model.nll(images, 1, seed=config.seed, label=label)))
            metrics[f"{split}_nll_bound"] = nats
            metrics[f"{split}_bits_per_dimension"] = model.bits_per_dim(nats)
        if config.nll_samples:
            label = self._labels("test")
            nll = model.nll(self._test, config.nll_samples, seed=config.seed, label=label)
            metrics["test_nll"] = float(np.mean(nll))
        return metrics

    def write(self, folder: Path) -> None:
        """Writes the SavedModel, the `.keras` file and the pictures."""
        export(self.model, folder)
        self._write_samples(folder / "samples.png")
        save_bits(folder / "training.png", self.history.rows)

    def _samples(self, n: int, label: np.ndarray | None = None) -> np.ndarray:
        config, top = self.config, self.model.levels - 1.0
        images = self.model.sample(n, seed=config.seed, temperature=config.temperature, label=label)
        return images.numpy() / top
