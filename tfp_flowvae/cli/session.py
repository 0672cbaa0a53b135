"""The part of a run that needs TensorFlow: build, fit, evaluate, write."""

from __future__ import annotations

from pathlib import Path

import keras

from tfp_flowvae.data import (
    ImageSplits,
    binarize_fixed,
    evaluation_batches,
    steps_per_epoch,
    to_unit,
    training_batches,
)
from tfp_flowvae.evaluation.free_energy import EVALUATION_BATCH, free_energy
from tfp_flowvae.evaluation.plots import save_reconstructions, save_samples, save_training
from tfp_flowvae.export import export
from tfp_flowvae.training.build import build_model, build_optimizer
from tfp_flowvae.training.callbacks import EpochHistory, StopOnInterrupt, StopOnNonFinite
from tfp_flowvae.training.config import TrainConfig


class Session:
    """A model, its data and its training.

    Args:
      config: What to run.
      splits: The images.

    Attributes:
      model: The model.
      rows: The history, a row an epoch.
    """

    def __init__(self, config: TrainConfig, splits: ImageSplits) -> None:
        keras.utils.set_random_seed(config.seed)
        self.config = config
        self._splits = splits
        fixed = {
            split: binarize_fixed(getattr(splits, split), splits.levels, config.binarization, split)
            for split in ("valid", "test")
        }
        (self._valid, self._levels), (self._test, _) = fixed["valid"], fixed["test"]
        self._steps = steps_per_epoch(len(splits.train), config.batch_size)
        self.model = build_model(config, splits.image_shape)
        self.model.compile(
            optimizer=build_optimizer(config, self._steps * config.epochs),
            jit_compile=config.jit,
        )
        self._interrupt = StopOnInterrupt()
        self._non_finite = StopOnNonFinite()
        self._history = EpochHistory()

    @property
    def rows(self) -> list[dict[str, float]]:
        """The history, a row an epoch."""
        return self._history.rows

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended training."""
        return self._interrupt.interrupted

    @property
    def diverged_at(self) -> int | None:
        """The step at which the loss was no longer finite, or None."""
        return self._non_finite.step

    @property
    def last_loss(self) -> float:
        """What the loss was at that step."""
        return self._non_finite.loss

    def fit(self, verbose: int) -> None:
        """Trains by `model.fit`."""
        batches = training_batches(
            self._splits.train,
            levels=self._splits.levels,
            batch_size=self.config.batch_size,
            seed=self.config.seed,
            binarization=self.config.binarization,
        )
        self.model.fit(
            batches,
            steps_per_epoch=self._steps,
            epochs=self.config.epochs,
            validation_data=evaluation_batches(self._valid, EVALUATION_BATCH, levels=self._levels),
            callbacks=[self._history, self._non_finite, self._interrupt],
            shuffle=False,  # the batches are shuffled already
            verbose=verbose,
        )

    def evaluate(self) -> dict[str, float]:
        """Free energy and its terms on the validation and test images, in nats per image."""
        metrics: dict[str, float] = {}
        for split, images in (("valid", self._valid), ("test", self._test)):
            values = free_energy(self.model, images, self._levels, self.config.seed)
            metrics |= {f"{split}_{name}": value for name, value in values.items()}
        return metrics

    def write(self, folder: Path) -> None:
        """Writes the SavedModel, the `.keras` file and the pictures."""
        export(self.model, folder)
        seed = self.config.seed
        save_samples(folder / "samples.png", self.model.sample(64, seed).numpy())
        originals = to_unit(self._test[:20], self._levels)
        reconstructions = self.model.reconstruct(originals, seed).numpy()
        save_reconstructions(folder / "reconstructions.png", originals, reconstructions)
        save_training(folder / "training.png", self.rows)
