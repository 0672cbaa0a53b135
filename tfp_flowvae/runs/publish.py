"""Copies of finished runs to publish, without what only their training needs."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

from tfp_flowvae._files import folder_renamed_when_done
from tfp_flowvae._quiet import import_tensorflow
from tfp_flowvae.errors import UserError
from tfp_flowvae.runs.card import read_facts
from tfp_flowvae.runs.folder import CONFIG, RECORD
from tfp_flowvae.runs.records import METRICS

# What a copy has besides the model and its card, where the run has it.
_COPIED = (CONFIG, METRICS, RECORD, "samples.png")


def publish(path: Path, output: Path, license: str = "") -> None:
    """Exports the model of a run anew: without checkpoints, optimizer state, history and report.

    Args:
      path: The folder of the run, or of an export.
      output: The new folder.
      license: The license for the card's header, by Hugging Face's name for it, such as
        "apache-2.0"; "" for that of the run's card.

    Raises:
      UserError: If there is no such model, the folder exists or cannot be written.
    """
    if output.exists():
        raise UserError(f"{str(output)!r} exists; choose another --output, or remove it.")
    import_tensorflow()
    from tfp_flowvae.models.card import license_in
    from tfp_flowvae.saving import load

    model = load(path, compile=False)
    facts = read_facts(path)
    name, license = output.resolve().name, license or license_in(path)
    try:
        with folder_renamed_when_done(output) as aside:
            model.export(aside)
            for file in filter(Path.is_file, (path / name for name in _COPIED)):
                shutil.copyfile(file, aside / file.name)
            model.write_card(aside, dataclasses.replace(facts, name=name, license=license))
    except OSError as error:
        raise UserError(f"Cannot write {str(output)!r}: {error.strerror}.") from error
