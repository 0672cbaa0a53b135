"""Named settings: the protocols of the papers, as far as they say, and the best found here.

A preset is a set of values for `TrainConfig`'s fields; options given beside it come on top.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from tfp_flowvae.errors import UserError, nearest


@dataclass(frozen=True)
class Preset:
    """A named set of values.

    Attributes:
      summary: One line for the command line's help: whose protocol, and what is ours in it.
      values: By field name of `TrainConfig`.
    """

    summary: str
    values: Mapping[str, Any] = field(default_factory=dict)


_STATIC_MNIST = {"dataset": "mnist", "binarization": "static", "batch_size": 100}

PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "henrion-welleck": Preset(
            "static MNIST, D=40, 2 x 300, batch norm, 2000 epochs of Adam at 2e-4/(1+t/100); "
            "ReLU, as the study does not say",
            {
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
            "static MNIST, D=40, planar flow of length 80, KL warm-up over 10,000 steps; "
            "Adam for RMSprop, 2 x 400 ELU for maxout",
            {
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
            "static MNIST, D=40, Householder flow of length 10, 2 x 300 gated, KL warm-up over "
            "200 epochs, early stopping after 100",
            {
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
            "static MNIST, D=64, orthogonal Sylvester flow of length 16 and width 32, gated "
            "convolutions, Adamax, KL warm-up over 100 epochs, early stopping after 100",
            {
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
            "static MNIST, D=32, IAF posterior and autoregressive-flow prior, residual "
            "convolutions, at least 0.01 nats for each dimension in total; no PixelCNN decoder",
            {
                **_STATIC_MNIST,
                "flow": "iaf:4,hidden=640,update=gated",
                "prior": "maf:4,hidden=640",
                "latent_dim": 32,
                "encoder": "resnet",
                "epochs": 200,
                "optimizer": "adamax",
                # At 2e-3, the papers' for weight-normalised networks, the first step of these makes
                # the flows' scales explode.
                "learning_rate": 1e-3,
                "min_information": 0.32,
                "ema": 0.998,
            },
        ),
        "best": Preset(
            "the best found so far on MNIST at the seed study's sizes: RealNVP prior, dynamic "
            "binarization, KL warm-up",
            {
                "dataset": "mnist",
                "binarization": "dynamic",
                "flow": "none",
                "prior": "realnvp:6,hidden=256x256",
                "latent_dim": 40,
                "hidden": (300, 300),
                "epochs": 100,
                "warmup": "linear",
                "warmup_epochs": 20,
            },
        ),
    }
)


def find_preset(name: str) -> Preset:
    """The preset of this name.

    Raises:
      UserError: If there is none.
    """
    if name not in PRESETS:
        raise UserError(
            f"Unknown preset {name!r}; known presets are {', '.join(PRESETS)}."
            f"{nearest(name, PRESETS)}"
        )
    return PRESETS[name]
