"""What a report is about."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from tfp_flowvae.evaluation.figures import DensityEvaluation, Evaluation
from tfp_flowvae.models import FlowVAE, ImageDensity


@dataclasses.dataclass(frozen=True, kw_only=True)
class Known:
    """What is known of a model of images, its data and its training.

    Attributes:
      name: The title of the page, such as the folder of the run.
      test: Test images `[N, H, W, C]` in [0, 1], binarised as the model needs it; two or more.
      train: Training images `[M, H, W, C]`, likewise; all of them, or the first.
      labels: The label of each test image, strings `[N]`; None if there are none.
      dataset: The data set.
      counts: The number of images in each split, by its name.
      seed: The seed of all draws for the page.
      history: The columns of history.csv, `[epochs]` each; empty if there is none.
      settings: The run's config; empty for an export without one.
      record: The content of run.json; empty if there is none.
      commands: Shell commands, by what they do.
    """

    name: str
    test: np.ndarray
    train: np.ndarray
    labels: np.ndarray | None
    dataset: str
    counts: Mapping[str, int]
    seed: int
    history: Mapping[str, np.ndarray]
    settings: Mapping[str, Any]
    record: Mapping[str, Any]
    commands: Mapping[str, str]

    @property
    def trained(self) -> str:
        """The images, and for how many epochs the model was trained on them, in a sentence."""
        height, width, channels = self.test.shape[1:]
        shape = f"{height} × {width} pixels, {'grey' if channels == 1 else 'colour'}"
        epochs = self.record.get("epochs") or len(self.history.get("epoch", ()))
        if epochs:
            many = "epoch" if epochs == 1 else "epochs"
            images = f"{self.counts['train']:,} images of {self.dataset} ({shape})"
            return f"It was trained for {epochs} {many} on {images}."
        return f"It is evaluated on images of {self.dataset} ({shape})."


@dataclasses.dataclass(frozen=True, kw_only=True)
class DensitySubject(Known):
    """A flow of images, its images and what is known of its training.

    Attributes:
      model: The model.
      evaluation: The figures of `evaluate`; None if there are none.
      test_nll: The bound of -log P(x) of each test image, of all of them, with one draw of the
        noise, in nats.
      train_nll: The same of the first training images, as many or all.
    """

    model: ImageDensity
    evaluation: DensityEvaluation | None
    test_nll: np.ndarray
    train_nll: np.ndarray

    @property
    def flow(self) -> str:
        """The flow in words: its spec string, or the names of its classes."""
        if self.settings:
            return self.settings["flow"]
        stack = self.model.layer.flow.flows[0]
        return "+".join(type(flow).__name__ for flow in getattr(stack, "flows", [stack]))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subject(Known):
    """A VAE, its images and what is known of its training.

    Attributes:
      model: The model.
      binarization: One of `BINARIZATIONS`.
      free_energy: `free_energy`, `log_likelihood` and `kl` of the test images, in nats per image,
        with one sample an image.
      evaluation: The figures of `evaluate`; None if there are none.
    """

    model: FlowVAE
    binarization: str
    free_energy: Mapping[str, float]
    evaluation: Evaluation | None

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
