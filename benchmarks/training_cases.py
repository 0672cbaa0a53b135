"""What `training.py` measures: the yardstick VAE, its cases, their weights, and the images.

Imports neither TensorFlow nor PyTorch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from tfp_flowvae.data import ImageSplits, binarize_fixed, load_images

IMAGE, PIXELS, HIDDEN, LATENT, BATCH = (28, 28, 1), 784, 300, 40, 100
STEPS = 500  # an epoch of MNIST's 50,000 training images, with 10,000 for validation
VALIDATION_BATCH = 1000
LAYERS, MADE_HIDDEN = 4, 320  # of the IAF
LENGTH = 10  # of the planar and the Householder flow
COUPLINGS, COUPLING_HIDDEN = 6, 256  # of the RealNVP prior
RATE = 1e-3


Row = dict[str, Any]
Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Case:
    """One yardstick: its flows as spec strings, and the largest ratios that are wanted."""

    flow: str = "none"
    prior: str = "none"
    pytorch: float = 0.75
    floor: float = 1.15
    pythae: float | None = None

    @property
    def values(self) -> dict[str, Any]:
        """Fields of `TrainConfig`."""
        return {
            "flow": self.flow,
            "prior": self.prior,
            "latent_dim": LATENT,
            "hidden": (HIDDEN, HIDDEN),
            "activation": "elu",
            "batch_size": BATCH,
            "learning_rate": RATE,
            "schedule": "constant",
            "binarization": "static",
            "diagnostics": False,
        }


CASES: Mapping[str, Case] = MappingProxyType(
    {
        "none": Case(pythae=0.6),
        "iaf": Case(flow=f"iaf:{LAYERS},hidden={MADE_HIDDEN}", pytorch=0.85, pythae=0.8),
        "planar": Case(flow=f"planar:{LENGTH}"),
        "householder": Case(flow=f"householder:{LENGTH}"),
        "realnvp-prior": Case(
            prior=f"realnvp:{COUPLINGS},hidden={COUPLING_HIDDEN}x{COUPLING_HIDDEN}"
        ),
    }
)


@dataclass(frozen=True)
class Options:
    """What the command line asks for; None is the part's own default."""

    folder: Path
    steps: int | None = None
    turns: int | None = None
    images: int | None = None
    samples: int = 5000
    dataset: str | None = None
    data_dir: str | None = None


@dataclass(frozen=True)
class Job:
    """What a contender is told: the case, and the folder of the images."""

    case: str
    folder: Path

    def images(self, split: str) -> np.ndarray:
        """`[N, 28, 28, 1]`, uint8 zeros and ones; `split` is train or valid."""
        return np.load(self.folder / f"{split}.npy", allow_pickle=False)


def shapes(case: str) -> Shapes:
    """The weights of the rivals' loops by name: as many numbers as the model has.

    Kernels that act on the same input are one: mean and scale, and what a flow takes from the
    encoder's features.
    """
    encoder = {**dense("enc0", PIXELS, HIDDEN), **dense("enc1", HIDDEN, HIDDEN)}
    head = dense("head", HIDDEN, 2 * LATENT)
    decoder = {
        **dense("dec0", LATENT, HIDDEN),
        **dense("dec1", HIDDEN, HIDDEN),
        **dense("dec2", HIDDEN, PIXELS),
    }
    return {**encoder, **head, **_flow_shapes(case), **decoder}


def _flow_shapes(case: str) -> Shapes:
    flow: Shapes = {}
    if case == "iaf":
        for k in range(LAYERS):
            flow |= dense(f"made{k}_in", LATENT, MADE_HIDDEN)
            flow |= dense(f"made{k}_out", MADE_HIDDEN, 2 * LATENT)
            flow[f"made{k}_context"] = (HIDDEN, MADE_HIDDEN + 2 * LATENT)
    elif case == "planar":
        flow = dense("flow", HIDDEN, LENGTH * (2 * LATENT + 1))
    elif case == "householder":
        flow = dense("flow", HIDDEN, LENGTH * LATENT)
    elif case == "realnvp-prior":
        for k in range(COUPLINGS):
            flow |= dense(f"mlp{k}_0", LATENT // 2, COUPLING_HIDDEN)
            flow |= dense(f"mlp{k}_1", COUPLING_HIDDEN, COUPLING_HIDDEN)
            flow |= dense(f"mlp{k}_2", COUPLING_HIDDEN, LATENT)
    return flow


def dense(name: str, inputs: int, units: int) -> Shapes:
    """A kernel, and the bias that goes with it by the name with `_b`."""
    return {name: (inputs, units), f"{name}_b": (units,)}


def starting_weights(case: str) -> dict[str, np.ndarray]:
    """Draws the weights: kernels of variance 1 / inputs, what ends a flow's networks near zero."""
    rng, weights = np.random.default_rng(0), {}
    for name, shape in shapes(case).items():
        if len(shape) == 1:
            # A Householder flow needs mirrors to begin with, a planar one planes.
            scale = 1.0 if name == "flow_b" else 0.0
        else:
            quiet = name == "flow" or name.endswith(("_out", "_context")) or name.endswith("_2")
            scale = (0.01 if quiet else 1.0) / math.sqrt(shape[0])
        weights[name] = (scale * rng.normal(size=shape)).astype(np.float32)
    return weights


def made_masks(layer: int) -> tuple[np.ndarray, np.ndarray]:
    """The masks of a MADE's two kernels; every other layer reads z from its end.

    Units of degree 0 see the context alone. The output is a shift and a raw log-scale, one half of
    the columns each.
    """
    inputs = np.arange(1, LATENT + 1)
    if layer % 2:
        inputs = inputs[::-1]
    hidden = np.arange(MADE_HIDDEN) * LATENT // MADE_HIDDEN
    first = inputs[:, None] <= hidden[None, :]
    last = hidden[:, None] < np.tile(inputs, 2)[None, :]
    return first.astype(np.float32), last.astype(np.float32)


def write_images(folder: Path, steps: int, dataset: str | None, data_dir: str | None) -> None:
    """Writes binary images for epochs of so many steps, a fifth as many for validation.

    Args:
      folder: Where `train.npy` and `valid.npy` go.
      steps: Steps an epoch.
      dataset: What `train.py --dataset` takes, of MNIST's shape; None for synthetic images.
      data_dir: What `train.py --data-dir` takes.
    """
    wanted = {"train": steps * BATCH, "valid": steps * BATCH // 5}
    splits = None if dataset is None else load_images(dataset, data_dir)
    for seed, (split, count) in enumerate(wanted.items()):
        if splits is None:
            images = synthetic_images(count, seed)
        else:
            images = _of_the_data_set(splits, split, count)
        np.save(folder / f"{split}.npy", images)


def synthetic_images(count: int, seed: int) -> np.ndarray:
    """Binary images of MNIST's shape with something to learn: pixels from eight hidden numbers."""
    loadings = np.random.default_rng(1797).normal(size=(8, PIXELS)).astype(np.float32)
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(count, 8)).astype(np.float32) @ loadings - 3.0
    drawn = rng.random(logits.shape, dtype=np.float32) < 1.0 / (1.0 + np.exp(-logits))
    return drawn.astype(np.uint8).reshape(-1, *IMAGE)


def _of_the_data_set(splits: ImageSplits, split: str, count: int) -> np.ndarray:
    images = getattr(splits, split)
    if splits.image_shape != IMAGE or len(images) < count:
        raise SystemExit(
            f"The data set must have at least {count} {split} images of shape {IMAGE}; take fewer "
            f"--steps or another one. Received: {len(images)} of shape {splits.image_shape}."
        )
    return binarize_fixed(images[:count], splits.levels, "static", split)[0]
