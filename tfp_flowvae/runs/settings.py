"""The settings of a run, with their defaults.

The command line makes its options from the fields below. This module imports nothing heavy.
"""

from __future__ import annotations

import dataclasses

from tfp_flowvae.data import BINARIZATIONS
from tfp_flowvae.distributions.registry import BASES
from tfp_flowvae.distributions.spec import DistributionSpec, parse_distribution
from tfp_flowvae.flows.spec import parse_stack
from tfp_flowvae.likelihoods import LIKELIHOODS
from tfp_flowvae.models.names import BOUNDS, DEQUANTIZE, GRADIENTS, WARMUPS
from tfp_flowvae.networks.registry import NETWORKS, NORMS
from tfp_flowvae.runs.options import option
from tfp_flowvae.spec import parse
from tfp_flowvae.training.precision import PRECISIONS

ACTIVATIONS = ("elu", "relu", "silu", "softplus", "tanh", "gelu")
SCHEDULES = ("cosine", "inverse-time", "constant")
MODELS = ("vae", "flow")
OPTIMIZERS = ("adam", "adamax", "adamw")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """The fields of `TrainConfig`, unchecked."""

    model: str = option(
        "vae",
        "what to train; vae: a flow VAE; flow: a flow of the pixels, without latent variables of "
        "fewer dimensions",
        choices=MODELS,
        group="model",
    )
    flow: str = option(
        None,
        "the flow of the posterior q(z|x), or with --model flow that of the images, see below",
        metavar="SPEC",
        optional=True,
        shown="iaf; glow for --model flow",
    )
    dequantize: str = option(
        "uniform",
        "the noise that makes grey levels continuous for --model flow; variational: learned",
        choices=DEQUANTIZE,
        of="flow",
    )
    temperature: float = option(
        1.0,
        "the temperature of the images in samples.png of --model flow; below 1 they are more "
        "typical and less varied",
        metavar="T",
        at_least=0.0,
        of="flow",
    )
    base: str = option(
        "normal",
        "the base distribution under the posterior's flow: a normal with a diagonal (normal) or a "
        "full (tril) covariance matrix",
        choices=BASES,
        of="vae",
    )
    prior: str = option(
        "vamp:100",
        "the prior p(z): a flow, a base, or a base and flows, see below; none: the standard normal",
        metavar="SPEC",
        of="vae",
    )
    allow_slow: bool = option(
        False,
        "accept a flow that needs D passes, one after another, in each training step",
        of="vae",
    )
    latent_dim: int = option(
        16, "the number of latent dimensions", metavar="D", at_least=1, of="vae"
    )
    likelihood: str = option(
        "bernoulli",
        "the distribution of an image given z, p(x|z), see below",
        choices=LIKELIHOODS,
        of="vae",
    )
    components: int = option(
        10,
        "the number of logistics in --likelihood logistic-mixture",
        metavar="K",
        at_least=1,
        of="vae",
    )
    plugin: str | None = option(
        None,
        "a Python module or .py file to import first, which registers flows, bases, networks, "
        "likelihoods or presets of your own",
        metavar="MODULE",
    )

    encoder: str = option(
        "mlp", "the encoder network, see below", choices=NETWORKS, group="networks", of="vae"
    )
    decoder: str | None = option(
        None, "the decoder network, see below", choices=NETWORKS, shown="as the encoder", of="vae"
    )
    hidden: tuple[int, ...] | None = option(
        None,
        "the widths of the encoder's dense layers; the decoder has them in reverse order",
        metavar="N",
        at_least=1,
        shown="the network's own, 300 300 for mlp",
        of="vae",
    )
    channels: tuple[int, ...] | None = option(
        None,
        "the channels of the encoder's convolutions; the decoder has them in reverse order",
        metavar="N",
        at_least=1,
        shown="the network's own",
        of="vae",
    )
    activation: str | None = option(
        None,
        "the activation function in the encoder and the decoder",
        choices=ACTIVATIONS,
        shown="the network's own, elu for mlp",
        of="vae",
    )
    norm: str = option(
        "none", "the normalisation in the encoder and the decoder", choices=NORMS, of="vae"
    )

    dataset: str = option(
        "digits",
        "digits, mnist, another image data set of TensorFlow Datasets (TFDS), an .npz or .npy "
        "file, or a folder of pictures",
        metavar="NAME|PATH",
        group="data",
    )
    data_dir: str | None = option(
        None,
        "the folder of prepared TFDS data sets",
        metavar="DIR",
        shown="TFDS_DATA_DIR, or ~/tensorflow_datasets",
    )
    image_shape: tuple[int, ...] | None = option(
        None,
        "the height, width and channels of flattened images [N, H*W*C] in an .npz or .npy file, "
        "such as 28 28 1",
        metavar="H W C",
        length=3,
        at_least=1,
    )
    labels: bool = option(
        False,
        "give the model the class of each image: the label of a TFDS data set, y_train (and the "
        "like) beside x_train in an .npz file, or the name of a picture's folder; a label -1 is "
        "missing",
    )
    binarization: str = option(
        None,
        "how images become black and white; static: each pixel is drawn once, and is 1 with its "
        "intensity as probability; dynamic: training images are drawn anew in each epoch; "
        "threshold: 1 where the intensity is above 0.5; none: images keep their grey levels",
        choices=BINARIZATIONS,
        optional=True,
        shown="dynamic for the bernoulli likelihood, none for the others",
    )

    epochs: int = option(
        400, "the number of passes over the training images", at_least=1, group="training"
    )
    batch_size: int = option(
        100, "the number of images in a training step", metavar="B", at_least=1
    )
    optimizer: str = option("adam", "the optimizer", choices=OPTIMIZERS)
    learning_rate: float = option(2e-3, "the learning rate at the start", metavar="RATE", above=0.0)
    schedule: str = option(
        "cosine",
        "how the learning rate changes; cosine: it falls to 0 along half a cosine; inverse-time: "
        "it is divided by 1 + t/100 at epoch t; constant: it stays",
        choices=SCHEDULES,
    )
    weight_decay: float | None = option(
        None,
        "the weight decay of adamw: each step subtracts this share, times the learning rate, from "
        "every weight",
        metavar="SHARE",
        at_least=0.0,
        shown="0.004",
    )
    input_dropout: float = option(
        0.0,
        "the share of the pixels that are hidden from the encoder in training",
        metavar="SHARE",
        at_least=0.0,
        below=1.0,
        of="vae",
    )
    label_dropout: float = option(
        0.1,
        "the share of the labels that are hidden in training with --labels, from which the model "
        "learns images of an unknown class",
        metavar="SHARE",
        at_least=0.0,
        below=1.0,
    )
    clip_norm: float | None = option(
        None,
        "the largest norm of the gradient; a larger gradient is scaled down to it",
        metavar="NORM",
        above=0.0,
        shown="no clipping",
    )
    ema: float | None = option(
        None,
        "evaluate and export the exponential moving average of the weights with this momentum",
        metavar="M",
        at_least=0.0,
        below=1.0,
        shown="no averaging",
    )
    patience: int | None = option(
        None,
        "stop when the bound of the validation images has not improved for this many epochs; keep "
        "the best weights",
        metavar="EPOCHS",
        at_least=1,
        shown="no early stopping",
    )
    seed: int = option(0, "the seed of all random numbers", at_least=0, below=2**31)
    jit: bool = option(True, "compile the training step with XLA where that makes it faster")
    precision: str = option(
        "float32",
        "the precision of the networks; flows and densities always have float32",
        choices=PRECISIONS,
    )
    diagnostics: bool = option(
        True,
        "measure the terms of the bound and the signs of posterior collapse after each epoch, "
        "for history.csv",
        of="vae",
    )

    samples: int = option(
        1,
        "the number of posterior samples for each image in a training step",
        metavar="S",
        at_least=1,
        group="objective",
        of="vae",
    )
    bound: str = option("elbo", "the lower bound of log p(x) to maximise", choices=BOUNDS, of="vae")
    gradient: str = option(
        "total",
        "the gradient of log q(z|x); total: through z and the parameters; stl: through z alone "
        "(sticking the landing)",
        choices=GRADIENTS,
        of="vae",
    )
    beta: float = option(1.0, "the weight of the KL term in the loss", at_least=0.0, of="vae")
    warmup: str = option(
        "none",
        "how the weight of the KL term rises from 0; none: it does not; linear: once; cyclic: "
        "several times",
        choices=WARMUPS,
        of="vae",
    )
    warmup_epochs: int = option(
        None,
        "the number of epochs that each rise takes",
        metavar="N",
        at_least=1,
        optional=True,
        shown="20; cyclic: EPOCHS / (2 CYCLES), so that the cycles fill the training",
        of="vae",
    )
    cycles: int = option(4, "the number of rises in a cyclic warm-up", at_least=1, of="vae")
    free_bits: float = option(
        0.0,
        "the KL of each latent dimension, in nats, below which it is not reduced any more",
        metavar="NATS",
        at_least=0.0,
        of="vae",
    )
    min_information: float = option(
        0.0,
        "the total KL, in nats, below which it is not reduced any more (lambda)",
        metavar="NATS",
        at_least=0.0,
        of="vae",
    )

    nll_samples: int = option(
        0,
        "the number of posterior samples, or with --model flow of draws of the noise, for the "
        "importance-weighted estimate of -log p(x) of the test images; 0: no estimate",
        metavar="S",
        at_least=0,
        group="evaluation",
    )

    @property
    def posterior_spec(self) -> DistributionSpec:
        """The parsed posterior: `base` and `flow`."""
        return DistributionSpec(parse(BASES, self.base), parse_stack(self.flow))

    @property
    def full_weight_epoch(self) -> int:
        """The number of epochs after which the weight of the KL term does not rise any more."""
        if self.warmup == "none":
            return 0
        rises = 2 * self.cycles - 1 if self.warmup == "cyclic" else 1
        return rises * self.warmup_epochs

    @property
    def prior_spec(self) -> DistributionSpec:
        """The parsed `prior`."""
        return parse_distribution(self.prior)
