"""Presets: the protocols of papers, as far as the papers give them, and the best found here.

A preset is a set of values for fields of `TrainConfig`; other options override it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tfp_flowvae.registry import Entry, Registry


@dataclass(frozen=True, kw_only=True)
class Preset(Entry):
    """A named set of config values.

    Attributes:
      summary: One line for the command line's help: the protocol, and how it differs from the
        paper's.
      values: Values by field name of `TrainConfig`.
    """

    values: Mapping[str, Any] = field(default_factory=dict)


_STATIC_MNIST = {
    "dataset": "mnist",
    "binarization": "static",
    "batch_size": 100,
    "prior": "none",
}

PRESETS: Registry[Preset] = Registry(
    "preset",
    "presets",
    {
        "henrion-welleck": Preset(
            summary="static MNIST, D=40, 2 x 300, batch norm, 2000 epochs of Adam at 2e-4/"
            "(1+t/100); ReLU, which the study leaves open",
            values={
                **_STATIC_MNIST,
                "flow": "iaf:2,hidden=320",
                "latent_dim": 40,
                "hidden": (300, 300),
                "activation": "relu",
                "norm": "batch",
                "epochs": 2000,
                "learning_rate": 2e-4,
                "schedule": "inverse-time",
            },
        ),
        "rezende-mohamed": Preset(
            summary="static MNIST, D=40, planar flow of length 80, KL warm-up over 10,000 steps; "
            "Adam instead of RMSprop, 2 x 400 ELU instead of maxout",
            values={
                **_STATIC_MNIST,
                "flow": "planar:80",
                "latent_dim": 40,
                "hidden": (400, 400),
                "epochs": 1000,
                "learning_rate": 5e-4,
                "warmup": "linear",
                "warmup_epochs": 20,
                "clip_norm": 100.0,
            },
        ),
        "tomczak-welling": Preset(
            summary="static MNIST, D=40, Householder flow of length 10, 2 x 300 gated, KL warm-up "
            "over 200 epochs, early stopping after 100",
            values={
                **_STATIC_MNIST,
                "flow": "householder:10",
                "latent_dim": 40,
                "encoder": "gated-mlp",
                "hidden": (300, 300),
                "epochs": 5000,
                "learning_rate": 5e-4,
                "schedule": "constant",
                "warmup": "linear",
                "warmup_epochs": 200,
                "patience": 100,
            },
        ),
        "sylvester": Preset(
            summary="static MNIST, D=64, orthogonal Sylvester flow of length 16 and width 32, "
            "gated convolutions, Adamax, KL warm-up over 100 epochs, early stopping after 100",
            values={
                **_STATIC_MNIST,
                "flow": "sylvester:16,width=32",
                "latent_dim": 64,
                "encoder": "gated-conv",
                "epochs": 2000,
                "optimizer": "adamax",
                "learning_rate": 5e-4,
                "schedule": "constant",
                "warmup": "linear",
                "warmup_epochs": 100,
                "patience": 100,
            },
        ),
        "vlae": Preset(
            summary="static MNIST, D=32, IAF posterior and autoregressive-flow prior, residual "
            "convolutions, a KL of at least 0.01 nats per dimension on average; without PixelCNN",
            values={
                **_STATIC_MNIST,
                "flow": "iaf:4,hidden=640,update=gated",
                "prior": "maf:4,hidden=640",
                "latent_dim": 32,
                "encoder": "resnet",
                "epochs": 200,
                "optimizer": "adamax",
                # The papers use 2e-3 with weight-normalised networks. With the networks here, the
                # first step at that rate makes the scales of the flows explode.
                "learning_rate": 1e-3,
                "min_information": 0.32,
                "ema": 0.998,
            },
        ),
        "best": Preset(
            summary="static MNIST by the recipe of docs/study.md: IAF posterior and RealNVP prior, "
            "D=40, 2 x 300, 300 epochs of AdamW",
            values={
                **_STATIC_MNIST,
                "flow": "iaf:2,hidden=320",
                "prior": "realnvp:6,hidden=200x200",
                "latent_dim": 40,
                "hidden": (300, 300),
                "activation": "elu",
                "epochs": 300,
                "optimizer": "adamw",
                "learning_rate": 2e-3,
                "weight_decay": 0.05,
                "clip_norm": 100.0,
            },
        ),
        "best-dynamic": Preset(
            summary="MNIST with a new binarisation in each epoch: RealNVP prior, D=40, 2 x 300, "
            "100 epochs of Adam, KL warm-up",
            values={
                "dataset": "mnist",
                "binarization": "dynamic",
                "flow": "none",
                "prior": "realnvp:6,hidden=256x256",
                "latent_dim": 40,
                "hidden": (300, 300),
                "epochs": 100,
                "learning_rate": 1e-3,
                "warmup": "linear",
                "warmup_epochs": 20,
            },
        ),
    },
)


def register_preset(name: str, *, summary: str, **values: Any) -> None:
    """Registers a preset under a name, for `--preset` and `--help`.

    Args:
      name: The name.
      summary: One line for the command line's help.
      **values: Values by field name of `TrainConfig`.

    Raises:
      UserError: If the name is taken.

    Example:
      >>> fv.register_preset("small", summary="a small model", latent_dim=8, epochs=5)
      >>> PRESETS["small"].values
      {'latent_dim': 8, 'epochs': 5}
    """
    PRESETS.add(name, Preset(summary=summary, values=values))
