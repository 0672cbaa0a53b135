"""The summary of a report, in words that are made from its numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator

from tfp_flowvae.distributions.registry import BASES
from tfp_flowvae.evaluation.report.latents import Latents
from tfp_flowvae.evaluation.report.nearest import SUSPICIOUS, Nearest
from tfp_flowvae.evaluation.report.subject import Subject
from tfp_flowvae.flows.registry import FLOWS
from tfp_flowvae.registry import Entry

_BINARIZATIONS = {
    "static": "each pixel was made black or white by one fixed draw (static binarization)",
    "dynamic": "each pixel was made black or white by one fixed draw; training images were drawn "
    "anew in each epoch (dynamic binarization)",
    "threshold": "each pixel was made black or white by comparing it with 0.5 (threshold "
    "binarization)",
    "none": "the images kept their grey levels or colours (no binarization)",
}

# KL(q(z|x) || p(z)) below this many nats: z tells next to nothing of the image.
_COLLAPSED = 0.1


def summary(subject: Subject, latents: Latents, active: int, near: Nearest) -> Iterator[str]:
    """Yields the sentences of the summary.

    Args:
      subject: What the report is about.
      latents: What was measured on the latents.
      active: The number of active units.
      near: The nearest training images of samples and of reconstructions.
    """
    yield _model(subject)
    yield _likelihood(subject)
    yield _caveat(subject)
    yield _units(active, len(latents.kl))
    yield _collapse(subject.free_energy["kl"], active, len(latents.kl))
    yield _generalisation(subject)
    yield copies(near)


def _model(subject: Subject) -> str:
    posterior = "a normal without a flow" if subject.posterior == "none" else subject.posterior
    prior = "the standard normal" if subject.prior == "none" else subject.prior
    return (
        f"A variational autoencoder with {subject.model.latent_size} latent dimensions. Its "
        f"posterior q(z|x) is {posterior}, and its prior p(z) is {prior}. {subject.trained}"
    )


def names(subject: Subject) -> dict[str, str]:
    """Returns what the names of flows and bases in the posterior's and prior's specs stand for."""
    known: dict[str, Entry] = {**FLOWS, **BASES}
    parts = [part.partition(":")[0] for part in f"{subject.posterior}+{subject.prior}".split("+")]
    return {name: known[name].summary for name in parts if name in known and name != "none"}


def _likelihood(subject: Subject) -> str:
    found, how = subject.evaluation, _BINARIZATIONS[subject.binarization]
    free, count = subject.free_energy["free_energy"], subject.counts["test"]
    bound = (
        f"The free energy (-ELBO, one sample an image) of the {count:,} test images is {free:.2f} "
        f"nats per image"
    )
    if subject.model.num_classes is not None:
        bound += ", given their labels"
    if found is None:
        density = "p(x)" if subject.model.num_classes is None else "p(x|y)"
        return f"{bound}, an upper bound of -log {density}; {how}."
    text = (
        f"On {found.protocol.images:,} {found.protocol.split} images, -log p(x) is {found.nll:.2f} "
        f"± {found.nll_se:.2f} nats per image (importance-weighted estimate with "
        f"{found.protocol.samples:,} samples an image, ± standard error over images"
    )
    if found.bits_per_dimension is not None:
        text += f"; {found.bits_per_dimension:.3f} bits per dimension"
    if found.label_nll is not None:
        text += (
            f"; {found.label_nll:.2f} ± {found.label_nll_se:.2f} given the labels, from which "
            f"Bayes' rule finds {found.accuracy:.1%} of the labels"
        )
    return f"{text}). {bound}; {how}."


def _caveat(subject: Subject) -> str:
    found, text = subject.evaluation, "A lower value is better. "
    if found is not None and found.few_effective:
        text += (
            f"For {found.few_effective:,} of {found.protocol.images:,} images the estimate is "
            "unreliable, because fewer than 10 samples count in it: -log p(x) is likely too high "
            "there. "
        )
    if found is not None and found.cross_entropy:
        return (
            f"{text}The images are grey and the likelihood is for black and white ones, so this is "
            "a cross entropy and not a likelihood."
        )
    same = "likelihood" if subject.binarization == "none" else "binarization"
    return f"{text}Compare only values of the same {same} and the same split."


def _units(active: int, size: int) -> str:
    which = f"All {size}" if active == size > 1 else f"{active} of the {size}"
    return (
        f"{which} latent dimensions are active: the mean of z in them depends on the image "
        "(Var(E[z|x]) above 0.01)."
    )


def _collapse(kl: float, active: int, size: int) -> str:
    if active == 0 or kl < _COLLAPSED:
        return (
            f"The posterior has collapsed: KL(q(z|x) || p(z)) is {kl:.2f} nats, so z says next to "
            "nothing about the image. Try a warm-up of the KL term (--warmup linear), free bits "
            "(--free-bits), or a weaker decoder."
        )
    less = size - active
    rest = "."
    if less:
        rest = f", though {less} dimension{'s are' if less > 1 else ' is'} unused."
    return (
        f"The posterior has not collapsed: KL(q(z|x) || p(z)) is {kl:.1f} nats, "
        f"{kl / math.log(2.0):.1f} bits per image{rest}"
    )


def _generalisation(subject: Subject) -> str:
    found = subject.evaluation
    if found is not None and found.generalization_gap is not None:
        gap, error = found.generalization_gap, found.generalization_gap_se or 0.0
        return measured_gap(gap, error)
    elbo = subject.history.get("elbo")
    if elbo is None:
        return ""
    # Noise in one epoch's ELBO is well below a hundredth of it.
    gap = subject.free_energy["free_energy"] + float(elbo[-1])
    return (
        f"{_overfits(gap, 0.01 * abs(float(elbo[-1])))} In the last epoch the free energy of "
        f"training images was {-elbo[-1]:.2f} nats, {abs(gap):.2f} "
        f"{'below' if gap > 0 else 'above'} that of test images."
    )


def measured_gap(gap: float, error: float) -> str:
    """Returns whether a generalisation gap of nats per image, with its standard error, is one."""
    return (
        f"{_overfits(gap, 2.0 * error)} The difference is {gap:.2f} ± {error:.2f} nats per image."
    )


def _overfits(gap: float, noise: float) -> str:
    if gap <= noise:
        return "There is no sign of overfitting: test images are as likely as training images."
    return "Test images are less likely than training images, so the model overfits to some degree."


def copies(near: Nearest) -> str:
    """Returns whether samples look like copies of training images."""
    ratio = near.median / near.median_of_data
    how = (
        f"the median distance to the nearest training image is {near.median:.2f} for samples and "
        f"{near.median_of_data:.2f} for {near.compared} (Euclidean distance of pixels in [0, 1])"
    )
    if ratio < SUSPICIOUS:
        return f"Samples may be copies of training images: {how}."
    return f"Samples do not look like copies of training images: {how}."
