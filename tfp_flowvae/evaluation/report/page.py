"""From a model and its images to the page."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jinja2
import numpy as np

from tfp_flowvae._version import __version__
from tfp_flowvae.evaluation.diagnostics import ACTIVE_VARIANCE
from tfp_flowvae.evaluation.image_density import to_shown
from tfp_flowvae.evaluation.report import density, density_words, latents, sections, training
from tfp_flowvae.evaluation.report.map import latent_map
from tfp_flowvae.evaluation.report.nearest import find_nearest
from tfp_flowvae.evaluation.report.subject import DensitySubject, Subject
from tfp_flowvae.evaluation.report.theme import css_variables
from tfp_flowvae.evaluation.report.words import names, summary
from tfp_flowvae.evaluation.table import data, measured, notes

_MEASURED = 1000
"""The page measures latents on at most so many test images."""

_COMPARED = 100

Progress = Callable[[Iterable[Any], str], Iterable[Any]]


def render(
    subject: Subject | DensitySubject, progress: Progress = lambda items, title: items
) -> str:
    """Returns the page as HTML, which needs no other file and no network.

    Args:
      subject: What it is about.
      progress: A function of an iterable and a title that shows its progress.
    """
    if isinstance(subject, DensitySubject):
        content = _of_density(subject, progress)
    else:
        content = _of_vae(subject, progress)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tfp_flowvae.evaluation.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    evaluation = subject.evaluation
    return environment.get_template("page.html").render(
        subject=subject,
        version=__version__,
        figures=measured(evaluation) if evaluation else [],
        protocol=data(evaluation.protocol) if evaluation else "",
        notes=notes(evaluation) if evaluation else [],
        settings=json.dumps(subject.settings, indent=2),
        record=json.dumps(subject.record, indent=2),
        light=css_variables(0),
        dark=css_variables(1),
        **content,
    )


def _of_vae(subject: Subject, progress: Progress) -> Mapping[str, Any]:
    """What the page has of a VAE alone."""
    found = latents.measure(subject.model, subject.test[:_MEASURED], subject.seed)
    near = find_nearest(subject.model, subject.test, subject.train, _COMPARED, subject.seed)
    active = int((found.variance > ACTIVE_VARIANCE).sum())
    if subject.evaluation is not None:
        active = subject.evaluation.active_units
    parts: list[Callable[[], Any]] = [
        lambda: sections.samples(subject),
        *([lambda: _classes_of_vae(subject)] if subject.model.num_classes is not None else []),
        lambda: sections.reconstructions(subject),
        lambda: sections.interpolations(subject, found),
        lambda: sections.traversals(subject, found),
        lambda: latent_map(subject, found),
        lambda: sections.copies(near),
        lambda: sections.aggregated(found),
        lambda: training.curves(subject),
        lambda: training.densities(subject, found),
    ]
    return {
        "sections": [part() for part in progress(parts, "report")],
        "summary": [text for text in summary(subject, found, active, near) if text],
        "names": names(subject),
        "left_out": "-log p(x), the gaps and the sample quality",
    }


def _classes_of_vae(subject: Subject) -> sections.Section:
    def draw(label: int) -> np.ndarray:
        return subject.model.sample(sections.COLUMNS, subject.seed, label=label).numpy()

    text = "Means of p(x|z) for z drawn from p(z|y), a class in each row."
    return sections.classes(subject, text, draw)


def _drawn_classes(subject: DensitySubject) -> sections.Section:
    def draw(label: int) -> np.ndarray:
        drawn = subject.model.sample(sections.COLUMNS, seed=subject.seed, label=label)
        return to_shown(subject.model, drawn)

    return sections.classes(subject, "Draws from P(x|y), a class in each row.", draw)


def _of_density(subject: DensitySubject, progress: Progress) -> Mapping[str, Any]:
    """What the page has of a flow of images alone."""
    found = density.measure(subject, _MEASURED, _COMPARED)
    parts: list[Callable[[], Any]] = [
        lambda: density.samples(subject),
        *([lambda: _drawn_classes(subject)] if subject.model.num_classes is not None else []),
        lambda: density.interpolations(subject, found),
        lambda: sections.copies(found.near),
        lambda: density.likelihoods(subject),
        *([lambda: density.classes(subject)] if density.has_classes(subject) else []),
        lambda: density.latents(subject, found),
        lambda: density.training(subject),
    ]
    return {
        "sections": [part() for part in progress(parts, "report")],
        "summary": list(density_words.summary(subject, found)),
        "names": density_words.names(subject),
        "left_out": "The bound with many draws of the noise and the sample quality",
    }
