"""From the options of a command line to the config of a run, new or resumed.

This module imports nothing heavy.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfp_flowvae.errors import UserError
from tfp_flowvae.runs.config import TrainConfig
from tfp_flowvae.runs.folder import CONFIG, RECORD, home_of
from tfp_flowvae.runs.options import flag_of
from tfp_flowvae.runs.presets import PRESETS
from tfp_flowvae.runs.store import Checkpoint

# The fields that may change when a run is resumed.
_FREE = ("epochs", "learning_rate", "clip_norm")


def resumed_folder(resume: str | bool, output: Path | None, overwrite: bool) -> Path:
    """Returns the folder of the run to resume.

    Args:
      resume: The value of `--resume`; True if it was given without a value.
      output: The value of `--output`.
      overwrite: Whether `--overwrite` was given.

    Raises:
      UserError: If the options name no folder or two folders, or `overwrite` is true.
    """
    if overwrite:
        raise UserError(
            "--resume continues a run and --overwrite replaces it: give one of them. "
            "Received: --resume and --overwrite."
        )
    path = output if resume is True else Path(str(resume))
    if path is None:
        raise UserError("--resume needs the folder of the run: --resume DIR, or --output DIR.")
    if output is not None and os.path.abspath(output) != os.path.abspath(path):
        raise UserError(
            "--resume and --output must name the same folder. "
            f"Received: --resume {str(path)!r} --output {str(output)!r}."
        )
    return path


def choose_config(
    given: Mapping[str, Any], preset: str | None, file: str | None, resumed: Path | None
) -> TrainConfig:
    """Returns the config that the options of a command line describe.

    Args:
      given: The options given, by field name; they override the preset and the file.
      preset: The name of a preset to start from, or None.
      file: A config.json to start from, or None.
      resumed: The folder of the run to resume, or None. The result is then the config of that run
        with the number of epochs, the learning rate and the clip norm that are given; all other
        options must agree with it.

    Raises:
      UserError: If preset and file are both given; a name, field or value is not allowed; there is
        no run to resume; or the options do not agree with it.
    """
    if preset is not None:
        if file:
            raise UserError(
                "--preset and --config are two starting points: give one of them. "
                f"Received: --preset {preset} --config {file}."
            )
        given = {**PRESETS.find(preset).values, **given}
    if resumed is None:
        if file:
            return TrainConfig.from_file(file, **given)
        return TrainConfig.from_mapping(given, source="the command line")
    if file:
        given = dataclasses.asdict(TrainConfig.from_file(file, **given))
    own = home_of(resumed) / CONFIG
    stored = TrainConfig.from_file(own)
    _refuse_changes(dataclasses.asdict(stored), given, str(own))
    return dataclasses.replace(stored, **{name: given[name] for name in _FREE if name in given})


def check_state(config: TrainConfig, start: Checkpoint, path: Path) -> None:
    """Checks a checkpoint against the config of the run to resume.

    Args:
      config: The config, with the number of epochs that was asked for.
      start: The checkpoint.
      path: The folder of the run.

    Raises:
      UserError: If the checkpoint has another config, it is past the last epoch, or early stopping
        ended the run and more epochs are asked for.
    """
    stored, done, begun = start.state["config"], start.state["epoch"], bool(start.state["step"])
    _refuse_changes(stored, dataclasses.asdict(config), str(start.path))
    if config.epochs < done + begun:
        raise UserError(
            f"The run in {str(path)!r} has {'begun' if begun else 'done'} epoch {done + begun} "
            f"already; give --epochs {done + begun} or more. Received: --epochs {config.epochs}."
        )
    if start.stopped_early and config.epochs > stored["epochs"]:
        raise UserError(
            f"The run in {str(path)!r} stopped early, after epoch {done}, because of --patience "
            f"{config.patience}; more epochs change nothing. Received: --epochs {config.epochs}."
        )


def is_complete(config: TrainConfig, start: Checkpoint, home: Path) -> bool:
    """Whether training has ended and its results are written, so that nothing is left to do.

    Args:
      config: The config, with the number of epochs that was asked for.
      start: The last checkpoint.
      home: The folder that holds the config, the checkpoints and, once written, the results.
    """
    if start.state["step"] or not (start.stopped_early or start.state["epoch"] == config.epochs):
        return False
    try:
        record = json.loads((home / RECORD).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return False
    return record["epochs"] == start.state["epoch"]


def _refuse_changes(stored: Mapping[str, Any], given: Mapping[str, Any], where: str) -> None:
    """Refuses values that differ from the stored ones, except for fields that may change."""
    changed = [
        f"{flag_of(name)} is {_shown(stored[name])} there and not {_shown(value)}"
        for name, value in given.items()
        if name in stored and name not in _FREE and _shown(stored[name]) != _shown(value)
    ]
    if changed:
        allowed = ", ".join(map(flag_of, _FREE))
        raise UserError(
            f"--resume keeps the settings of {where}, and only {allowed} may change: "
            f"{'; '.join(changed)}. Leave that out, or start a new run with --config."
        )


def _shown(value: Any) -> str:
    """The text of a value; a tuple and a list, or 1.0 and 1, give the same text."""
    if isinstance(value, list | tuple):
        return " ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) and value == int(value) else str(value)
