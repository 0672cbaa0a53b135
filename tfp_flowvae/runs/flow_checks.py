"""Which settings go with `--model flow`, before TensorFlow is imported."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from tfp_flowvae.data import known_layout
from tfp_flowvae.distributions.registry import BASES
from tfp_flowvae.distributions.spec import parse_distribution, parse_image_flow
from tfp_flowvae.errors import UserError
from tfp_flowvae.flows.image_registry import check_levels
from tfp_flowvae.flows.spec import check_event_size
from tfp_flowvae.runs.checks import check_weight_decay
from tfp_flowvae.runs.options import flag_of, option_of
from tfp_flowvae.runs.settings import Settings


def check_model(settings: Settings) -> None:
    """Refuses settings of another kind of model.

    Raises:
      UserError: For the first one that is not the default.
    """
    for field in dataclasses.fields(settings):
        kind, value = option_of(field).of, getattr(settings, field.name)
        if kind not in ("", settings.model) and value != field.default:
            raise UserError(
                f"{flag_of(field.name)} is an option of --model {kind}: leave it out, or give "
                f"--model {kind}. Received: {value!r} with --model {settings.model}."
            )


def check_image_flow(settings: Settings) -> None:
    """Checks the settings of a flow of images against each other.

    Raises:
      UserError: If the spec does not parse, its base needs a context, a flow takes too many passes,
        images are binarised, or a weight decay has no use.
    """
    check_weight_decay(settings)
    if settings.binarization != "none":
        raise UserError(
            "--model flow takes the grey levels as they are: leave --binarization out. "
            f"Received: --binarization {settings.binarization}."
        )
    if parse_image_flow(settings.flow) is not None:
        return
    distribution = parse_distribution(settings.flow)
    base = distribution.base
    if not base.entry.density:
        fitting = [name for name, entry in BASES.items() if entry.density]
        raise UserError(
            f"The base {base.name!r} cannot be the base of a flow of images: choose "
            f"{' or '.join(fitting)}. Received: --flow {settings.flow}."
        )
    for spec in distribution.flows:
        if not spec.entry.fast_density:
            raise UserError(
                f"--flow cannot be {spec.name!r}: each step takes the density of the images, and "
                f"for that {spec.name} needs one pass for each pixel; use "
                f"{spec.entry.alternative!r} instead."
            )


def check_known_images(settings: Settings) -> None:
    """Checks the images before they are loaded, as `check_images`, if they need no download."""
    layout = known_layout(settings.dataset, settings.data_dir, image_shape=settings.image_shape)
    if layout is not None:
        shape, dtype = layout
        check_images(settings, shape, dtype.kind != "f")


def check_images(settings: Settings, image_shape: Sequence[int], grey: bool) -> None:
    """Checks that a flow of images can be the density of the images of a data set.

    Args:
      settings: The settings.
      image_shape: `(H, W, C)`.
      grey: Whether pixels are whole numbers.

    Raises:
      UserError: If it cannot.
    """
    if not grey:
        raise UserError(
            "--model flow models grey levels, which are whole numbers: save the images as uint8. "
            f"Received: {settings.dataset!r} with float images."
        )
    spec = parse_image_flow(settings.flow)
    if spec is None:
        flows = parse_distribution(settings.flow).flows
        check_event_size(flows, math.prod(image_shape), "number of pixels")
    else:
        levels = spec.options.get("levels", int(spec.entry.options["levels"].default))
        check_levels(spec.name, levels, image_shape)
