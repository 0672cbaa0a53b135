"""Which run to go on with, and whether what is asked of it agrees with what it was.

Nothing heavy is imported here.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfp_flowvae.errors import UserError
from tfp_flowvae.runs.config import TrainConfig
from tfp_flowvae.runs.options import flag_of
from tfp_flowvae.runs.store import Checkpoint

CONFIG, RECORD = "config.json", "run.json"
CHECKPOINTS, REPLACEMENT = "checkpoints", ".replacement"
# What may change from one part of a run to the next.
_FREE = ("epochs",)


def resumed_folder(resume: str | bool, output: Path | None, overwrite: bool) -> Path:
    """The folder of the run to go on with.

    Args:
      resume: What `--resume` was given; True for nothing.
      output: What `--output` was given.
      overwrite: Whether `--overwrite` was.

    Raises:
      UserError: If there is none or two, or `overwrite`.
    """
    if overwrite:
        raise UserError(
            "--resume goes on with a run and --overwrite replaces it: give one of them. "
            "Received: --resume and --overwrite."
        )
    path = output if resume is True else Path(str(resume))
    if path is None:
        raise UserError("--resume needs the folder of the run: --resume DIR, or --output DIR.")
    if output is not None and os.path.abspath(output) != os.path.abspath(path):
        raise UserError(
            "--resume and --output must name one folder. "
            f"Received: --resume {str(path)!r} --output {str(output)!r}."
        )
    return path


def home_of(path: Path) -> Path:
    """Where the config and the checkpoints of the run in a folder are.

    That is the folder itself, or, while a run is to replace what is there, a folder inside it.

    Raises:
      UserError: If there is no run.
    """
    replacement = path / REPLACEMENT
    if (replacement / CONFIG).is_file() and (replacement / CHECKPOINTS).is_dir():
        return replacement
    if (path / CONFIG).is_file():
        return path
    raise UserError(
        f"{str(path)!r} holds no run to resume (no {CONFIG}); give the folder of one, or start one "
        "without --resume."
    )


def resumed_config(path: Path, given: Mapping[str, Any]) -> TrainConfig:
    """The config of the run in a folder, with more epochs if so many are given.

    Args:
      path: The folder.
      given: What else was said, by field name; it must agree.

    Raises:
      UserError: If there is no run, or something that was said differs.
    """
    file = home_of(path) / CONFIG
    stored = TrainConfig.from_file(file)
    _refuse_changes(dataclasses.asdict(stored), given, str(file))
    return dataclasses.replace(stored, **{k: given[k] for k in _FREE if k in given})


def check_state(config: TrainConfig, start: Checkpoint, path: Path) -> None:
    """Checks a checkpoint against the config to go on with.

    Args:
      config: With the number of epochs that is asked for.
      start: The checkpoint.
      path: The run's folder.

    Raises:
      UserError: If the config is not that of the checkpoint, or the epochs are too few, or more
        though the run had ended by itself.
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
            f"The run in {str(path)!r} stopped early, after epoch {done}, and more epochs change "
            f"nothing: --patience {config.patience} is part of it. "
            f"Received: --epochs {config.epochs}."
        )


def is_complete(config: TrainConfig, start: Checkpoint, home: Path) -> bool:
    """Whether there is nothing left to do: trained to the end, and the results of that written.

    Args:
      config: With the number of epochs that is asked for.
      start: The last checkpoint.
      home: Where config, checkpoints and, if they are written, results of the run are.
    """
    if start.state["step"] or not (start.stopped_early or start.state["epoch"] == config.epochs):
        return False
    try:
        record = json.loads((home / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(record, dict) and record.get("epochs") == start.state["epoch"]


def resume_command(path: Path, options: Mapping[str, Any]) -> str:
    """The command that goes on with the run in a folder.

    Args:
      path: The folder.
      options: By name of the flag without dashes; left out where false or 0.
    """
    program, python = Path(sys.argv[0]), python_command()
    if program.name == "__main__.py":
        words = [python, "-m", "tfp_flowvae", "train"]
    elif program.suffix == ".py":
        words = [python, shlex.quote(sys.argv[0])]
    else:
        words = [program.name, "train"]
    words += ["--resume", shlex.quote(str(path))]
    for name, value in options.items():
        if value:
            words += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    return " ".join(words)


def python_command() -> str:
    """How to call this Python from the current folder."""
    python = Path(sys.executable)
    if python.is_relative_to(Path.cwd()):
        python = python.relative_to(Path.cwd())
    return shlex.quote(str(python))


def _refuse_changes(stored: Mapping[str, Any], given: Mapping[str, Any], where: str) -> None:
    """Refuses values that are not the stored ones, but for those that may change."""
    changed = [
        f"{flag_of(name)} is {_shown(stored[name])} there and not {_shown(value)}"
        for name, value in given.items()
        if name in stored and name not in _FREE and _shown(stored[name]) != _shown(value)
    ]
    if changed:
        raise UserError(
            f"--resume goes on with the settings of {where}, which cannot change but for more "
            f"--epochs: {'; '.join(changed)}. Leave that out, or start a new run with --config."
        )


def _shown(value: Any) -> str:
    """A value as it is given, the same for a tuple as for a list and for 1.0 as for 1."""
    if isinstance(value, list | tuple):
        return " ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) and value == int(value) else str(value)
