"""Which settings go with `--model flow`, before TensorFlow is imported."""

from __future__ import annotations

import dataclasses

from tfp_flowvae.distributions.spec import parse_distribution, parse_image_flow
from tfp_flowvae.errors import UserError
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
      UserError: If the spec does not parse, a flow takes too many passes, images are binarised, or
        a weight decay has no use.
    """
    check_weight_decay(settings)
    if settings.binarization != "none":
        raise UserError(
            "--model flow takes the grey levels as they are: leave --binarization out. "
            f"Received: --binarization {settings.binarization}."
        )
    if parse_image_flow(settings.flow) is not None:
        return
    for spec in parse_distribution(settings.flow).flows:
        if not spec.entry.fast_density:
            raise UserError(
                f"--flow cannot be {spec.name!r}: each step takes the density of the images, and "
                f"for that {spec.name} needs one pass for each pixel; use "
                f"{spec.entry.alternative!r} instead."
            )
