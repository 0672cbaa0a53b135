"""Which settings go with `--model flow`, before TensorFlow is imported."""

from __future__ import annotations

import dataclasses

from tfp_flowvae.distributions.spec import parse_distribution, parse_image_flow
from tfp_flowvae.errors import UserError
from tfp_flowvae.runs.checks import check_weight_decay
from tfp_flowvae.runs.options import flag_of
from tfp_flowvae.runs.settings import Settings

OF_VAES = (
    *("base", "prior", "allow_slow", "latent_dim", "likelihood", "components"),
    *("encoder", "decoder", "hidden", "channels", "activation", "norm", "binarization"),
    *("input_dropout", "diagnostics", "samples", "bound", "gradient", "beta"),
    *("warmup", "warmup_epochs", "cycles", "free_bits", "min_information"),
    *("labels", "label_dropout"),
)
OF_FLOWS = ("dequantize", "temperature")
# What the config writes into fields whose default is None.
_FILLED_IN = {"binarization": "none", "warmup_epochs": 20}


def check_model(settings: Settings) -> None:
    """Refuses settings of the other kind of model.

    Raises:
      UserError: For the first one that is not the default.
    """
    others, kind = (OF_VAES, "vae") if settings.model == "flow" else (OF_FLOWS, "flow")
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        allowed = (field.default, _FILLED_IN.get(field.name, field.default))
        if field.name in others and value not in allowed:
            raise UserError(
                f"{flag_of(field.name)} is an option of --model {kind}: leave it out, or give "
                f"--model {kind}. Received: {value!r} with --model {settings.model}."
            )


def check_image_flow(settings: Settings) -> None:
    """Checks the settings of a flow of images against each other.

    Raises:
      UserError: If the spec does not parse, a flow takes too many passes, or a weight decay has no
        use.
    """
    check_weight_decay(settings)
    if parse_image_flow(settings.flow) is not None:
        return
    for spec in parse_distribution(settings.flow).flows:
        if not spec.entry.fast_density:
            raise UserError(
                f"--flow cannot be {spec.name!r}: each step takes the density of the images, and "
                f"for that {spec.name} needs one pass for each pixel; use "
                f"{spec.entry.alternative!r} instead."
            )
