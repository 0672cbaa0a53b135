"""From what a user asks for to the config of a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfp_flowvae.errors import UserError
from tfp_flowvae.runs.config import TrainConfig
from tfp_flowvae.runs.presets import PRESETS
from tfp_flowvae.runs.resume import resumed_config


def choose_config(
    given: Mapping[str, Any],
    *,
    preset: str | None = None,
    file: str | None = None,
    resumed: Path | None = None,
) -> TrainConfig:
    """Returns the config that the options of a command line describe.

    Args:
      given: The options given, by field name; they override the preset and the file.
      preset: The name of a preset to start from.
      file: A config.json to start from.
      resumed: The folder of the run to resume. Its config is the result, and what is given, in the
        preset or in the file must agree with it, except for the number of epochs.

    Raises:
      UserError: If preset and file are both given, a name, field or value is not allowed, or
        the options do not agree with the run to resume.
    """
    if preset is not None:
        if file:
            raise UserError(
                "--preset and --config are two starting points: give one of them. "
                f"Received: --preset {preset} --config {file}."
            )
        given = {**PRESETS.find(preset).values, **given}
    if resumed is not None:
        if file:
            given = dataclasses.asdict(TrainConfig.from_file(file, **given))
        return resumed_config(resumed, given)
    if file:
        return TrainConfig.from_file(file, **given)
    return TrainConfig.from_mapping(given, source="the command line")
