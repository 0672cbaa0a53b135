"""A rival: pythae's own trainer, on its VAE and VAE_IAF with networks of the yardstick's size.

Its IAF takes no context from the encoder, so it has fewer weights.
"""

from __future__ import annotations

import importlib
import math
import os
import tempfile
import time
from typing import Any

import numpy as np
from training_cases import (
    BATCH,
    HIDDEN,
    LATENT,
    LAYERS,
    MADE_HIDDEN,
    PIXELS,
    RATE,
    VALIDATION_BATCH,
    Job,
)
from training_workers import LeftOutError, Turns

_FOREVER = 1_000_000


def train(job: Job, turns: Turns) -> None:
    """A contender: an epoch of `BaseTrainer.train` in each turn, validation included."""
    try:
        torch: Any = importlib.import_module("torch")
        models: Any = importlib.import_module("pythae.models")
        importlib.import_module("pythae.trainers")
    except ImportError as error:
        raise LeftOutError(f"pythae cannot be imported: {error}") from error
    torch.set_num_threads(os.cpu_count() or 1)
    torch.manual_seed(0)
    sizes = {"input_dim": (1, 28, 28), "latent_dim": LATENT, "reconstruction_loss": "bce"}
    networks = {"encoder": _encoder(), "decoder": _decoder()}
    if job.case == "iaf":
        made = {
            "n_made_blocks": LAYERS,
            "n_hidden_in_made": 1,
            "hidden_size": MADE_HIDDEN,
        }
        model = models.VAE_IAF(models.VAE_IAF_Config(**sizes, **made), **networks)
    else:
        model = models.VAE(models.VAEConfig(**sizes), **networks)
    turns.ready(sum(weight.numel() for weight in model.parameters()))
    with tempfile.TemporaryDirectory() as folder:
        _trainer(job, turns, model, folder).train()


def _trainer(job: Job, turns: Turns, model: Any, folder: str) -> Any:
    trainers: Any = importlib.import_module("pythae.trainers")
    config = trainers.BaseTrainerConfig(
        output_dir=folder,
        num_epochs=_FOREVER,
        learning_rate=RATE,
        per_device_train_batch_size=BATCH,
        per_device_eval_batch_size=VALIDATION_BATCH,
        no_cuda=True,
    )
    return trainers.BaseTrainer(
        model=model,
        train_dataset=_dataset(job.images("train")),
        eval_dataset=_dataset(job.images("valid")),
        training_config=config,
        callbacks=[_clock(turns)],
    )


def _dataset(images: np.ndarray) -> Any:
    torch: Any = importlib.import_module("torch")
    data: Any = importlib.import_module("pythae.data.datasets")
    pixels = torch.from_numpy(images.reshape(-1, 1, 28, 28)).float()
    return data.BaseDataset(pixels, torch.zeros(len(pixels)))


def _encoder() -> Any:
    torch: Any = importlib.import_module("torch")
    nn: Any = importlib.import_module("pythae.models.nn")
    outputs: Any = importlib.import_module("pythae.models.base.base_utils")

    class Encoder(nn.BaseEncoder):
        def __init__(self) -> None:
            nn.BaseEncoder.__init__(self)
            self.features = torch.nn.Sequential(
                torch.nn.Linear(PIXELS, HIDDEN),
                torch.nn.ELU(),
                torch.nn.Linear(HIDDEN, HIDDEN),
                torch.nn.ELU(),
            )
            self.loc = torch.nn.Linear(HIDDEN, LATENT)
            self.log_variance = torch.nn.Linear(HIDDEN, LATENT)

        def forward(self, x: Any) -> Any:
            features = self.features(x.reshape(-1, PIXELS))
            return outputs.ModelOutput(
                embedding=self.loc(features), log_covariance=self.log_variance(features)
            )

    return Encoder()


def _decoder() -> Any:
    torch: Any = importlib.import_module("torch")
    nn: Any = importlib.import_module("pythae.models.nn")
    outputs: Any = importlib.import_module("pythae.models.base.base_utils")

    class Decoder(nn.BaseDecoder):
        def __init__(self) -> None:
            nn.BaseDecoder.__init__(self)
            self.pixels = torch.nn.Sequential(
                torch.nn.Linear(LATENT, HIDDEN),
                torch.nn.ELU(),
                torch.nn.Linear(HIDDEN, HIDDEN),
                torch.nn.ELU(),
                torch.nn.Linear(HIDDEN, PIXELS),
                torch.nn.Sigmoid(),
            )

        def forward(self, z: Any) -> Any:
            return outputs.ModelOutput(reconstruction=self.pixels(z).reshape(-1, 1, 28, 28))

    return Decoder()


def _clock(turns: Turns) -> Any:
    callbacks: Any = importlib.import_module("pythae.trainers.training_callbacks")

    class Clock(callbacks.TrainingCallback):
        """Holds every epoch back until its turn has come, and reports what it took."""

        start = trained = 0.0

        def on_epoch_begin(self, training_config: Any, **kwargs: Any) -> None:
            turns.wait()
            self.start = time.perf_counter()

        def on_eval_step_begin(self, training_config: Any, **kwargs: Any) -> None:
            self.trained = time.perf_counter()

        def on_log(self, training_config: Any, logs: Any, **kwargs: Any) -> None:
            # What comes last in an epoch, after the best model so far has been copied.
            now = time.perf_counter()
            loss = float(logs.get("train_epoch_loss", math.nan))
            turns.report(now - self.start, self.trained - self.start, loss)

    return Clock()
