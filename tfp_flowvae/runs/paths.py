"""The names in the folder of a run, and where a run in progress keeps its state."""

from __future__ import annotations

from pathlib import Path

from tfp_flowvae.errors import UserError

CONFIG, RECORD = "config.json", "run.json"
CHECKPOINTS, REPLACEMENT = "checkpoints", ".replacement"


def home_of(path: Path) -> Path:
    """Returns where the config and the checkpoints of the run in a folder are.

    That is the folder itself. While a run with `--overwrite` has not yet replaced the content of
    the folder, it is a folder inside it.

    Raises:
      UserError: If there is no run.
    """
    replacement = path / REPLACEMENT
    if (replacement / CONFIG).is_file() and (replacement / CHECKPOINTS).is_dir():
        return replacement
    if (path / CONFIG).is_file():
        return path
    raise UserError(
        f"{str(path)!r} holds no run to resume (no {CONFIG}); give the folder of a run, or start "
        "one without --resume."
    )
