"""The figures of a model with classes: the density of each class, and what Bayes' rule makes of it.

p(y|x) is in proportion to p(y) p(x|y). How often the class with the highest p(y|x) is the label
checks the densities p(x|y) against each other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from tfp_flowvae.data.labels import class_names
from tfp_flowvae.evaluation.figures import Protocol
from tfp_flowvae.evaluation.statistics import class_means, mean
from tfp_flowvae.models import FlowVAE, ImageDensity
from tfp_flowvae.models.importance import estimates_of

CLASSIFIED_SAMPLES = 200
"""The most importance samples of each image and class in `class_log_likelihoods`."""


def class_log_likelihoods(
    model: FlowVAE | ImageDensity,
    images: np.ndarray,
    num_samples: int = CLASSIFIED_SAMPLES,
    seed: int = 0,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> np.ndarray:
    """Returns importance-weighted estimates of log p(x|y) for every class, `[N, K]`, in nats.

    Args:
      model: A model with K classes.
      images: `[N, H, W, C]` in [0, 1], or whole numbers for an `ImageDensity`.
      num_samples: The number of importance samples of each image and class.
      seed: The seed of the samples.
      progress: A function that wraps the iterable of the batches' first places, such as `tqdm`.

    Example:
      >>> vae = fv.FlowVAE(image_shape=(4, 4, 1), latent_size=2, num_classes=3)
      >>> x = np.random.default_rng(0).integers(0, 2, (8, 4, 4, 1)).astype("float32")
      >>> log_likelihoods = class_log_likelihoods(vae, x, num_samples=10)
      >>> log_likelihoods.shape
      (8, 3)
      >>> found = np.argmax(log_likelihoods, axis=1)  # for equally frequent classes
    """
    count, classes = len(images), model.num_classes
    found = estimates_of(
        model,
        np.tile(images, (classes, 1, 1, 1)),  # in one call, because each call compiles a program
        num_samples,
        seed=seed,
        progress=progress,
        label=np.repeat(np.arange(classes), count),
    )
    return -found.nll.reshape(classes, count).T


@dataclasses.dataclass(frozen=True)
class Labels:
    """The labels with which a model is evaluated.

    Attributes:
      images: The label of each image, int32 `[N]`, -1 where it is missing.
      names: The names of the K classes.
      frequencies: p(y), `[K]`.

    Example:
      >>> from tfp_flowvae.data import load_classes
      >>> classes = load_classes("digits")
      >>> counts = np.bincount(classes.train)
      >>> labels = Labels(classes.test, classes.names, frequencies=counts / counts.sum())
      >>> len(labels.names), round(float(labels.frequencies[0]), 2)
      (10, 0.11)
    """

    images: np.ndarray
    names: Sequence[str]
    frequencies: np.ndarray


def labels_by_name(names: np.ndarray) -> Labels:
    """Returns the labels of images of which each has the name of its class, strings `[N]`.

    Example:
      >>> labels = labels_by_name(np.array(["cat", "dog", "dog", "-1"]))  # the last one is missing
      >>> labels.images, labels.names
      (array([ 0,  1,  1, -1], dtype=int32), ('cat', 'dog'))
    """
    classes = class_names(names)
    places = {name: i for i, name in enumerate(classes)}
    numbers = np.array([places.get(name, -1) for name in names.tolist()], np.int32)
    return Labels(numbers, classes, np.bincount(numbers[numbers >= 0]) / np.sum(numbers >= 0))


def class_figures(
    model: FlowVAE | ImageDensity,
    images: np.ndarray,
    labels: Labels,
    classified: int,
    samples: int,
    seed: int,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> dict[str, Any]:
    """Returns the figures that need labels.

    Args:
      model: A model with classes.
      images: `[N, H, W, C]` in [0, 1], or whole numbers for an `ImageDensity`.
      labels: Their labels, at least two of them known.
      classified: How many of the images are classified, from the first.
      samples: The number of importance samples for -log p(x|y).
      seed: The seed of the samples.
      progress: A function that wraps the iterable of the batches' first places, such as `tqdm`.

    Example:
      >>> vae = fv.FlowVAE(image_shape=(4, 4, 1), latent_size=2, num_classes=2)
      >>> x = np.random.default_rng(0).integers(0, 2, (4, 4, 4, 1)).astype("float32")
      >>> labels = Labels(np.array([0, 1, 1, -1]), names=("no", "yes"), frequencies=[0.5, 0.5])
      >>> figures = class_figures(vae, x, labels, classified=4, samples=10, seed=0)
      >>> figures["class_images"]  # one "no", two "yes"; the last label is missing
      (1, 2)
    """
    known = labels.images >= 0
    own = labels.images[known]
    nll = estimates_of(model, images[known], samples, seed=seed, progress=progress, label=own).nll
    first = np.flatnonzero(known)[:classified]
    log_likelihoods = class_log_likelihoods(
        model, images[first], min(samples, CLASSIFIED_SAMPLES), seed, progress
    )
    with np.errstate(divide="ignore"):  # a class without training images has p(y) = 0
        found = np.argmax(log_likelihoods + np.log(labels.frequencies), axis=1)
    right = found == labels.images[first]
    return {
        **mean("label_nll", nll),
        "accuracy": float(right.mean()),
        "class_names": tuple(labels.names),
        "class_images": tuple(np.bincount(own, minlength=len(labels.names)).tolist()),
        "class_nll": class_means(nll, own, len(labels.names)),
        "class_accuracy": class_means(right, labels.images[first], len(labels.names)),
    }


def label_figures(
    model: FlowVAE | ImageDensity,
    images: np.ndarray,
    labels: Labels | None,
    how: Protocol,
    show: Callable[[Iterable[int], str], Iterable[int]],
) -> dict[str, Any]:
    """Returns `class_figures` by a protocol; none with fewer than two labels.

    Args:
      model: A model with classes, if there are labels.
      images: As for `class_figures`.
      labels: Their labels, or None.
      how: The protocol.
      show: A function of an iterable and a title that shows its progress.
    """
    if labels is None or np.sum(labels.images >= 0) < 2:
        return {}
    return class_figures(
        model,
        images,
        labels,
        how.aggregated_images,
        how.samples,
        how.seed,
        lambda places: show(places, "classes"),
    )
