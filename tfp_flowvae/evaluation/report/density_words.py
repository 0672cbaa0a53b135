"""The summary of the report of a flow of images, in words that are made from its numbers."""

from __future__ import annotations

from collections.abc import Iterator

from tfp_flowvae.distributions.registry import BASES
from tfp_flowvae.evaluation.report import words
from tfp_flowvae.evaluation.report.density import Measured
from tfp_flowvae.evaluation.report.subject import DensitySubject
from tfp_flowvae.evaluation.statistics import difference, mean
from tfp_flowvae.flows.image_registry import IMAGE_FLOWS
from tfp_flowvae.flows.registry import FLOWS
from tfp_flowvae.models.dequantize import kind_of
from tfp_flowvae.registry import Entry

# Latents whose distances are this many times those of draws of the base are called different.
_DIFFERENT = 1.5


def summary(subject: DensitySubject, found: Measured) -> Iterator[str]:
    """Yields the sentences at the head of the page."""
    model = subject.model
    yield (
        f"A normalizing flow of the pixels, {subject.flow}, with {kind_of(model.dequantize)} "
        f"dequantisation, of images of {model.levels} levels. It has {model.count_params():,} "
        f"parameters, and no latent variables of fewer dimensions. {subject.trained}"
    )
    yield _bound(subject)
    yield (
        "A lower value is better. Compare only values of the same number of draws, and of images "
        "of the same size and levels."
    )
    yield words.measured_gap(*_gap(subject))
    yield words.copies(found.near)
    yield _likeness(found)


def _bound(subject: DensitySubject) -> str:
    model, evaluation = subject.model, subject.evaluation
    one = mean("nats", subject.test_nll)
    text = (
        f"of {len(subject.test_nll):,} test images is {one['nats']:.2f} ± {one['nats_se']:.2f} "
        f"nats per image, {model.bits_per_dim(one['nats']):.3f} bits per dimension"
    )
    if evaluation is None:
        return (
            f"The upper bound of -log P(x) {text} (one draw of the noise an image, ± standard "
            "error over images)."
        )
    how = evaluation.protocol
    return (
        f"On {how.images:,} {how.split} images, -log P(x) is at most {evaluation.nll:.2f} ± "
        f"{evaluation.nll_se:.2f} nats per image, {evaluation.bits_per_dimension:.3f} ± "
        f"{evaluation.bits_per_dimension_se:.3f} bits per dimension (upper bound with "
        f"{how.samples:,} draws of the noise an image, ± standard error over images). With one "
        f"draw, as in training, the bound {text}."
    )


def _gap(subject: DensitySubject) -> tuple[float, float]:
    """The generalisation gap and its standard error."""
    found = subject.evaluation
    if found is not None and found.generalization_gap is not None:
        return found.generalization_gap, found.generalization_gap_se or 0.0
    gap, error = difference("", subject.test_nll, subject.train_nll).values()
    return gap, error


def _likeness(found: Measured) -> str:
    far, chance = found.distance.mean(), found.chance.mean()
    how = (
        f"the Kolmogorov-Smirnov distance is {far:.3f}, the mean over dimensions, and {chance:.3f} "
        "for as many draws of the base"
    )
    if far > _DIFFERENT * chance:
        return f"Latents z0 of test images differ from the base in single dimensions: {how}."
    return f"Each dimension of the latents z0 of test images looks like the base: {how}."


def names(subject: DensitySubject) -> dict[str, str]:
    """Returns what the names in the flow's spec stand for."""
    known: dict[str, Entry] = {**FLOWS, **BASES, **IMAGE_FLOWS}
    parts = [part.partition(":")[0] for part in subject.flow.split("+")]
    return {name: known[name].summary for name in parts if name in known}
