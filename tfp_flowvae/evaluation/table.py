"""Tables of an evaluation's figures, in plain words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tfp_flowvae.errors import UserError
from tfp_flowvae.evaluation.classes import CLASSIFIED_SAMPLES
from tfp_flowvae.evaluation.figures import (
    FEW_EFFECTIVE,
    DensityEvaluation,
    Evaluation,
    Figures,
    Protocol,
)


class _Row(NamedTuple):
    """A figure: what it is, the attribute of `Figures` that holds it, and how it is measured.

    `how` is a template; its fields are attributes of `Protocol`, `best` and `classified`.
    """

    label: str
    name: str
    how: str


_SAMPLES = (
    _Row("Frechet distance, squared", "frechet_distance", "{drawn} draws of p(x), {features}"),
    _Row("  of training images", "frechet_distance_of_data", "as many, in place of the draws"),
    _Row("precision", "precision", "share of {drawn} draws among the images, {features}"),
    _Row("recall", "recall", "share of {drawn} images among the draws, {features}"),
)
_CLASSES = (
    _Row("-log p(x|y)", "label_nll", "given the labels, {samples} samples an image"),
    _Row("accuracy of Bayes' rule", "accuracy", "p(y) p(x|y), {classified}"),
)
_KOLMOGOROV = "Kolmogorov-Smirnov distance, mean over z0, {aggregated_images} images"

_ROWS = (
    _Row("-log p(x)", "nll", "importance-weighted, {samples} samples an image"),
    _Row("  bits per dimension", "bits_per_dimension", "-log p(x) / (H W C log 2)"),
    _Row("  effective samples", "effective_samples", "of {samples}, median over images"),
    _Row("  images with too few", "few_effective", f"of {{images}}, below {FEW_EFFECTIVE}"),
    _Row("  generalization gap", "generalization_gap", "less that of as many training images"),
    *_CLASSES,
    _Row("ELBO", "elbo", "{samples} samples an image"),
    _Row("  E_q[log p(x|z)]", "log_likelihood", "one sample an image"),
    _Row("  KL(q(z|x) || p(z))", "kl", "E_q[log q(z|x) - log p(z)], one sample an image"),
    _Row("    E_q[log p(z)]", "log_prior", "the same samples"),
    _Row("    E_q[log q(z|x)]", "log_posterior", "the same samples, of base and flow"),
    _Row("      E_q[log q0(z0|x)]", "log_base", "the same samples, the posterior's base"),
    _Row("      E_q[log |det dz/dz0|]", "log_det", "the same samples, the posterior's flow"),
    _Row("approximation gap", "approximation_gap", "log p(x) - ELBO of the best q, {best}"),
    _Row("amortization gap", "amortization_gap", "ELBO of the best q - of the encoder's, {best}"),
    _Row("active units", "active_units", "Var(E[z|x]) above 0.01, {aggregated_images} images"),
    _Row("mutual information I(x; z)", "mutual_information", "at most log {aggregated_images}"),
    _Row("KL(q(z) || p(z))", "aggregated_kl", "q(z) of {aggregated_images} images"),
    *_SAMPLES,
    _Row("to the nearest training image", "nearest_distance", "median of {drawn} means of p(x|z)"),
    _Row("  from a reconstruction", "nearest_distance_of_data", "median of {drawn}, to compare"),
)

_DENSITY_ROWS = (
    _Row("-log P(x), upper bound", "nll", "{samples} draws of the noise an image"),
    _Row("  bits per dimension", "bits_per_dimension", "the bound / (H W C log 2)"),
    _Row("  effective draws", "effective_samples", "of {samples}, median over images"),
    _Row("  generalization gap", "generalization_gap", "less that of as many training images"),
    _Row("-log P(x), one draw", "nll_bound", "upper bound as in training, mean over {samples}"),
    _Row("  bits per dimension", "nll_bound_bits", "the bound / (H W C log 2)"),
    *_CLASSES,
    _Row("latents from the base", "latent_distance", _KOLMOGOROV),
    _Row("  of draws of the base", "latent_distance_of_base", "as many, in place of the latents"),
    *_SAMPLES,
    _Row("to the nearest training image", "nearest_distance", "median of {drawn} draws of P(x)"),
    _Row("  from an image", "nearest_distance_of_data", "median of {drawn}, to compare"),
)


class Measured(NamedTuple):
    """A figure in words.

    Attributes:
      name: The attribute of `Figures` that holds it.
      label: What it is.
      value: Its value, with the standard error where there is one.
      how: How it was measured.
      level: 0, or how deep it is among the parts of a figure before it.
    """

    name: str
    label: str
    value: str
    how: str
    level: int


_PAIRED = {"nll": "nll_per_image", "elbo": "elbo_per_image", "nll_bound": "nll_bound_per_image"}

_BOUND = (
    "the {} dequantisation makes the figures of -log P(x) upper bounds; more draws lower them. "
    "Compare them only at the same number of draws, for images of the same size and levels."
)


def table(title: str, found: Evaluation | DensityEvaluation) -> str:
    """Returns the figures, a line each, with how each was measured.

    Args:
      title: What was evaluated.
      found: The figures.
    """
    rows = [("  " * row.level + row.label, row.value, row.how) for row in measured(found)]
    text = f"{title}: {data(found.protocol)}\nnats per image, +- standard error over images\n\n"
    parts = [text + aligned(rows)]
    if found.class_names:
        parts.append(aligned([class_header(found), *class_rows(found)]))
    if isinstance(found, Evaluation):
        kl = " ".join(f"{kl:.2f}" for kl in found.base_kl)
        parts.append(f"KL of each dimension of the posterior's base: {kl}")
    return "\n".join(["\n\n".join(parts), *(f"Note: {note}" for note in notes(found))])


def class_header(found: Figures) -> tuple[str, ...]:
    """Returns what each column of `class_rows` is."""
    if found.class_accuracy:
        return "class", "images", "-log p(x|y)", "accuracy"
    return "class", "images", "-log P(x)"


def class_rows(found: Figures) -> list[tuple[str, ...]]:
    """Returns the name of each class, its number of images, its density and any accuracy."""
    columns = [
        found.class_names,
        map(str, found.class_images),
        ("-" if nll is None else f"{nll:.3f}" for nll in found.class_nll),
    ]
    if found.class_accuracy:
        columns.append("-" if share is None else f"{share:.1%}" for share in found.class_accuracy)
    return list(zip(*columns, strict=True))


def measured(found: Figures) -> list[Measured]:
    """Returns the figures that there are, each with how it was measured."""
    return [
        Measured(
            row.name,
            row.label.strip(),
            _shown(found, row.name),
            _how(row, found.protocol),
            (len(row.label) - len(row.label.lstrip())) // 2,
        )
        for row in _rows_of(found)
        if getattr(found, row.name) is not None
    ]


def _rows_of(found: Figures) -> tuple[_Row, ...]:
    return _DENSITY_ROWS if isinstance(found, DensityEvaluation) else _ROWS


def notes(found: Evaluation | DensityEvaluation) -> list[str]:
    """Returns warnings about the figures, a few sentences each."""
    classes = (
        "p(x) is the density of an image whose class is not known to the model, and all figures "
        "but those of p(x|y) are of it."
    )
    if isinstance(found, DensityEvaluation):
        bound = _BOUND.format(found.dequantization)
        return [bound] if found.accuracy is None else [bound, classes]
    said = []
    if found.few_effective:
        said.append(
            f"{found.few_effective} of {found.protocol.images} images have fewer than "
            f"{FEW_EFFECTIVE} effective samples; their -log p(x) is likely too high. Take more "
            "samples."
        )
    if found.cross_entropy:
        said.append(
            "the images are grey and the likelihood is for binary ones, so p(x) is no likelihood; "
            "do not compare it with that of other likelihoods."
        )
    if found.class_names:
        said.append(classes)
    return said


def comparison(titles: Sequence[str], found: Sequence[Figures]) -> str:
    """Returns one table of several evaluations, and how the others differ from the first.

    Differences are paired by image where the images are the same.

    Args:
      titles: What was evaluated.
      found: The figures.
    """
    numbers, first = [f"[{i}]" for i in range(1, len(found) + 1)], found[0].protocol
    lines = [
        f"{number} {title}: {data(one.protocol)}"
        for number, title, one in zip(numbers, titles, found, strict=True)
    ]
    differences = [f"{number} - [1]" for number in numbers[1:]]
    same = not any(first.differences(one.protocol) for one in found)
    rows = [("", *numbers, *differences, "" if same else "how [1] was measured")]
    for row in _rows_of(found[0]):
        if all(getattr(one, row.name) is None for one in found):
            continue
        cells = [_shown(one, row.name) for one in found]
        name = _PAIRED.get(row.name)
        cells += [_difference(found[0], one, name) if name else "" for one in found[1:]]
        rows.append((row.label, *cells, _how(row, first)))
    paired = all(one.protocol.checksum == first.checksum for one in found)
    how = "paired by image" if paired else "of other images, not paired"
    return "\n".join([*lines, f"nats per image; differences {how}", "", aligned(rows)])


def check_alike(titles: Sequence[str], protocols: Sequence[Protocol]) -> None:
    """Refuses to compare figures of different protocols.

    Raises:
      UserError: If two protocols differ in more than the seed.
    """
    for title, protocol in zip(titles[1:], protocols[1:], strict=True):
        differences = protocols[0].differences(protocol)
        if len(differences) > 1:
            differences.pop("checksum", None)  # It follows from the others.
        words = [
            f"{name.replace('_', ' ')} is {first!r} for {titles[0]!r} and {second!r} for {title!r}"
            for name, (first, second) in differences.items()
        ]
        if words:
            raise UserError(
                f"Figures of different protocols cannot be compared: {'; '.join(words)}. Evaluate "
                "both in the same way, or add --across-protocols."
            )


def data(how: Protocol) -> str:
    """Returns the images and the seed of a protocol, in words."""
    split = f"{how.split} " if how.split else ""
    source = f" of {how.dataset}" if how.dataset else ""
    seen = f", binarization {how.binarization}" if how.binarization else ""
    return f"{how.images} {split}images{source}{seen}, seed {how.seed}"


def _how(row: _Row, protocol: Protocol) -> str:
    """How a figure was measured."""
    best = f"{protocol.gap_steps} steps for each of {protocol.gap_images} images"
    samples = min(protocol.samples, CLASSIFIED_SAMPLES)
    classified = f"{samples} samples for each class, {protocol.aggregated_images} images"
    return row.how.format_map(vars(protocol) | {"best": best, "classified": classified})


def _shown(found: Figures, name: str) -> str:
    value, error = getattr(found, name), getattr(found, f"{name}_se", None)
    if value is None:
        return "-"
    if isinstance(value, int):
        return str(value)
    return f"{value:.3f}" if error is None else f"{value:.3f} +- {error:.3f}"


def _difference(first: Figures, second: Figures, name: str) -> str:
    """The difference of the means over images, and its standard error."""
    a, b = getattr(first, name), getattr(second, name)
    if first.protocol.checksum == second.protocol.checksum:
        error = np.std(b - a, ddof=1) / math.sqrt(len(a))
    else:
        error = math.hypot(*(np.std(part, ddof=1) / math.sqrt(len(part)) for part in (a, b)))
    return f"{b.mean() - a.mean():+.3f} +- {error:.3f}"


def aligned(rows: Sequence[tuple[str, ...]]) -> str:
    """Returns a table with columns that are aligned to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    return "\n".join(lines)
