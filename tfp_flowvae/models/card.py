"""Model cards: the README.md of an export, with the header that Hugging Face's hub reads.

Everything in a card is read from the model, the run and its evaluation.
https://huggingface.co/docs/hub/model-cards describes the header.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from tfp_flowvae._version import __version__
from tfp_flowvae.distributions import BASES
from tfp_flowvae.distributions.flow_distribution import FlowDistribution
from tfp_flowvae.flows.image_registry import IMAGE_FLOWS
from tfp_flowvae.flows.registry import FLOWS
from tfp_flowvae.flows.stack import Stack
from tfp_flowvae.models.data_units import DataUnits
from tfp_flowvae.models.facts import Facts, Figure
from tfp_flowvae.models.pixels import Pixels

CARD = "README.md"
LIBRARY = "tfp_flowvae"
_PACKAGES = ("tensorflow", "tensorflow-probability", "keras", "numpy")
_TAGS = ("tensorflow", "tensorflow-probability", "keras", "saved-model", "normalizing-flows")


@dataclasses.dataclass(frozen=True)
class Subject:
    """What a card tells of a model.

    Attributes:
      task: The task's type in the header.
      tags: Its tags.
      summary: What it is, in sentences.
      parts: Its parts, by name.
      usage: The Python lines that use the SavedModel `served`.
      limits: What a user has to know, in sentences.
    """

    task: str
    tags: Sequence[str]
    summary: str
    parts: Mapping[str, Any]
    usage: Sequence[str]
    limits: Sequence[str]


def write_card(folder: Path, subject: Subject, facts: Facts) -> None:
    """Writes the card of the export in a folder, but not over a README.md that is none of ours."""
    if not has_other_readme(folder):
        (folder / CARD).write_text(card(folder, subject, facts), encoding="utf-8")


def has_other_readme(folder: Path) -> bool:
    """Whether a folder has a README.md that is no card of ours."""
    return (folder / CARD).is_file() and _read_header(folder).get("library_name") != LIBRARY


def license_in(folder: Path) -> str:
    """The license in the header of a folder's card, or ""."""
    return str(_read_header(folder).get("license") or "")


def _read_header(folder: Path) -> Mapping[str, Any]:
    """The header of a folder's README.md; empty if there is none."""
    file = folder / CARD
    if not file.is_file():
        return {}
    try:
        header = yaml.safe_load(file.read_text("utf-8").partition("\n---\n")[0])
    except (yaml.YAMLError, UnicodeDecodeError):
        return {}
    return header if isinstance(header, Mapping) else {}


def card(folder: Path, subject: Subject, facts: Facts) -> str:
    """Returns the card of the export in a folder."""
    name = facts.name or folder.name
    license = facts.license or license_in(folder) or "unknown"
    header = _header(name, subject, facts, license)
    text = yaml.safe_dump(header, sort_keys=False, width=math.inf)
    versions = {LIBRARY: __version__} | {package: version(package) for package in _PACKAGES}
    code = "\n".join(["import tensorflow as tf", "", 'served = tf.saved_model.load("PATH")'])
    sections = [
        f"# {name}",
        subject.summary,
        "```python\n" + "\n".join([code, *subject.usage]) + "\n```",
        "`tfp_flowvae.load(PATH)` gives the Keras model back.",
        _section("Model", subject.parts),
        _section("Data", facts.data),
        _figures(facts.figures),
        _section("Settings of the run", facts.settings),
        _section("Versions", versions),
        _section("Size", _sizes(folder)),
        "## Limits\n\n" + "\n".join(f"- {sentence}" for sentence in subject.limits),
    ]
    return f"---\n{text}---\n\n" + "\n\n".join(filter(None, sections)) + "\n"


def parts_of(layer: FlowDistribution) -> str:
    """The base and the flows of a distribution by their names, such as `normal+iaf`.

    The units of the data, which a density has as its last flow, are left out.
    """
    flows = [flow for flow in _flat(layer.flow) if not isinstance(flow, (DataUnits, Pixels))]
    return "+".join(map(_name_of, (layer.base, *flows)))


def _flat(flow: Any) -> list[Any]:
    """The flows of a stack, and of stacks in it."""
    return (
        [part for one in flow.flows for part in _flat(one)] if isinstance(flow, Stack) else [flow]
    )


def _name_of(part: Any) -> str:
    for name, entry in (*BASES.items(), *FLOWS.items(), *IMAGE_FLOWS.items()):
        target = entry.target
        known = target.rpartition(":")[2] if isinstance(target, str) else target.__name__
        if known == type(part).__name__:
            return name
    return type(part).__name__


def _header(name: str, subject: Subject, facts: Facts, license: str) -> dict[str, Any]:
    header: dict[str, Any] = {
        "license": license,
        "library_name": LIBRARY,
        "pipeline_tag": subject.task,
        "tags": [*_TAGS, *subject.tags],
    }
    if facts.dataset:
        header["datasets"] = [facts.dataset]
    figures = [figure for figure in facts.figures if figure.type]
    if figures:
        header["metrics"] = list(dict.fromkeys(figure.type for figure in figures))
        splits = dict.fromkeys(figure.split for figure in figures)
        header["model-index"] = [
            {"name": name, "results": [_result(subject, facts, split) for split in splits]}
        ]
    return header


def _result(subject: Subject, facts: Facts, split: str) -> dict[str, Any]:
    dataset = {"type": facts.dataset or "unknown", "name": facts.dataset or "unknown"}
    return {
        "task": {"type": subject.task},
        "dataset": dataset | ({"split": split} if split else {}),
        "metrics": [
            {"type": figure.type, "value": figure.value, "name": f"{figure.label}, {figure.how}"}
            for figure in facts.figures
            if figure.type and figure.split == split
        ],
    }


def _section(title: str, rows: Mapping[str, Any]) -> str:
    if not rows:
        return ""
    lines = [f"| {_cell(name)} | {_cell(value)} |" for name, value in rows.items()]
    return "\n".join([f"## {title}", "", "| | |", "|---|---|", *lines])


def _figures(figures: Sequence[Figure]) -> str:
    if not figures:
        return ""
    rows = [
        f"| {_cell(figure.label)} | {figure.shown or f'{figure.value:.3f}'} "
        f"| {_cell(', '.join(filter(None, [figure.split, figure.how])))} |"
        for figure in figures
    ]
    return "\n".join(["## Figures", "", "| | | how it was measured |", "|---|---|---|", *rows])


def _cell(value: Any) -> str:
    text = " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")


def _sizes(folder: Path) -> dict[str, str]:
    """The sizes of the model's files."""
    files = [folder / "saved_model.pb", *sorted(folder.glob("variables/*")), folder / "model.keras"]
    return {
        file.relative_to(folder).as_posix(): f"{file.stat().st_size:,} bytes"
        for file in files
        if file.is_file()
    }
