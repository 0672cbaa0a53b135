"""The card of a run: its data, settings and figures, from the files that the run writes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfp_flowvae.models.facts import Facts, Figure
from tfp_flowvae.runs.folder import CONFIG, RECORD
from tfp_flowvae.runs.options import option_of
from tfp_flowvae.runs.records import METRICS, is_of_density, read_json
from tfp_flowvae.runs.settings import Settings

if TYPE_CHECKING:
    from tfp_flowvae.evaluation.figures import Figures

_NATS = "nats per image"
# The figures of an evaluation that the header has.
_IN_HEADER = (
    "nll",
    "bits_per_dimension",
    "elbo",
    "active_units",
    "frechet_distance",
    "precision",
    "recall",
)
# Settings that are paths of the machine that trained the model.
_LOCAL = ("data_dir", "plugin")


def facts_of_run(
    name: str,
    config: Mapping[str, Any],
    metrics: Mapping[str, float],
    record: Mapping[str, Any],
    evaluation: Figures | None = None,
) -> Facts:
    """What a card tells of a run of a `FlowVAE` or an `ImageDensity`.

    Args:
      name: The name of the model.
      config: The content of config.json.
      metrics: The content of metrics.json.
      record: The content of run.json.
      evaluation: The figures of `evaluate`, or None.
    """
    dataset = Path(config["dataset"]).name
    counts = record["images"]
    data = {
        "data set": dataset,
        "images": ", ".join(f"{count} {split}" for split, count in counts.items()),
        "shape": " x ".join(map(str, record["image_shape"])),
        **({"classes": ", ".join(record["classes"])} if "classes" in record else {}),
        "binarization": config["binarization"],
        "epochs": record["epochs"],
    }
    fields = {field.name: field for field in dataclasses.fields(Settings)}
    # An older version may have written a config without some of the fields.
    config = {name: field.default for name, field in fields.items()} | dict(config)
    settings = {
        name: config[name]
        for name, field in fields.items()
        if name not in _LOCAL
        and config[name] is not None
        and option_of(field).of in ("", config["model"])
    }
    figures = _of_metrics(config, metrics, counts)
    if evaluation is not None:
        figures += _of_evaluation(evaluation)
    return Facts(name, dataset, data, {**settings, "dataset": dataset}, figures)


def facts_of_density(
    name: str, config: Mapping[str, Any], metrics: Mapping[str, float], record: Mapping[str, Any]
) -> Facts:
    """What a card tells of a run of a `FlowDensity`; arguments as for `facts_of_run`."""
    dataset = Path(config["data"]).name
    rows = record["rows"]
    data = {
        "table": dataset,
        "rows": ", ".join(f"{count} {split}" for split, count in rows.items()),
        "columns": ", ".join(record["columns"]),
        **({"context": ", ".join(record["context"])} if record["context"] else {}),
        "epochs": record["epochs"],
    }
    figures = [
        Figure(
            "log_likelihood",
            "log p(x)",
            metrics[f"{split}_log_likelihood"],
            f"mean of {rows[split]} rows, nats per row",
            split=split,
        )
        for split in ("valid", "test")
    ]
    return Facts(name, dataset, data, {**config, "data": dataset}, figures)


def read_facts(folder: Path, evaluation: Figures | None = None) -> Facts:
    """What a card tells of the run in a folder, or of an evaluation if there is no run."""
    if not (folder / RECORD).is_file():
        figures = () if evaluation is None else _of_evaluation(evaluation)
        dataset = "" if evaluation is None else Path(evaluation.protocol.dataset).name
        return Facts(dataset=dataset, figures=figures)
    config, metrics, record = (read_json(folder / name) for name in (CONFIG, METRICS, RECORD))
    name = folder.resolve().name
    if is_of_density(config):
        return facts_of_density(name, config, metrics, record)
    return facts_of_run(name, config, metrics, record, evaluation)


def _of_metrics(
    config: Mapping[str, Any], metrics: Mapping[str, float], counts: Mapping[str, int]
) -> list[Figure]:
    """The figures of metrics.json, with their protocol."""
    bound = "upper bound" if config["model"] == "flow" else "free energy"
    one = f"one sample an image, {_NATS}"
    rows = (
        ("free_energy", "free energy, -ELBO", one),
        ("log_likelihood", "E_q[log p(x|z)]", one),
        ("kl", "KL(q(z|x) || p(z))", one),
        ("nll_bound", "upper bound of -log P(x)", f"one draw of the noise an image, {_NATS}"),
        ("bits_per_dimension", "bits per dimension", f"{bound} / (H W C log 2)"),
        ("nll", "-log p(x)", f"importance-weighted, {config['nll_samples']} samples, {_NATS}"),
    )
    seen = f"binarization {config['binarization']}, seed {config['seed']}"
    if config["labels"]:
        seen = f"given their labels, {seen}"
    return [
        Figure(
            name,
            label,
            metrics[f"{split}_{name}"],
            f"{how}; {counts[split]} images, {seen}",
            split=split,
        )
        for split in ("valid", "test")
        for name, label, how in rows
        if f"{split}_{name}" in metrics
    ]


def _of_evaluation(found: Figures) -> list[Figure]:
    from tfp_flowvae.evaluation.table import data, measured

    dataset = Path(found.protocol.dataset).name
    images = data(dataclasses.replace(found.protocol, dataset=dataset))
    return [
        Figure(
            row.name if row.name in _IN_HEADER else "",
            row.label,
            float(getattr(found, row.name)),
            f"{row.how}; {images}",
            row.value,
            found.protocol.split,
        )
        for row in measured(found)
    ]
