"""Sections of a report: each has a title, some sentences, and pictures."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from tfp_flowvae.evaluation.report import charts, latents, words
from tfp_flowvae.evaluation.report.latents import Latents
from tfp_flowvae.evaluation.report.nearest import Nearest
from tfp_flowvae.evaluation.report.pictures import strip
from tfp_flowvae.evaluation.report.subject import DensitySubject, Known, Subject
from tfp_flowvae.evaluation.report.theme import Picture
from tfp_flowvae.evaluation.table import class_rows

COLUMNS = 10
"""Images side by side."""

TEMPERATURES = (0.5, 0.75, 1.0, 1.25)
MOST_CLASSES = 20
_PATHS, _TRAVERSALS, _PAIRS = 5, 8, 3


@dataclasses.dataclass(frozen=True)
class Figure:
    """A picture with what it shows, for readers who see it and for those who do not.

    Attributes:
      picture: The picture.
      alt: What it shows.
      caption: The words below a chart, or beside a row of images; "" for none.
    """

    picture: Picture
    alt: str
    caption: str = ""


@dataclasses.dataclass(frozen=True)
class Section:
    """A section of the page.

    Attributes:
      title: Its title.
      text: Its sentences, a paragraph each.
      rows: Rows of images.
      figures: Charts.
    """

    title: str
    text: Sequence[str]
    rows: Sequence[Figure] = ()
    figures: Sequence[Figure] = ()


def samples(subject: Subject) -> Section:
    """Samples at several temperatures."""
    model = subject.model
    if not model.prior_layer.has_temperature:
        drawn = strip(model.sample(2 * COLUMNS, subject.seed).numpy(), COLUMNS)
        text = "Means of p(x|z) for z drawn from the prior. This prior has no temperature."
        return Section("Samples", [text], [Figure(drawn, f"{2 * COLUMNS} samples.")])
    rows = [
        Figure(
            strip(model.sample(COLUMNS, subject.seed, temperature).numpy()),
            f"{COLUMNS} samples at temperature {temperature:g}.",
            f"T = {temperature:g}",
        )
        for temperature in TEMPERATURES
    ]
    text = (
        "Means of p(x|z) for z drawn from the prior. A column is one draw. The temperature T "
        "multiplies its distance from the centre of the prior's base (of a mixture: of its "
        "component): T = 1 draws from the prior itself, a lower T gives more typical and less "
        "varied images."
    )
    return Section("Samples", [text], rows)


def classes(
    subject: Subject | DensitySubject, text: str, draw: Callable[[int], np.ndarray]
) -> Section:
    """Samples of each class, and its figures if there are any.

    Args:
      subject: What the report is about.
      text: A sentence that says what the samples are.
      draw: From a class to its samples, `[N, H, W, C]` in [0, 1].
    """
    model, found = subject.model, subject.evaluation
    names = subject.record.get("classes") or list(map(str, range(model.num_classes)))
    captions = [f"class {name}" for name in names]
    if found is not None and found.class_names:
        captions = [
            f"class {name}: -log p(x|y) {nll}, accuracy {share}"
            for name, _, nll, share in class_rows(found)
        ]
        text += (
            " -log p(x|y) is in nats per image; the accuracy is the share of its images for which "
            "Bayes' rule, p(y) p(x|y), finds the class."
        )
    if len(names) > MOST_CLASSES:
        text += f" Shown are the first {MOST_CLASSES} of {len(names)} classes."
    rows = [
        Figure(
            strip(draw(k)),
            f"{COLUMNS} samples of class {names[k]}.",
            captions[k],
        )
        for k in range(min(len(names), MOST_CLASSES))
    ]
    return Section("Classes", [text], rows)


def reconstructions(subject: Subject) -> Section:
    """Originals over reconstructions."""
    rows: list[Figure] = []
    for start in range(0, min(2 * COLUMNS, len(subject.test)), COLUMNS):
        originals = subject.test[start : start + COLUMNS]
        made = subject.model.reconstruct(originals, subject.seed).numpy()
        rows += [
            Figure(strip(originals), f"{len(originals)} test images.", "original"),
            Figure(strip(made), "The reconstruction of each image above.", "reconstruction"),
        ]
    text = "Test images, and below each the mean of p(x|z) for one z drawn from q(z|x)."
    return Section("Reconstructions", [text], rows)


def interpolations(subject: Subject, found: Latents) -> Section:
    """Paths between test images in the space of the prior's base."""
    first, second = ends(subject)
    z, model = found.posterior, subject.model
    paths = np.swapaxes(model.path(z[first], z[second], COLUMNS - 2).numpy(), 0, 1)
    rows = path_rows(subject, first, second, (model.decode(path).numpy() for path in paths))
    text = (
        "The first and the last image of a row are test images. The images between them are "
        "decoded from points on a path between their z. The path is straight, or an arc where the "
        "base is a normal, in the space of the prior's base, before the prior's flow."
    )
    return Section("Interpolations", [text], rows)


def ends(subject: Known) -> tuple[np.ndarray, np.ndarray]:
    """Returns places of test images to interpolate between, with different labels if there are."""
    count = min(_PATHS, len(subject.test) // 2)
    first, second = np.arange(count), np.arange(count, 2 * count)
    if subject.labels is not None:
        for i in first:
            others = np.flatnonzero(subject.labels[count:] != subject.labels[i])
            if len(others):
                second[i] = count + others[i % len(others)]
    return first, second


def path_rows(
    subject: Known, first: np.ndarray, second: np.ndarray, between: Iterable[np.ndarray]
) -> list[Figure]:
    """Returns a row for each pair of test images, with the images between them.

    Args:
      subject: What the page is about.
      first: Places of test images.
      second: As many.
      between: Images `[S, H, W, C]` in [0, 1] for each pair.
    """
    rows: list[Figure] = []
    for a, b, images in zip(first, second, between, strict=True):
        path = np.concatenate([subject.test[a : a + 1], images, subject.test[b : b + 1]])
        name = f"path {len(rows) + 1}"
        if subject.labels is not None:
            name = f"{subject.labels[a]} to {subject.labels[b]}"
        rows.append(Figure(strip(path), "A path from one test image to another.", name))
    return rows


def traversals(subject: Subject, found: Latents) -> Section:
    """One latent dimension at a time moves."""
    dimensions = np.argsort(-found.variance)[:_TRAVERSALS]
    z = found.posterior
    rows = [
        Figure(
            strip(subject.model.decode(path).numpy()),
            f"Images as latent dimension {dimension} moves.",
            f"dimension {dimension}",
        )
        for dimension, path in zip(
            dimensions, latents.traverse(z[0], z, dimensions, COLUMNS), strict=True
        )
    ]
    text = (
        "In each row, one dimension of the first test image's z moves through the central 96 % of "
        "the values that it has for test images; the others stay. The rows are the "
        f"{len(dimensions)} dimensions whose mean depends most on the image, most first."
    )
    return Section("Latent traversals", [text], rows)


def copies(near: Nearest) -> Section:
    """Samples over their nearest training images."""
    shown = np.arange(min(COLUMNS, len(near.samples)))
    closest = np.argsort(near.distances)[: len(shown)]
    rows = []
    for places, which in ((shown, "first samples"), (closest, "closest samples")):
        rows += [
            Figure(strip(near.samples[places]), f"The {which}.", which),
            Figure(
                strip(near.neighbours[places]),
                "The nearest training image of each sample above.",
                "nearest training images",
            ),
        ]
    count = len(near.samples)
    text = (
        f"{words.copies(near)} Medians are over {count} samples and {count} {near.compared}; "
        f"{near.searched:,} training images were searched."
    )
    return Section("Nearest training images", [text], rows)


def aggregated(found: Latents) -> Section:
    """The aggregated posterior against the prior."""
    pairs, chance = latents.most_different(found, _PAIRS)
    title = "Aggregated posterior and prior"
    if not pairs:
        return Section(title, ["There is one latent dimension, and so no pair of dimensions."])
    figures = [
        Figure(
            charts.pair_of_dimensions(found, pair),
            f"Scatter plot of q(z) and p(z) in latent dimensions {pair.dimensions[0]} and "
            f"{pair.dimensions[1]}.",
            f"They differ by {pair.distance:.0%}. Two sets of draws of the prior differ by up to "
            f"{chance:.0%}, by chance.",
        )
        for pair in pairs
    ]
    text = (
        "The aggregated posterior q(z) is the mean of q(z|x) over images. Where the prior p(z) has "
        "draws and q(z) has none, the decoder has never seen such a z, and samples are poor. Shown "
        f"are {len(found.prior):,} draws of each, in the pairs of dimensions that differ most: by "
        "the total variation distance of histograms of 8 × 8 bins, the share of draws that would "
        "have to move."
    )
    return Section(title, [text], (), figures)
