"""The part of a run that needs TensorFlow: it builds, fits and evaluates a model."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import math
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np
import tensorflow as tf

from tfp_flowvae.data import (
    ImageSplits,
    binarize_fixed,
    evaluation_batches,
    load_labels,
    steps_per_epoch,
    to_unit,
    training_batches,
)
from tfp_flowvae.errors import UserError
from tfp_flowvae.evaluation.board import BOARD_IMAGES, Board
from tfp_flowvae.evaluation.diagnostics import Diagnostics
from tfp_flowvae.evaluation.free_energy import EVALUATION_BATCH, free_energy
from tfp_flowvae.evaluation.plots import save_reconstructions, save_samples, save_training
from tfp_flowvae.likelihoods import LIKELIHOODS
from tfp_flowvae.runs.build import build_model, build_optimizer
from tfp_flowvae.runs.checkpoint import Checkpoints, Saving
from tfp_flowvae.runs.config import TrainConfig
from tfp_flowvae.runs.history import EpochHistory
from tfp_flowvae.saving import export
from tfp_flowvae.training.callbacks import (
    AveragedWeights,
    GradientNorm,
    ProgressLine,
)
from tfp_flowvae.training.precision import set_precision
from tfp_flowvae.training.strategy import shared_batches

# The pseudo-inputs of a VampPrior start at images that are drawn from so many.
_ADAPTED = 10_000
# The checksum of a split reads at most so many bytes, which takes about a second.
_SUMMED_BYTES = 2**28
# With so many training images, an epoch takes much longer than the density of any posterior.
_LARGE = 10_000
# The samples of each class in samples.png.
_IN_ROW = 8


class Session:
    """A model, its data and its training.

    Args:
      config: The config.
      splits: The images.
      strategy: The strategy, or None for one device.

    Attributes:
      model: The model.
      history: The history so far.
      shown: The metrics that the progress shows.
      monitor: The metric that stops a run early.
      mode: Whether it is to be large, "max", or small, "min".
    """

    shown: ClassVar[tuple[str, ...]] = ("loss", "elbo", "kl", "val_elbo")
    monitor: ClassVar[str] = "val_elbo"
    mode: ClassVar[str] = "max"

    def __init__(
        self,
        config: TrainConfig,
        splits: ImageSplits,
        strategy: tf.distribute.Strategy | None = None,
    ) -> None:
        keras.utils.set_random_seed(config.seed)
        self.config = config
        self._splits, self._strategy = splits, strategy
        (self._valid, self._levels), (self._test, _) = (
            binarize_fixed(getattr(splits, split), splits.levels, config.binarization, split)
            for split in ("valid", "test")
        )
        self._steps = steps_per_epoch(len(splits.train), config.batch_size)
        # XLA compiles a program for one device.
        jit = set_precision(config.precision) and config.jit and strategy is None
        with contextlib.nullcontext() if strategy is None else strategy.scope():
            self.model = self._build()
            optimizer = build_optimizer(config, self._steps)
            self.model.compile(optimizer=optimizer, jit_compile="auto" if jit else False)
        self._adapt()
        self.history = EpochHistory()

    def _build(self) -> Any:
        """The model, with new weights."""
        splits, classes = self._splits, self._num_classes
        return build_model(self.config, splits.image_shape, splits.levels, self._steps, classes)

    def _adapt(self) -> None:
        """Checks the images, and starts from them the parts that start from data."""
        splits = self._splits
        for name in ("train", "valid", "test"):
            self.model.likelihood.check_data(getattr(splits, name), splits.levels)
        if self.model.prior_layer.base.starts_from_data:
            labels = self._labels("train")
            self.model.adapt(
                to_unit(splits.train[:_ADAPTED], splits.levels),
                None if labels is None else labels[:_ADAPTED],
            )

    def fit(
        self, verbose: int, tensorboard: Path | None = None, saving: Saving | None = None
    ) -> None:
        """Trains by `model.fit`.

        Args:
          verbose: 0 for silence, 1 or 2 for `ProgressLine`.
          tensorboard: The folder for TensorBoard's logs, or None for no logs.
          saving: How to save the state of training, and what to resume from; None for neither.

        Raises:
          Interrupted: If `saving.stop` returned true.
          NonFiniteError: If the loss or a weight is not finite.
          UserError: If the state cannot be written, or the checkpoint is not of this run.
        """
        config, start = self.config, saving.start if saving is not None else None
        epoch, step = (start.state["epoch"], start.state["step"]) if start is not None else (0, 0)
        if start is not None:
            if start.state["images"] != self.images_sum:
                raise UserError(
                    f"The images of {config.dataset!r} are not those the run began with; restore "
                    "them, or start a new run."
                )
            if start.stopped_early:
                epoch = config.epochs
        batches = self._as_taken(
            training_batches(
                self._splits.train,
                levels=self._splits.levels,
                batch_size=config.batch_size,
                seed=config.seed,
                binarization=config.binarization,
                start_epoch=epoch,
                start_step=step,
                labels=self._labels("train"),
            )
        )
        validation = self._as_taken(
            evaluation_batches(
                self._valid, EVALUATION_BATCH, levels=self._levels, labels=self._labels("valid")
            )
        )
        validation_steps = None
        if self._strategy is not None:  # Keras cannot count batches that replicas share.
            validation = validation.repeat()
            validation_steps = steps_per_epoch(len(self._valid), EVALUATION_BATCH)
        self.model.start_step = step
        self.model.pause_steps = saving.every if saving is not None else 0
        self.model.fit(
            shared_batches(self._strategy, batches),
            steps_per_epoch=self._steps,
            epochs=config.epochs,
            initial_epoch=epoch,  # If it equals `epochs`, nothing is left to train.
            validation_data=shared_batches(self._strategy, validation),
            validation_steps=validation_steps,
            callbacks=self._callbacks(verbose, tensorboard, saving),
            shuffle=False,  # The batches are shuffled already.
            verbose=0,  # `ProgressLine` shows the progress.
        )

    @property
    def _num_classes(self) -> int | None:
        classes = self._splits.classes
        return None if classes is None else len(classes.names)

    def _labels(self, split: str) -> np.ndarray | None:
        classes = self._splits.classes
        return None if classes is None else getattr(classes, split)

    def _as_taken(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        """Batches of images in [0, 1] as the model takes them."""
        return batches

    @functools.cached_property
    def images_sum(self) -> str:
        """A checksum of the images and their classes.

        With it a resumed run checks that they are unchanged. The checksum of a large data set takes
        only every k-th image.
        """
        total = hashlib.sha256()
        for name in ("train", "valid", "test"):
            images = getattr(self._splits, name)
            total.update(f"{images.dtype} {images.shape}".encode())
            every = -(-images.nbytes // _SUMMED_BYTES)
            for image in images[::every]:
                total.update(np.ascontiguousarray(image).data)
            labels = self._labels(name)
            if labels is not None:
                total.update(labels.data)
        return total.hexdigest()

    def _callbacks(
        self, verbose: int, tensorboard: Path | None, saving: Saving | None
    ) -> list[keras.callbacks.Callback]:
        """The callbacks, in the order in which Keras calls them at the end of an epoch."""
        config = self.config
        callbacks: list[keras.callbacks.Callback] = []
        if verbose:
            callbacks.append(ProgressLine(verbose, self.shown))
        callbacks += self._diagnostics()
        gradient_norm = GradientNorm()
        callbacks += [gradient_norm, self.history]
        early = None
        if config.patience is not None:
            early = keras.callbacks.EarlyStopping(
                self.monitor,
                mode=self.mode,
                patience=config.patience,
                restore_best_weights=True,
                start_from_epoch=config.full_weight_epoch,
            )
            callbacks.append(early)
        if tensorboard is not None:
            callbacks.append(keras.callbacks.TensorBoard(tensorboard, write_graph=False))
            callbacks += self._board(tensorboard)
        if config.ema is not None:
            callbacks.append(AveragedWeights())  # The callbacks before it see the averages.
        if saving is not None:
            callbacks.append(Checkpoints(saving, self.history, self._steps, early, gradient_norm))
        return callbacks

    def _diagnostics(self) -> list[keras.callbacks.Callback]:
        """What measures the model after each epoch, for history.csv."""
        config, size = self.config, len(self._splits.train)
        if not config.diagnostics:
            return []
        fast = all(flow.entry.fast_density for flow in config.posterior_spec.flows)
        information = fast or size >= _LARGE
        labels = self._labels("valid")
        return [Diagnostics(self._valid, self._levels, size, config.seed, information, labels)]

    def _board(self, tensorboard: Path) -> list[keras.callbacks.Callback]:
        """What writes pictures for TensorBoard."""
        config = self.config
        test = to_unit(self._test[:BOARD_IMAGES], self._levels)
        labels = load_labels(config.dataset, config.data_dir, image_shape=config.image_shape)
        return [Board(tensorboard, test, config.seed, labels)]

    def evaluate(self) -> dict[str, float]:
        """Returns the free energy and its terms on the validation and test images, in nats.

        For a model with classes they are those of log p(x|y), given the labels.

        A likelihood of grey levels adds bits per dimension. With `nll_samples` in the config, the
        importance-weighted estimate of -log p(x) of the test images is added.
        """
        metrics: dict[str, float] = {}
        for split, images in (("valid", self._valid), ("test", self._test)):
            labels = self._labels(split)
            values = free_energy(self.model, images, self._levels, self.config.seed, labels)
            if LIKELIHOODS[self.config.likelihood].takes_levels and self.model.likelihood.discrete:
                nats = values["free_energy"] / math.prod(self._splits.image_shape)
                values["bits_per_dimension"] = nats / math.log(2.0)
            metrics |= {f"{split}_{name}": value for name, value in values.items()}
        samples = self.config.nll_samples
        if samples:
            images = to_unit(self._test, self._levels)
            label = self._labels("test")
            nll = self.model.nll(images, samples, seed=self.config.seed, label=label)
            metrics["test_nll"] = float(np.mean(nll))
        return metrics

    def write(self, folder: Path) -> None:
        """Writes the SavedModel, the `.keras` file and the pictures."""
        export(self.model, folder)
        seed = self.config.seed
        self._write_samples(folder / "samples.png")
        originals, labels = to_unit(self._test[:20], self._levels), self._labels("test")
        label = None if labels is None else labels[:20]
        reconstructions = self.model.reconstruct(originals, seed, label).numpy()
        save_reconstructions(folder / "reconstructions.png", originals, reconstructions)
        save_training(folder / "training.png", self.history.rows)

    def _write_samples(self, file: Path) -> None:
        """Writes 64 samples, or for classes a row of 8 samples of each."""
        classes = self.model.num_classes
        if classes is None:
            save_samples(file, self._samples(64))
            return
        label = np.repeat(np.arange(classes), _IN_ROW)
        save_samples(file, self._samples(len(label), label), _IN_ROW)

    def _samples(self, n: int, label: np.ndarray | None = None) -> np.ndarray:
        """n samples in [0, 1], of these labels if there are classes."""
        return self.model.sample(n, seed=self.config.seed, label=label).numpy()
