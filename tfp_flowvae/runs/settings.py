"""The settings of a run: the one home of their defaults.

This module imports nothing heavy: the command line builds its options from the fields below.
"""

from __future__ import annotations

import dataclasses

from tfp_flowvae.data import BINARIZATIONS
from tfp_flowvae.distributions.registry import BASES
from tfp_flowvae.distributions.spec import DistributionSpec, parse_distribution
from tfp_flowvae.flows.spec import parse_stack
from tfp_flowvae.likelihoods import LIKELIHOODS
from tfp_flowvae.models.names import BOUNDS, GRADIENTS, WARMUPS
from tfp_flowvae.networks.registry import NETWORKS, NORMS
from tfp_flowvae.runs.options import option
from tfp_flowvae.spec import parse
from tfp_flowvae.training.precision import PRECISIONS

ACTIVATIONS = ("elu", "relu", "silu", "softplus", "tanh", "gelu")
SCHEDULES = ("cosine", "inverse-time", "constant")
OPTIMIZERS = ("adam", "adamax", "adamw")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """The fields of `TrainConfig`, unchecked."""

    flow: str = option("iaf", "model", "flow of the posterior q(z|x), see below", metavar="SPEC")
    base: str = option(
        "normal",
        "model",
        "base of the posterior: a normal with diagonal (normal) or full (tril) covariance",
        choices=BASES,
    )
    prior: str = option(
        "vamp:100",
        "model",
        "prior p(z): a flow, a base, or a base and flows, see below; none: standard normal",
        metavar="SPEC",
    )
    allow_slow: bool = option(
        False,
        "model",
        "accept flows that need D sequential passes in each training step",
    )
    latent_dim: int = option(16, "model", "size of z", metavar="D", at_least=1)
    likelihood: str = option("bernoulli", "model", "p(x|z), see below", choices=LIKELIHOODS)
    components: int = option(
        10, "model", "number of logistics in a logistic-mixture likelihood", metavar="K", at_least=1
    )

    plugin: str | None = option(
        None,
        "model",
        "a Python module or .py file to import first; it may register flows, bases, networks, "
        "likelihoods and presets of your own",
        metavar="MODULE",
    )

    encoder: str = option("mlp", "networks", "encoder network, see below", choices=NETWORKS)
    decoder: str | None = option(
        None,
        "networks",
        "decoder network, see below",
        choices=NETWORKS,
        shown="as the encoder",
    )
    hidden: tuple[int, ...] | None = option(
        None,
        "networks",
        "widths of the encoder's dense layers; the decoder has them in reverse order",
        metavar="N",
        at_least=1,
        shown="the network's own, 300 300 for mlp",
    )
    channels: tuple[int, ...] | None = option(
        None,
        "networks",
        "channels of the encoder's convolutions; the decoder has them in reverse order",
        metavar="N",
        at_least=1,
        shown="the network's own",
    )
    activation: str | None = option(
        None,
        "networks",
        "activation of the encoder and decoder",
        choices=ACTIVATIONS,
        shown="the network's own, elu for mlp",
    )
    norm: str = option("none", "networks", "normalisation of the layers", choices=NORMS)

    dataset: str = option(
        "digits",
        "data",
        "digits, mnist, a TFDS image dataset, an .npz or .npy file, or a folder of images",
        metavar="NAME|PATH",
    )
    data_dir: str | None = option(None, "data", "folder of prepared TFDS datasets", metavar="DIR")
    image_shape: tuple[int, ...] | None = option(
        None,
        "data",
        "height, width and channels of the flattened images [N, H*W*C] of an .npz or .npy file, "
        "such as 28 28 1",
        metavar="H W C",
        length=3,
        at_least=1,
    )
    binarization: str = option(
        None,
        "data",
        "static: one Bernoulli draw; dynamic: a new draw of the training images in each epoch; "
        "threshold: 1 where the level exceeds one half; none: keep the grey levels",
        choices=BINARIZATIONS,
        optional=True,
        shown="dynamic for the bernoulli likelihood, else none",
    )

    epochs: int = option(400, "training", "passes over the training images", at_least=1)
    batch_size: int = option(100, "training", "images per step", metavar="B", at_least=1)
    optimizer: str = option("adam", "training", "optimizer of the weights", choices=OPTIMIZERS)
    learning_rate: float = option(
        2e-3, "training", "learning rate at the start", metavar="RATE", above=0.0
    )
    schedule: str = option(
        "cosine",
        "training",
        "learning rate schedule: half a cosine to 0, 1/(1 + t/100) at epoch t, or constant",
        choices=SCHEDULES,
    )
    weight_decay: float | None = option(
        None,
        "training",
        "of adamw: each step subtracts this share, times the learning rate, of every weight",
        at_least=0.0,
        shown="0.004",
    )
    input_dropout: float = option(
        0.0,
        "training",
        "share of the pixels that the encoder does not see in training",
        metavar="RATE",
        at_least=0.0,
        below=1.0,
    )
    clip_norm: float | None = option(
        None,
        "training",
        "scale the gradient down to this norm when it is larger",
        metavar="NORM",
        above=0.0,
        shown="no clipping",
    )
    ema: float | None = option(
        None,
        "training",
        "evaluate and export an exponential moving average of the weights with this momentum",
        metavar="M",
        at_least=0.0,
        below=1.0,
        shown="no averaging",
    )
    patience: int | None = option(
        None,
        "training",
        "stop when the validation ELBO has not risen for this many epochs; keep the best weights",
        metavar="EPOCHS",
        at_least=1,
        shown="no early stopping",
    )
    seed: int = option(0, "training", "seed of everything random", at_least=0, below=2**31)
    jit: bool = option(True, "training", "compile the training step with XLA where that is faster")
    precision: str = option(
        "float32",
        "training",
        "precision of the networks; flows and densities stay in float32",
        choices=PRECISIONS,
    )
    diagnostics: bool = option(
        True, "training", "log the terms of the bound and signs of posterior collapse in each epoch"
    )

    samples: int = option(
        1, "objective", "posterior samples per image and step", metavar="S", at_least=1
    )
    bound: str = option("elbo", "objective", "bound to maximise", choices=BOUNDS)
    gradient: str = option(
        "total",
        "objective",
        "gradient of log q(z|x); stl: through z alone (sticking the landing)",
        choices=GRADIENTS,
    )
    beta: float = option(1.0, "objective", "weight of the KL term in the loss", at_least=0.0)
    warmup: str = option(
        "none", "objective", "how the weight of the KL term rises from 0", choices=WARMUPS
    )
    warmup_epochs: int = option(
        None,
        "objective",
        "how many epochs each rise takes",
        metavar="N",
        at_least=1,
        optional=True,
        shown="20; cyclic: EPOCHS / (2 CYCLES), so that the cycles fill the training",
    )
    cycles: int = option(4, "objective", "number of rises in a cyclic warm-up", at_least=1)
    free_bits: float = option(
        0.0,
        "objective",
        "smallest KL of each latent dimension, in nats",
        metavar="NATS",
        at_least=0.0,
    )
    min_information: float = option(
        0.0, "objective", "smallest total KL, in nats (lambda)", metavar="NATS", at_least=0.0
    )

    nll_samples: int = option(
        0,
        "evaluation",
        "posterior samples for the importance-weighted -log p(x) of the test images; 0: none",
        metavar="S",
        at_least=0,
    )

    @property
    def posterior_spec(self) -> DistributionSpec:
        """The parsed posterior: `base` and `flow`."""
        return DistributionSpec(parse(BASES, self.base), parse_stack(self.flow))

    @property
    def full_weight_epoch(self) -> int:
        """How many epochs it takes until the weight of the KL has risen for the last time."""
        rises = {"none": 0, "linear": 1, "cyclic": 2 * self.cycles - 1}
        return rises[self.warmup] * self.warmup_epochs

    @property
    def prior_spec(self) -> DistributionSpec:
        """The parsed `prior`."""
        return parse_distribution(self.prior)
