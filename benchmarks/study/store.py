"""The results of the study: one JSON file a run, and the values of its test images beside it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent / "results"

KEYS = (
    "flow",
    "prior",
    "config",
    "seed",
    "epochs",
    "seconds",
    "machine",
    "versions",
    "train_free_energy",
    "valid_free_energy",
    "test_free_energy",
    "test_nll",
    "test_nll_se",
    "kl",
    "active_units",
    "diagnostics",
    "failed",
)
"""The keys of a result. All figures are in nats per image; those of the test images are null in the
tuning, and all are in a run that failed, which `failed` then says."""

_PER_NAT = 100


def write_result(
    folder: Path, name: str, result: dict[str, Any], per_image: dict[str, np.ndarray]
) -> None:
    """Writes a result and, if there are any, the values of each test image to 0.01 nats."""
    folder.mkdir(parents=True, exist_ok=True)
    if per_image:
        rounded: dict[str, Any] = {
            k: np.round(np.asarray(v) * _PER_NAT).astype(np.int32) for k, v in per_image.items()
        }
        aside = folder / f".{name}.npz"
        np.savez_compressed(aside, **rounded)
        os.replace(aside, folder / f"{name}.npz")
    aside = folder / f".{name}.json"
    text = json.dumps({key: result[key] for key in KEYS}, indent=1)
    aside.write_text(_rows_on_a_line(text) + "\n", encoding="utf-8")
    os.replace(aside, folder / f"{name}.json")


def _rows_on_a_line(text: str) -> str:
    """The JSON with each list of numbers on one line."""
    lines: list[str] = []
    joined = ""
    for line in text.splitlines():
        if joined:
            joined += line.strip() + ("" if line.strip().startswith("]") else " ")
            if line.strip().startswith("]"):
                lines.append(joined.replace(" ]", "]"))
                joined = ""
        elif line.endswith("["):
            joined = line
        else:
            lines.append(line)
    return "\n".join(lines)


def read_result(name: str, folder: Path = RESULTS) -> dict[str, Any] | None:
    """The result of a run, or None where there is none yet."""
    path = folder / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def write_optima(folder: Path, name: str, found: dict[str, Any]) -> None:
    """Writes what the families of posteriors give at best under a run's decoder."""
    path = folder / "optima" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_rows_on_a_line(json.dumps(found, indent=1)) + "\n", encoding="utf-8")


def read_optima(name: str, folder: Path = RESULTS) -> dict[str, np.ndarray]:
    """The free energies of each image, `[N]` in nats, by family; empty where there are none."""
    path = folder / "optima" / f"{name}.json"
    if not path.exists():
        return {}
    found = json.loads(path.read_text(encoding="utf-8"))["free_energies"]
    return {family: np.array(values) for family, values in found.items()}


def write_epochs(folder: Path, found: dict[str, Any]) -> None:
    """Writes the seconds of an epoch of runs, by name, and the machine."""
    path = folder / "timing" / "epochs.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def read_epochs(folder: Path = RESULTS) -> dict[str, float]:
    """The seconds of an epoch of each run, by name; empty where they were not taken."""
    path = folder / "timing" / "epochs.json"
    return json.loads(path.read_text(encoding="utf-8"))["seconds"] if path.exists() else {}


def read_per_image(name: str, folder: Path = RESULTS) -> dict[str, np.ndarray]:
    """The values of each test image, float64 `[N]` in nats: `free_energy` and `nll`."""
    with np.load(folder / f"{name}.npz", allow_pickle=False) as values:
        return {key: values[key] / _PER_NAT for key in values.files}
