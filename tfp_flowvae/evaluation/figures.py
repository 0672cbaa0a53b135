"""The figures of an evaluation, each with the protocol by which it was measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np

from tfp_flowvae.errors import UserError

FEATURES = ("pixels", "encoder")
QUICK = {"samples": 200, "aggregated_images": 200, "gap_images": 20, "gap_steps": 300, "drawn": 500}
"""The sizes of a quick evaluation, of about a minute."""

DENSITY_SIZES = {"samples": 50}
DENSITY_QUICK = {"samples": 5, "aggregated_images": 200, "drawn": 500}
"""The sizes for a flow of images, which takes about as long for a draw as a VAE for a hundred."""

FEW_EFFECTIVE = 10
"""Fewer effective samples than this make an image's NLL unreliable."""

_LEAST = {
    "samples": 1,
    "aggregated_images": 2,
    "gap_images": 0,
    "gap_steps": 1,
    "drawn": 0,
    "seed": 0,
}


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How the figures were measured: only figures of one protocol can be compared.

    Attributes:
      dataset: The data set, or "" if it was not named.
      split: The split, or "" if it was not named.
      binarization: How the images were made binary, or "" if it was not named.
      images: N, the number of images.
      checksum: Of the images: figures with one checksum are of the same images.
      samples: S, the number of importance samples of each image; for a flow of images, of draws of
        the noise.
      aggregated_images: The number of images of the aggregated posterior and of the active units;
        for a flow of images, of those whose latents are compared with the base.
      gap_images: The number of images of the gaps; 0 for none.
      gap_steps: The number of steps that optimise each image's posterior.
      drawn: The number of drawn images that are compared with the data; 0 for none.
      features: In what space they are compared: "pixels", or "encoder" for the encoder's features.
      seed: The seed.

    Raises:
      UserError: If a number or `features` is not allowed.

    Example:
      >>> first, second = Protocol(samples=500, seed=0), Protocol(samples=5000, seed=1)
      >>> first.differences(second)  # but for the seed
      {'samples': (500, 5000)}
    """

    dataset: str = ""
    split: str = ""
    binarization: str = ""
    images: int = 0
    checksum: str = ""
    samples: int = 5000
    aggregated_images: int = 1000
    gap_images: int = 100
    gap_steps: int = 1000
    drawn: int = 1000
    features: str = "pixels"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            if getattr(self, name) < least:
                raise UserError(
                    f"{name} must be at least {least}. Received: {getattr(self, name)}."
                )
        if self.seed >= 2**31:
            raise UserError(f"seed must be below 2147483648. Received: {self.seed}.")
        if self.features not in FEATURES:
            allowed = " or ".join(FEATURES)
            raise UserError(f"features must be {allowed}. Received: {self.features!r}.")

    def differences(self, other: Protocol) -> dict[str, tuple[Any, Any]]:
        """Returns what two protocols differ in, but for the seed: both values, by attribute."""
        names = [field.name for field in dataclasses.fields(self) if field.name != "seed"]
        pairs = {name: (getattr(self, name), getattr(other, name)) for name in names}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Figures:
    """The figures that every model of images has; nats per image unless said otherwise.

    Attributes:
      model: The kind of model, as in `TrainConfig.model`: "vae" or "flow".
      protocol: How they were measured.
      nll: The importance-weighted estimate of -log p(x), with S samples.
      nll_se: Its standard error over images.
      bits_per_dimension: nll / (H W C log 2) for images of finitely many values; else None.
      effective_samples: The median over images of the effective number of importance samples.
      generalization_gap: nll minus the NLL of as many training images; None without those.
      generalization_gap_se: Its standard error.
      frechet_distance: Of drawn images from the images, squared, in the square of the features'
        unit; None if none are drawn.
      frechet_distance_of_data: Of training images, as many, from the images; None without those.
      precision: The share of drawn images that lie among the images.
      recall: The share of images that lie among the drawn ones.
      nearest_distance: The median Euclidean distance, in pixels in [0, 1], of a mean image of
        p(x|z), or of a drawn image of a flow of images, to its nearest training image; None without
        training images.
      nearest_distance_of_data: The same of the mean reconstruction of an image, or of an image, for
        comparison: samples that are much nearer to training images are copies of them.
      nearest_places: The place of the nearest training image of each mean or drawn image.
      nll_per_image: `[N]`.
      effective_samples_per_image: `[N]`.
      label_nll: The importance-weighted estimate of -log p(x|y) given the labels, with S samples,
        for a model with classes. All other figures of such a model are of p(x), the density of an
        image whose class is not known. None without labels.
      label_nll_se: Its standard error over images.
      accuracy: The share of the first `aggregated_images` images whose label has the highest
        p(y) p(x|y).
      class_names: The names of the K classes; empty without labels, as the rest below.
      class_images: How many of the images are of each class.
      class_nll: The mean -log p(x|y) of the images of each class, or -log P(x) for a flow of images
        without classes; None for a class without images.
      class_accuracy: `accuracy` of the images of each class, likewise; empty without it.

    Example:
      >>> vae = fv.FlowVAE(image_shape=(4, 4, 1), latent_size=2)
      >>> x = np.random.default_rng(0).integers(0, 2, (4, 4, 4, 1)).astype("float32")
      >>> found = fv.evaluate(vae, x, samples=10, gap_images=0, drawn=0)
      >>> isinstance(found, Figures), found.model, found.nll_per_image.shape
      (True, 'vae', (4,))
    """

    model: ClassVar[str]

    protocol: Protocol
    nll: float
    nll_se: float
    bits_per_dimension: float | None
    effective_samples: float
    generalization_gap: float | None
    generalization_gap_se: float | None
    frechet_distance: float | None
    frechet_distance_of_data: float | None
    precision: float | None
    recall: float | None
    nearest_distance: float | None
    nearest_distance_of_data: float | None
    nearest_places: tuple[int, ...] = dataclasses.field(repr=False)
    nll_per_image: np.ndarray = dataclasses.field(repr=False)
    effective_samples_per_image: np.ndarray = dataclasses.field(repr=False)
    label_nll: float | None = None
    label_nll_se: float | None = None
    accuracy: float | None = None
    class_names: tuple[str, ...] = ()
    class_images: tuple[int, ...] = ()
    class_nll: tuple[float | None, ...] = ()
    class_accuracy: tuple[float | None, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Returns the figures and the protocol as JSON can hold them."""
        values = dataclasses.asdict(self)
        return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Returns the evaluation of which `to_dict` gave the values.

        Raises:
          TypeError: If there are other values.
          KeyError: If there is no protocol.
        """
        read = dict(values) | {"protocol": Protocol(**values["protocol"])}
        for name, value in read.items():
            if isinstance(value, list):
                read[name] = np.asarray(value) if name.endswith("_per_image") else tuple(value)
        return cls(**read)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation(Figures):
    """The figures of a `FlowVAE` on a set of images; nats per image unless said otherwise.

    Attributes:
      elbo: The evidence lower bound, the mean over images and S samples.
      elbo_se: Its standard error over images.
      log_likelihood: E_q[log p(x|z)], one sample.
      kl: KL(q(z|x) || p(z)) = log_posterior - log_prior, one sample.
      log_prior: E_q[log p(z)], one sample.
      log_posterior: E_q[log q(z|x)] = log_base - log_det, one sample.
      log_base: E_q[log q0(z0|x)], of the posterior's base at the same sample.
      log_det: E_q[log |det dz/dz0|] of the posterior's flow at the same sample.
      cross_entropy: Whether log p(x|z) is a cross entropy and no log-likelihood, as it is for grey
        images and a Bernoulli likelihood; nll then compares with that of no other likelihood.
      few_effective: The number of images with fewer than 10 effective samples.
      approximation_gap: log p(x) - ELBO(q*), the mean; None without gap images.
      approximation_gap_se: Its standard error over images.
      amortization_gap: ELBO(q*) - ELBO(q), the mean; None without gap images.
      amortization_gap_se: Its standard error over images.
      active_units: The number of latent dimensions with Var_x(E[z|x]) > 0.01.
      mutual_information: I(x; z) under q, at most the logarithm of `aggregated_images`.
      aggregated_kl: KL(q(z) || p(z)).
      base_kl: The KL of each dimension of the posterior's base from N(0, 1).
      elbo_per_image: `[N]`.

    Example:
      >>> vae = fv.FlowVAE(image_shape=(4, 4, 1), latent_size=2)
      >>> x = np.random.default_rng(0).integers(0, 2, (4, 4, 4, 1)).astype("float32")
      >>> found = fv.evaluate(vae, x, samples=10, gap_images=0, drawn=0)
      >>> bool(np.isclose(found.kl, found.log_posterior - found.log_prior))
      True
      >>> Evaluation.from_dict(found.to_dict()).nll == found.nll
      True
    """

    model: ClassVar[str] = "vae"

    elbo: float
    elbo_se: float
    log_likelihood: float
    kl: float
    log_prior: float
    log_posterior: float
    log_base: float
    log_det: float
    cross_entropy: bool
    few_effective: int
    approximation_gap: float | None
    approximation_gap_se: float | None
    amortization_gap: float | None
    amortization_gap_se: float | None
    active_units: int
    mutual_information: float
    aggregated_kl: float
    base_kl: tuple[float, ...]
    elbo_per_image: np.ndarray = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DensityEvaluation(Figures):
    """The figures of an `ImageDensity` on a set of images; nats per image unless said otherwise.

    The dequantisation makes every figure of -log P(x) an upper bound on average; with more draws of
    the noise it is lower.

    Attributes:
      dequantization: "uniform" or "variational".
      bits_per_dimension_se: The standard error of `bits_per_dimension` over images.
      nll_bound: The bound with one draw, -E[log p(x + u) - log q(u|x)], the mean over images and S
        draws. It is the loss of training.
      nll_bound_se: Its standard error over images.
      nll_bound_bits: nll_bound / (H W C log 2).
      latent_distance: How far the latents of images are from the base: the largest difference of
        the distribution functions (Kolmogorov and Smirnov), the mean over dimensions of z0.
      latent_distance_of_base: The same of as many draws of the base, in place of the images; it is
        above 0 because there are finitely many.
      nll_bound_per_image: `[N]`.

    Example:
      >>> density = fv.FlowDensity("glow:levels=1,steps=1", event_shape=(4, 4, 1), levels=17)
      >>> x = np.random.default_rng(0).integers(0, 17, (4, 4, 4, 1))
      >>> found = fv.evaluate(density, x, samples=2, drawn=0)
      >>> bool(np.isclose(found.bits_per_dimension, found.nll / (16 * np.log(2))))
      True
    """

    model: ClassVar[str] = "flow"

    dequantization: str
    bits_per_dimension_se: float
    nll_bound: float
    nll_bound_se: float
    nll_bound_bits: float
    latent_distance: float
    latent_distance_of_base: float
    nll_bound_per_image: np.ndarray = dataclasses.field(repr=False)


def read_figures(values: Mapping[str, Any]) -> Evaluation | DensityEvaluation:
    """Returns the evaluation of which `to_dict` gave the values; see `Figures.from_dict`."""
    kind = DensityEvaluation if "dequantization" in values else Evaluation
    return kind.from_dict(values)
