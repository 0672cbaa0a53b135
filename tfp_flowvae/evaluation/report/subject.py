"""What a report is about."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from tfp_flowvae.evaluation.figures import Evaluation
from tfp_flowvae.models import FlowVAE


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subject:
    """A trained model, its images and what is known of its training.

    Attributes:
      name: The title of the page, such as the folder of the run.
      model: The model.
      test: Test images `[N, H, W, C]` in [0, 1], binarised as the model needs it; two or more.
      train: Training images `[M, H, W, C]`, likewise; all of them, or the first.
      labels: The label of each test image, strings `[N]`; None if there are none.
      dataset: The data set.
      binarization: One of `BINARIZATIONS`.
      free_energy: `free_energy`, `log_likelihood` and `kl` of the test images, in nats per image,
        with one sample an image.
      counts: The number of images in each split, by its name.
      seed: The seed of all draws for the page.
      history: The columns of history.csv, `[epochs]` each; empty if there is none.
      evaluation: The figures of `evaluate`; None if there are none.
      settings: The run's config; empty for an export without one.
      record: The content of run.json; empty if there is none.
      commands: Shell commands, by what they do.
    """

    name: str
    model: FlowVAE
    test: np.ndarray
    train: np.ndarray
    labels: np.ndarray | None
    dataset: str
    binarization: str
    free_energy: Mapping[str, float]
    counts: Mapping[str, int]
    seed: int
    history: Mapping[str, np.ndarray]
    evaluation: Evaluation | None
    settings: Mapping[str, Any]
    record: Mapping[str, Any]
    commands: Mapping[str, str]

    @property
    def posterior(self) -> str:
        """The posterior in words: its spec string, or the names of its classes."""
        if not self.settings:
            return _classes(self.model.posterior_layer)
        base, flow = self.settings["base"], self.settings["flow"]
        return flow if base == "normal" else f"{base}+{flow}"

    @property
    def prior(self) -> str:
        """The prior in words, likewise."""
        return self.settings.get("prior") or _classes(self.model.prior_layer)


def _classes(layer: Any) -> str:
    return "+".join(type(part).__name__ for part in (layer.base, *layer.flow.flows))
