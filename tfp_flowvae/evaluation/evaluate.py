"""What a trained model is worth: every figure with the protocol by which it was measured."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from tfp_flowvae.errors import UserError
from tfp_flowvae.evaluation.aggregated import aggregated_posterior
from tfp_flowvae.evaluation.diagnostics import ACTIVE_VARIANCE, base_kl, mean_variance
from tfp_flowvae.evaluation.gaps import posterior_gaps
from tfp_flowvae.evaluation.sample_quality import frechet_distance, nearest, precision_recall
from tfp_flowvae.models import FlowVAE
from tfp_flowvae.models.importance import importance_estimates
from tfp_flowvae.training.noise import as_seed
from tfp_flowvae.training.xla import xla_suits

Progress = Callable[[Iterable[int], str], Iterable[int]]

# Fewer effective samples than this make an image's NLL unreliable.
FEW_EFFECTIVE = 10
_BATCH = 100


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How the figures were measured: only figures of one protocol can be compared.

    Attributes:
      dataset: The data set, or "" if it was not named.
      split: The split, or "" if it was not named.
      binarization: How the images were made binary, or "" if it was not named.
      images: N, the number of images.
      samples: S, the number of importance samples of each image.
      aggregated_images: The number of images of the aggregated posterior.
      gap_images: The number of images of the gaps; 0 for none.
      gap_steps: The number of steps that optimise each image's posterior.
      drawn: The number of samples that are compared with images; 0 for none.
      features: In what space samples are compared with images: "pixels".
      seed: The seed.
    """

    dataset: str = ""
    split: str = ""
    binarization: str = ""
    images: int = 0
    samples: int = 5000
    aggregated_images: int = 1000
    gap_images: int = 100
    gap_steps: int = 1000
    drawn: int = 1000
    features: str = "pixels"
    seed: int = 0


QUICK = {"samples": 200, "aggregated_images": 200, "gap_images": 20, "gap_steps": 300, "drawn": 500}
"""The sizes of a quick evaluation, of about a minute."""


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The figures of a model on a set of images; nats per image unless said otherwise.

    Attributes:
      protocol: How they were measured.
      elbo: The evidence lower bound, the mean over images and S samples.
      elbo_se: Its standard error over images.
      log_likelihood: E_q[log p(x|z)], one sample.
      kl: KL(q(z|x) || p(z)), one sample.
      nll: The importance-weighted estimate of -log p(x), with S samples.
      nll_se: Its standard error over images.
      effective_samples: The median over images of the effective number of importance samples.
      few_effective: The number of images with fewer than 10 effective samples.
      bits_per_dimension: nll / (H W C log 2) for images of finitely many values; else None.
      active_units: The number of latent dimensions with Var_x(E[z|x]) > 0.01.
      base_kl: The KL of each dimension of the posterior's base from N(0, 1).
      mutual_information: I(x; z) under q.
      aggregated_kl: KL(q(z) || p(z)).
      approximation_gap: log p(x) - ELBO(q*), the mean; None without gap images.
      approximation_gap_se: Its standard error.
      amortization_gap: ELBO(q*) - ELBO(q), the mean; None without gap images.
      amortization_gap_se: Its standard error.
      generalization_gap: nll minus the NLL of as many training images; None without those.
      frechet_distance: Of samples from images; None without drawn samples.
      frechet_distance_of_data: Of training images from images, for comparison; None without those.
      precision: The share of samples that lie among the images.
      recall: The share of images that lie among the samples.
      nearest_distance: The median distance of a sample to its nearest training image.
      nearest_distance_of_data: The median distance of an image to its nearest training image.
      elbo_per_image: `[N]`.
      nll_per_image: `[N]`.
      effective_samples_per_image: `[N]`.
    """

    protocol: Protocol
    elbo: float
    elbo_se: float
    log_likelihood: float
    kl: float
    nll: float
    nll_se: float
    effective_samples: float
    few_effective: int
    bits_per_dimension: float | None
    active_units: int
    base_kl: tuple[float, ...]
    mutual_information: float
    aggregated_kl: float
    approximation_gap: float | None
    approximation_gap_se: float | None
    amortization_gap: float | None
    amortization_gap_se: float | None
    generalization_gap: float | None
    frechet_distance: float | None
    frechet_distance_of_data: float | None
    precision: float | None
    recall: float | None
    nearest_distance: float | None
    nearest_distance_of_data: float | None
    elbo_per_image: np.ndarray = dataclasses.field(repr=False)
    nll_per_image: np.ndarray = dataclasses.field(repr=False)
    effective_samples_per_image: np.ndarray = dataclasses.field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Returns the figures and the protocol as JSON can hold them."""
        values = dataclasses.asdict(self)
        return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in values.items()}


def evaluate(
    model: FlowVAE,
    images: np.ndarray,
    train_images: np.ndarray | None = None,
    *,
    quick: bool = False,
    progress: Progress | None = None,
    **protocol: Any,
) -> Evaluation:
    """Measures what a model is worth on a set of images.

    Args:
      model: A trained model.
      images: `[N, H, W, C]` in [0, 1], float32, binarised already if the model needs it.
      train_images: `[M, H, W, C]`, for the generalisation gap and the nearest training images.
      quick: Whether to use the sizes of `QUICK`.
      progress: A function of an iterable and a title that shows its progress; None for none.
      **protocol: Attributes of `Protocol`, such as `samples=500` and `seed=1`.

    Raises:
      UserError: If there is no image, or a number of the protocol is not allowed.
      ValueError: If the images have another shape than the model's.
    """
    sizes = {**(QUICK if quick else {}), **protocol}
    how = _checked(Protocol(**{**sizes, "images": len(images)}), len(images))
    show = progress or (lambda items, title: items)
    found = _importance(model, images, how, show, "importance-weighted NLL")
    terms = model.elbo_terms(images[: how.aggregated_images], seed=how.seed)
    few = images[: how.aggregated_images]
    posterior = model.posterior(few)
    active = mean_variance(model, posterior, as_seed(how.seed)).numpy() > ACTIVE_VARIANCE
    aggregated = aggregated_posterior(model, few, how.seed)
    return Evaluation(
        protocol=how,
        elbo=float(found.elbo.mean()),
        elbo_se=_standard_error(found.elbo),
        log_likelihood=float(np.mean(terms.log_likelihood)),
        kl=float(np.mean(terms.kl)),
        nll=float(found.nll.mean()),
        nll_se=_standard_error(found.nll),
        effective_samples=float(np.median(found.effective_samples)),
        few_effective=int(np.sum(found.effective_samples < FEW_EFFECTIVE)),
        bits_per_dimension=_bits_per_dimension(model, float(found.nll.mean())),
        active_units=int(active.sum()),
        base_kl=tuple(map(float, np.mean(base_kl(posterior.distribution), axis=0))),
        mutual_information=aggregated.mutual_information,
        aggregated_kl=aggregated.kl,
        **_gaps(model, images, how),
        generalization_gap=_generalization_gap(model, found.nll, train_images, how, show),
        **_samples(model, images, train_images, how),
        elbo_per_image=found.elbo,
        nll_per_image=found.nll,
        effective_samples_per_image=found.effective_samples,
    )


def outlier_scores(nll: np.ndarray, valid_nll: np.ndarray) -> np.ndarray:
    """Returns the share of validation images with a smaller -log p(x) than each image, `[N]`.

    A share near 1 means that the model finds the image less likely than nearly all validation
    images. A low share does not prove that an image is typical: simple images of another data set
    can have a higher likelihood (Nalisnick et al. 2019, https://arxiv.org/abs/1810.09136).

    Args:
      nll: -log p(x) of the images, `[N]`.
      valid_nll: The same of validation images, `[M]`.
    """
    return np.searchsorted(np.sort(valid_nll), nll) / len(valid_nll)


def _checked(how: Protocol, images: int) -> Protocol:
    if images < 2:
        raise UserError(f"An evaluation needs two images or more. Received: {images}.")
    for name, least in (("samples", 1), ("aggregated_images", 2), ("gap_steps", 1)):
        if getattr(how, name) < least:
            raise UserError(f"{name} must be at least {least}. Received: {getattr(how, name)}.")
    return dataclasses.replace(
        how,
        aggregated_images=min(how.aggregated_images, images),
        gap_images=min(how.gap_images, images),
        drawn=min(how.drawn, images),
    )


def _importance(
    model: FlowVAE, images: np.ndarray, how: Protocol, show: Progress, title: str
) -> Any:
    return importance_estimates(
        lambda x, samples, seed: model.elbo_terms(x, samples, seed).elbo,
        images,
        how.samples,
        min(_BATCH, len(images)),
        how.seed,
        jit_compile=xla_suits(model),
        progress=lambda places: show(places, title),
    )


def _standard_error(values: np.ndarray) -> float:
    return float(np.std(values, ddof=1) / math.sqrt(len(values)))


def _bits_per_dimension(model: FlowVAE, nll: float) -> float | None:
    if not model.likelihood.discrete:
        return None
    return nll / (math.prod(model.image_shape) * math.log(2.0))


def _gaps(model: FlowVAE, images: np.ndarray, how: Protocol) -> dict[str, float | None]:
    names = ("approximation_gap", "amortization_gap")
    if how.gap_images < 2:
        return {name + end: None for name in names for end in ("", "_se")}
    chosen = images[: how.gap_images]
    gaps = posterior_gaps(model, chosen, steps=how.gap_steps, seed=how.seed)
    values = dict(zip(names, (gaps.approximation, gaps.amortization), strict=True))
    means = {name: float(value.mean()) for name, value in values.items()}
    return means | {f"{name}_se": _standard_error(value) for name, value in values.items()}


def _generalization_gap(
    model: FlowVAE, nll: np.ndarray, train_images: np.ndarray | None, how: Protocol, show: Progress
) -> float | None:
    """The NLL of the images minus that of as many training images."""
    if train_images is None:
        return None
    chosen = train_images[: len(nll)]
    found = _importance(model, chosen, how, show, "the same of training images")
    return float(nll.mean() - found.nll.mean())


def _samples(
    model: FlowVAE, images: np.ndarray, train_images: np.ndarray | None, how: Protocol
) -> dict[str, float | None]:
    """The figures of samples, with pixels as features: draws of p(x|z), not its means."""
    names = ("frechet_distance", "precision", "recall", "nearest_distance")
    names = (*names, "frechet_distance_of_data", "nearest_distance_of_data")
    if how.drawn < 8:
        return dict.fromkeys(names)
    drawn = _flat(model.sample(how.drawn, how.seed).numpy())
    data = _flat(images[: how.drawn])
    shares = precision_recall(data, drawn)
    found: dict[str, float | None] = dict.fromkeys(names)
    found |= {"frechet_distance": frechet_distance(drawn, data)} | shares._asdict()
    if train_images is not None:
        train = _flat(train_images)
        found["frechet_distance_of_data"] = frechet_distance(train[: how.drawn], data)
        found["nearest_distance"] = float(np.median(nearest(drawn, train)[1]))
        found["nearest_distance_of_data"] = float(np.median(nearest(data, train)[1]))
    return found


def _flat(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1).astype(np.float32)
