"""The part of a run that needs TensorFlow: build, fit, evaluate, write."""

from __future__ import annotations

import math
from pathlib import Path

import keras
import numpy as np

from tfp_flowvae.data import (
    ImageSplits,
    binarize_fixed,
    evaluation_batches,
    steps_per_epoch,
    to_unit,
    training_batches,
)
from tfp_flowvae.evaluation.free_energy import EVALUATION_BATCH, free_energy
from tfp_flowvae.evaluation.importance import negative_log_likelihood
from tfp_flowvae.evaluation.plots import save_reconstructions, save_samples, save_training
from tfp_flowvae.models.likelihood import LIKELIHOODS
from tfp_flowvae.saving import export
from tfp_flowvae.training.build import build_model, build_optimizer
from tfp_flowvae.training.callbacks import (
    ClippingWatch,
    EpochHistory,
    StopOnInterrupt,
    StopOnNonFinite,
)
from tfp_flowvae.training.config import TrainConfig
from tfp_flowvae.training.diagnostics import Diagnostics

# Images among which a VampPrior's pseudo-inputs start.
_ADAPTED = 10_000
# Training images from which an epoch is long enough for the density of any posterior.
_LARGE = 10_000


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
        self.model = build_model(config, splits.image_shape, splits.levels, self._steps)
        for name in ("train", "valid", "test"):
            self.model.likelihood.check_data(getattr(splits, name), splits.levels)
        self.model.adapt(to_unit(splits.train[:_ADAPTED], splits.levels))
        self.model.compile(optimizer=build_optimizer(config, self._steps), jit_compile=config.jit)
        self._interrupt = StopOnInterrupt()
        self._non_finite = StopOnNonFinite()
        self._history = EpochHistory()
        self._clipping = ClippingWatch()

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

    @property
    def clipped(self) -> float:
        """The share of steps whose gradient was clipped."""
        return self._clipping.share

    def fit(self, verbose: int, tensorboard: Path | None = None) -> None:
        """Trains by `model.fit`.

        Args:
          verbose: As Keras's.
          tensorboard: Folder for TensorBoard's logs, or None for none.
        """
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
            callbacks=self._callbacks(verbose, tensorboard),
            shuffle=False,  # the batches are shuffled already
            verbose=verbose,
        )

    def _callbacks(self, verbose: int, tensorboard: Path | None) -> list[keras.callbacks.Callback]:
        """In the order in which they see an epoch's end."""
        config = self.config
        # First, or it would print every figure of the diagnostics.
        callbacks = [keras.callbacks.ProgbarLogger()] if verbose else []
        if config.ema is not None:
            # With early stopping the averages must be in the model when it looks.
            swap = config.patience is not None
            callbacks.append(keras.callbacks.SwapEMAWeights(swap_on_epoch=swap))
        if config.diagnostics:
            size = len(self._splits.train)
            fast = all(flow.entry.fast_density for flow in config.flow_specs)
            callbacks.append(
                Diagnostics(self._valid, self._levels, size, config.seed, fast or size >= _LARGE)
            )
        callbacks += [self._history, self._clipping, self._non_finite, self._interrupt]
        if config.patience is not None:
            callbacks.append(
                keras.callbacks.EarlyStopping(
                    "val_elbo",
                    mode="max",
                    patience=config.patience,
                    restore_best_weights=True,
                    start_from_epoch=config.warmup_epochs if config.warmup != "none" else 0,
                )
            )
        if tensorboard is not None:
            callbacks.append(keras.callbacks.TensorBoard(tensorboard, write_graph=False))
        return callbacks

    def evaluate(self) -> dict[str, float]:
        """Free energy and its terms on the validation and test images, in nats per image.

        Where the likelihood is one of grey levels, in bits per dimension too; where the config asks
        for it, with the importance-weighted estimate of -log p(x) of the test images.
        """
        metrics: dict[str, float] = {}
        for split, images in (("valid", self._valid), ("test", self._test)):
            values = free_energy(self.model, images, self._levels, self.config.seed)
            if LIKELIHOODS[self.config.likelihood].takes_levels and self.model.likelihood.discrete:
                nats = values["free_energy"] / math.prod(self._splits.image_shape)
                values["bits_per_dimension"] = nats / math.log(2.0)
            metrics |= {f"{split}_{name}": value for name, value in values.items()}
        samples = self.config.nll_samples
        if samples:
            nll = negative_log_likelihood(
                self.model, self._test, self._levels, samples, self.config.seed
            )
            metrics["test_nll"] = float(np.mean(nll))
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
