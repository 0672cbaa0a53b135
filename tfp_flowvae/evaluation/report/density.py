"""What the page of a flow of images shows."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tfp_flowvae.distributions.interpolation import base_path
from tfp_flowvae.distributions.normal import Normal
from tfp_flowvae.evaluation.image_density import (
    base_distance,
    base_draws,
    drawn_images,
    latents_of,
    to_shown,
)
from tfp_flowvae.evaluation.report import charts
from tfp_flowvae.evaluation.report.nearest import Nearest, nearest_to
from tfp_flowvae.evaluation.report.pictures import strip
from tfp_flowvae.evaluation.report.sections import (
    COLUMNS,
    MOST_CLASSES,
    TEMPERATURES,
    Figure,
    Section,
    ends,
    path_rows,
)
from tfp_flowvae.evaluation.report.subject import DensitySubject
from tfp_flowvae.evaluation.table import class_rows


class Measured(NamedTuple):
    """What is measured on N test images.

    Attributes:
      z: z0 of each image, `[N, D]`.
      base: As many draws of the base, `[N, D]`.
      distance: The Kolmogorov-Smirnov distance of both in each dimension, `[D]`.
      chance: The same of as many other draws of the base, in place of the images.
      near: The nearest training images of samples.
    """

    z: np.ndarray
    base: np.ndarray
    distance: np.ndarray
    chance: np.ndarray
    near: Nearest


def measure(subject: DensitySubject, most: int, compared: int) -> Measured:
    """Encodes at most so many test images, and compares so many samples with training images."""
    model, seed = subject.model, subject.seed
    images = np.round(subject.test[:most] * (model.levels - 1))
    z = latents_of(model, images, seed)
    base, other = np.split(base_draws(model, 2 * len(z), seed), 2)
    data = subject.test[:compared]
    drawn = drawn_images(model, len(data), seed)
    near = nearest_to(drawn, data, subject.train, "test images")
    return Measured(z, base, base_distance(z, base), base_distance(other, base), near)


def samples(subject: DensitySubject) -> Section:
    """Samples at several temperatures."""
    model = subject.model
    if not model.layer.has_temperature:
        drawn = to_shown(model, model.sample(2 * COLUMNS, seed=subject.seed))
        text = "Draws of the flow. Its base has no temperature."
        row = Figure(strip(drawn, COLUMNS), f"{2 * COLUMNS} samples.")
        return Section("Samples", [text], [row])
    rows = [
        Figure(
            strip(to_shown(model, model.sample(COLUMNS, seed=subject.seed, temperature=t))),
            f"{COLUMNS} samples at temperature {t:g}.",
            f"T = {t:g}",
        )
        for t in TEMPERATURES
    ]
    text = (
        "A column is one draw z0 of the base, from which the flow makes an image. The temperature "
        "T multiplies its distance from the centre of the base (of a mixture: of its component): "
        "T = 1 draws from the model itself, a lower T gives more typical and less varied images."
    )
    return Section("Samples", [text], rows)


def interpolations(subject: DensitySubject, found: Measured) -> Section:
    """Paths between test images in the space of the base."""
    model, z = subject.model, found.z
    first, second = ends(subject)
    standard = isinstance(model.layer.base, Normal)
    paths = np.swapaxes(base_path(z[first], z[second], COLUMNS - 2, standard).numpy(), 0, 1)
    between = (to_shown(model, model.decode(path)) for path in paths)
    text = (
        "The first and the last image of a row are test images. The flow makes the images between "
        "them from points on a path between their z0, which is an arc where the base is a normal, "
        "and straight otherwise. An image has as many dimensions as z0, so the path may leave "
        "what images look like."
    )
    return Section("Interpolations", [text], path_rows(subject, first, second, between))


def likelihoods(subject: DensitySubject) -> Section:
    """The bounds of test and training images, and the test images at both ends."""
    test, train = subject.test_nll, subject.train_nll
    order = np.argsort(test[: len(subject.test)], kind="stable")
    shown = min(COLUMNS, len(order) // 2)
    rows = [
        Figure(strip(subject.test[places], COLUMNS), f"The {shown} {which} ones.", which)
        for places, which in (
            (order[:shown], "most likely"),
            (order[::-1][:shown], "least likely"),
        )
    ]
    drawn = charts.histograms(
        {"training": -train, "test": -test},
        "Lower bound of log P(x)",
        "nats, one draw of the noise",
    )
    text = (
        f"The most and the least likely of {len(order):,} test images, and histograms of the bound "
        f"of {len(test):,} test images and of the first {len(train):,} training images. If the "
        "model overfits, that of test images lies to the left. A high likelihood alone does not "
        "show that an image is typical: images with few edges have a high one."
    )
    alt = "Histograms of the bound of training and of test images."
    return Section("Likelihoods", [text], rows, [Figure(drawn, alt)])


def has_classes(subject: DensitySubject) -> bool:
    """Whether the classes of test images have figures and labels, but the model no classes."""
    found = subject.evaluation
    return bool(
        subject.model.num_classes is None
        and found is not None
        and found.class_names
        and found.protocol.split == "test"
        and subject.labels is not None
    )


def classes(subject: DensitySubject) -> Section:
    """Test images of each class with their bound; `has_classes` must be true."""
    assert subject.evaluation is not None
    assert subject.labels is not None
    rows = []
    found = class_rows(subject.evaluation)
    for name, count, nll in found[:MOST_CLASSES]:
        images = subject.test[subject.labels == name][:COLUMNS]
        if len(images):
            caption = f"class {name}: -log P(x) {nll}, {count} images"
            rows.append(Figure(strip(images, COLUMNS), f"Test images of class {name}.", caption))
    text = (
        "Test images of each class, and the mean of the upper bound of -log P(x) over all of its "
        "test images, in nats. The model does not know the classes; a class with a high value is "
        "one that it finds harder."
    )
    if len(found) > MOST_CLASSES:
        text += f" Shown are the first {MOST_CLASSES} of {len(found)} classes."
    return Section("Classes", [text], rows)


def latents(subject: DensitySubject, found: Measured) -> Section:
    """The latents of test images against the base."""
    z, base = found.z, found.base
    both = {"base": base, "test images": z}
    figures = [
        Figure(
            charts.histograms(
                {label: values.ravel() for label, values in both.items()}, "All of z0", "z0"
            ),
            "Histograms of all dimensions of z0, of the base and of test images.",
        ),
        Figure(
            charts.histograms(
                {label: np.linalg.norm(values, axis=1) for label, values in both.items()},
                "Norm of z0",
                "|z0|",
            ),
            "Histograms of the norm of z0, of the base and of test images.",
            "If the norms differ though each dimension is like the base, the dimensions of z0 "
            "depend on each other.",
        ),
        Figure(
            charts.of_dimensions(
                {"test images": found.distance, "draws of the base, by chance": found.chance},
                "Distance from the base",
                "Kolmogorov-Smirnov distance",
            ),
            "The distance of each dimension of z0 from the base, in order.",
        ),
    ]
    text = (
        "z0 is the vector of the base to which the flow takes an image with noise. If the flow "
        "fits, z0 of test images is distributed like the base, and draws of the base become "
        f"images like them. Here are {len(z):,} test images and as many draws of the base."
    )
    return Section("Latents and the base", [text], (), figures)


def training(subject: DensitySubject) -> Section:
    """Curves over epochs."""
    history = subject.history
    if not history:
        text = "There is no history.csv, so there are no training curves."
        return Section("Training", [text])
    lines = {"bits_per_dim": "training", "val_bits_per_dim": "validation"}
    norm = {"gradient_norm": "gradient norm"}
    figures = [
        Figure(
            charts.curves(history, lines, "Upper bound of -log P(x)", "bits per dimension"),
            "The bound over epochs, training and validation.",
        ),
        Figure(
            charts.curves(history, norm, "Norm of the gradient", "mean over the epoch"),
            "The norm of the gradient over epochs.",
            "Before it is clipped, if it is.",
        ),
    ]
    text = (
        "The bound with one draw of the noise, a mean over images. Training values are means over "
        "the steps of an epoch, while the weights change."
    )
    return Section("Training", [text], (), figures)
