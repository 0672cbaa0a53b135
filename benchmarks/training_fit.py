"""The yardstick: `FlowVAE.fit` as a user calls it, with everything that is on by default."""

from __future__ import annotations

import math
import time
from typing import Any

import keras
from training_cases import BATCH, CASES, VALIDATION_BATCH, Job
from training_workers import Turns

from tfp_flowvae.data import (
    ImageSplits,
    evaluation_batches,
    steps_per_epoch,
    to_unit,
    training_batches,
)
from tfp_flowvae.models import FlowVAE
from tfp_flowvae.runs import TrainConfig
from tfp_flowvae.runs.build import build_model, build_optimizer

_FOREVER = 1_000_000
_ADAPTED = 10_000  # images among which a VampPrior's pseudo-inputs start


class EpochClock(keras.callbacks.Callback):
    """Holds every epoch back until its turn has come, and reports what it took.

    The last of the callbacks, so that an epoch ends when all of them have seen its end.
    """

    def __init__(self, turns: Turns) -> None:
        super().__init__()
        self._turns = turns
        self._start = self._trained = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Waits, and starts the clock."""
        self._turns.wait()
        self._start = time.perf_counter()

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Notes the time at which training was over and validation began."""
        self._trained = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Stops the clock."""
        now = time.perf_counter()
        loss = (logs or {}).get("loss", math.nan)
        self._turns.report(now - self._start, self._trained - self._start, float(loss))


def compiled_model(config: TrainConfig, splits: ImageSplits) -> FlowVAE:
    """The model of a config, compiled as `train.py` does it."""
    keras.utils.set_random_seed(config.seed)
    steps = steps_per_epoch(len(splits.train), config.batch_size)
    model = build_model(config, splits.image_shape, splits.levels, steps)
    model.adapt(to_unit(splits.train[:_ADAPTED], splits.levels))
    jit = "auto" if config.jit else False
    model.compile(optimizer=build_optimizer(config, steps), jit_compile=jit)
    return model


def case_model(case: str, splits: ImageSplits, **changes: Any) -> FlowVAE:
    """That of a case, with other values for some of the config's fields."""
    values = {**CASES[case].values, **changes}
    return compiled_model(TrainConfig.from_mapping(values, source="the case"), splits)


def fit(job: Job, turns: Turns) -> None:
    """A contender: one `fit` of endless epochs, each a turn."""
    train, valid = job.images("train"), job.images("valid")
    splits = ImageSplits("yardstick", train, valid, valid, levels=2)
    model = case_model(job.case, splits)
    turns.ready(sum(math.prod(weight.shape) for weight in model.trainable_weights))
    model.fit(
        training_batches(train, levels=2, batch_size=BATCH, seed=0, binarization="static"),
        steps_per_epoch=steps_per_epoch(len(train), BATCH),
        epochs=_FOREVER,
        validation_data=evaluation_batches(valid, VALIDATION_BATCH, levels=2),
        shuffle=False,  # the batches are shuffled already
        callbacks=[keras.callbacks.ProgbarLogger(), EpochClock(turns)],
        verbose=1,
    )
