"""The configuration of a run: the one home of defaults.

Nothing heavy is imported here: the command line builds its options from the fields below.
"""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from tfp_flowvae.data import BINARIZATIONS
from tfp_flowvae.distributions.registry import BASES
from tfp_flowvae.distributions.spec import DistributionSpec, parse_distribution
from tfp_flowvae.errors import UserError, nearest
from tfp_flowvae.flows.spec import check_event_size, parse_stack
from tfp_flowvae.likelihoods import LIKELIHOODS
from tfp_flowvae.models.names import BOUNDS, GRADIENTS, WARMUPS
from tfp_flowvae.networks.registry import NETWORKS, NORMS
from tfp_flowvae.runs.checks import check_together
from tfp_flowvae.runs.options import check_value, option
from tfp_flowvae.runs.plugins import import_plugin
from tfp_flowvae.spec import parse
from tfp_flowvae.training.precision import PRECISIONS

ACTIVATIONS = ("elu", "relu", "silu", "softplus", "tanh", "gelu")
SCHEDULES = ("cosine", "inverse-time", "constant")
OPTIMIZERS = ("adam", "adamax", "adamw")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that decides a run's numbers, and nothing else.

    Two runs of one config on one machine give the same metrics bit for bit. Where the run is
    written, and how much it prints, are not part of it.

    Raises:
      UserError: If a value is not allowed, or two do not go together, in one sentence.
    """

    flow: str = option("iaf", "model", "flow of the posterior q(z|x), see below", metavar="SPEC")
    base: str = option(
        "normal",
        "model",
        "what the posterior's flow acts on: a normal with diagonal or (tril) full covariance",
        choices=BASES,
    )
    prior: str = option(
        "none",
        "model",
        "prior p(z): a flow, a base, or a base and flows, see below; none: standard normal",
        metavar="SPEC",
    )
    allow_slow: bool = option(
        False, "model", "take flows whose direction in training is D sequential steps"
    )
    latent_dim: int = option(16, "model", "size of z", metavar="D", at_least=1)
    likelihood: str = option("bernoulli", "model", "p(x|z), see below", choices=LIKELIHOODS)
    components: int = option(
        10, "model", "logistics in a logistic-mixture likelihood", metavar="K", at_least=1
    )

    plugin: str | None = option(
        None,
        "model",
        "Python module or .py file to import first, which registers flows, bases, networks, "
        "likelihoods or presets of your own",
        metavar="MODULE",
    )

    encoder: str = option("mlp", "networks", "see below", choices=NETWORKS)
    decoder: str | None = option(
        None, "networks", "see below", choices=NETWORKS, shown="as the encoder"
    )
    hidden: tuple[int, ...] | None = option(
        None,
        "networks",
        "dense layers of the encoder and, reversed, of the decoder",
        metavar="N",
        at_least=1,
        shown="the network's, 300 300 for mlp",
    )
    channels: tuple[int, ...] | None = option(
        None,
        "networks",
        "channels of the encoder's convolutions and, reversed, of the decoder's",
        metavar="N",
        at_least=1,
        shown="the network's",
    )
    activation: str | None = option(
        None,
        "networks",
        "of the encoder and decoder",
        choices=ACTIVATIONS,
        shown="the network's, elu for mlp",
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
        "static: one Bernoulli draw; dynamic: a new draw each epoch in training; threshold: at "
        "one half; none: grey levels as they are",
        choices=BINARIZATIONS,
        optional=True,
        shown="dynamic for the bernoulli likelihood, else none",
    )

    epochs: int = option(150, "training", "passes over the training images", at_least=1)
    batch_size: int = option(100, "training", "images a step", metavar="B", at_least=1)
    optimizer: str = option("adam", "training", "of the weights", choices=OPTIMIZERS)
    learning_rate: float = option(
        1e-3, "training", "of the optimizer, at the start", metavar="RATE", above=0.0
    )
    schedule: str = option(
        "cosine",
        "training",
        "of the learning rate: half a cosine to 0; 1/(1 + t/100) at epoch t; constant",
        choices=SCHEDULES,
    )
    weight_decay: float | None = option(
        None,
        "training",
        "of adamw: each step takes so much, times the learning rate, off every weight",
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
        "largest norm of the whole gradient, scaled down to it",
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
        "stop when the validation ELBO has not risen for so many epochs; keeps the best",
        metavar="EPOCHS",
        at_least=1,
        shown="no early stopping",
    )
    seed: int = option(0, "training", "of everything random", at_least=0, below=2**31)
    jit: bool = option(True, "training", "compile the training step with XLA, where it is faster")
    precision: str = option(
        "float32",
        "training",
        "of the networks; flows and densities stay float32",
        choices=PRECISIONS,
    )
    diagnostics: bool = option(
        True, "training", "log the terms of the bound and signs of collapse each epoch"
    )

    samples: int = option(
        1, "objective", "posterior samples for each image and step", metavar="S", at_least=1
    )
    bound: str = option("elbo", "objective", "what is maximised", choices=BOUNDS)
    gradient: str = option(
        "total",
        "objective",
        "of log q(z|x); stl: through z alone (sticking the landing)",
        choices=GRADIENTS,
    )
    beta: float = option(1.0, "objective", "weight of the KL term in the loss", at_least=0.0)
    warmup: str = option(
        "none", "objective", "of the weight of the KL term, from 0", choices=WARMUPS
    )
    warmup_epochs: int = option(
        None,
        "objective",
        "epochs that each rise takes",
        metavar="N",
        at_least=1,
        optional=True,
        shown="20; cyclic: EPOCHS / (2 CYCLES), so that the cycles fill the training",
    )
    cycles: int = option(
        4, "objective", "rises of a cyclic warm-up, with a pause as long after each", at_least=1
    )
    free_bits: float = option(
        0.0, "objective", "least KL of each latent dimension, in nats", metavar="NATS", at_least=0.0
    )
    min_information: float = option(
        0.0, "objective", "least KL in total, in nats (lambda)", metavar="NATS", at_least=0.0
    )

    nll_samples: int = option(
        0,
        "evaluation",
        "posterior samples for the importance-weighted -log p(x) of the test images; 0: none",
        metavar="S",
        at_least=0,
    )

    def __post_init__(self) -> None:
        if isinstance(self.plugin, str):
            import_plugin(self.plugin)
        kinds = field_types()
        for field in dataclasses.fields(self):
            check_value(field, getattr(self, field.name), kinds[field.name])
        if self.binarization is None:
            grey = LIKELIHOODS[self.likelihood].takes_levels
            # The dataclass is frozen; a config says what its run did, so the default is written in.
            object.__setattr__(self, "binarization", "none" if grey else "dynamic")
        if self.warmup_epochs is None:
            # Half of each cycle rises, and the cycles fill the training: Fu et al. (2019).
            cyclic = max(1, self.epochs // (2 * self.cycles))
            object.__setattr__(self, "warmup_epochs", cyclic if self.warmup == "cyclic" else 20)
        for spec in (self.posterior_spec, self.prior_spec):
            check_event_size(spec.flows, self.latent_dim)
        check_together(self)

    @property
    def posterior_spec(self) -> DistributionSpec:
        """The posterior, parsed."""
        return DistributionSpec(parse(BASES, self.base), parse_stack(self.flow))

    @property
    def prior_spec(self) -> DistributionSpec:
        """The prior, parsed."""
        return parse_distribution(self.prior)

    @property
    def full_weight_epoch(self) -> int:
        """How many epochs it takes until the weight of the KL has risen for the last time."""
        rises = {"none": 0, "linear": 1, "cyclic": 2 * self.cycles - 1}
        return rises[self.warmup] * self.warmup_epochs

    def to_json(self) -> str:
        """The config as JSON, one field a line."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], source: str) -> Self:
        """The config with these values, the rest at their defaults.

        Args:
          values: By field name.
          source: What to call the origin of the values in an error.

        Raises:
          UserError: For an unknown field or a value that is not allowed.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        for name in values:
            if name not in names:
                raise UserError(
                    f"Unknown field {name!r} in {source}; known fields are {', '.join(names)}."
                    f"{nearest(name, names)}"
                )
        lists_as_tuples: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
        }
        return cls(**lists_as_tuples)

    @classmethod
    def from_file(cls, path: str | Path, **overrides: Any) -> Self:
        """The config in a JSON file, with some fields replaced.

        Raises:
          UserError: If the file is missing, is not a JSON object, or holds what is not allowed.
        """
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise UserError(
                f"Cannot read the config file {str(path)!r}: {error.strerror}."
            ) from error
        except ValueError as error:
            raise UserError(f"The config file {str(path)!r} is not JSON: {error}.") from error
        if not isinstance(values, dict):
            raise UserError(
                f"The config file {str(path)!r} must hold a JSON object of fields, like the "
                f"config.json of a run. Received: a {type(values).__name__}."
            )
        return cls.from_mapping({**values, **overrides}, source=f"the config file {str(path)!r}")


def field_types() -> dict[str, Any]:
    """The type of every field."""
    return typing.get_type_hints(TrainConfig)
