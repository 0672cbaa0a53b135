"""The page on tracking runs as it stands, and the tools' stores hold what training logged."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest

from tfp_flowvae.cli import main

PAGE = Path(__file__).parents[1] / "docs" / "tracking.md"


@pytest.fixture
def run_section(tmp_path, monkeypatch):
    """A function that runs the Python blocks of the introduction and of a section of the page."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_SILENT", "true")
    introduction, *sections = re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.M)

    def run(title):
        (section,) = (text for text in sections if text.startswith(title))
        namespace = {"__name__": "page"}
        for block in re.findall(r"^```python\n(.*?)^```$", introduction + section, re.M | re.S):
            exec(compile(block, str(PAGE), "exec"), namespace)
        return namespace

    return run


def test_mlflow(run_section, tmp_path):
    mlflow = pytest.importorskip("mlflow", reason="MLflow is not installed")
    page = run_section("MLflow")
    client = mlflow.MlflowClient()
    run_id = page["run"].info.run_id
    history = page["vae"].history.history
    for name in ("elbo", "kl", "val_elbo"):
        logged = client.get_metric_history(run_id, name)
        assert [(point.step, point.value) for point in logged] == list(enumerate(history[name]))
    assert client.get_run(run_id).data.params["optimizer_name"] == "adam"
    assert "model/saved_model.pb" in [file.path for file in client.list_artifacts(run_id, "model")]

    settings = "--flow none --latent-dim 2 --hidden 8 --epochs 2 --no-jit --verbose 0"
    assert main(["train", *settings.split(), "--output", "small"]) == 0
    run_id = page["log_run"]("small")
    logged = client.get_run(run_id).data
    assert logged.params["latent_dim"] == "2"
    for name, value in json.loads((tmp_path / "small" / "metrics.json").read_text()).items():
        assert logged.metrics[name] == value
    with (tmp_path / "small" / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    points = client.get_metric_history(run_id, "active_units")
    assert [(point.step, point.value) for point in points] == [
        (int(row["epoch"]), float(row["active_units"])) for row in rows
    ]
    assert "model.keras" in [file.path for file in client.list_artifacts(run_id)]


def test_wandb_offline(run_section, tmp_path):
    pytest.importorskip("wandb", reason="Weights & Biases is not installed")
    page = run_section("Weights & Biases")
    assert page["val_elbo"] == page["vae"].history.history["val_elbo"][-1]
    assert list((tmp_path / "wandb").glob("offline-run-*/run-*.wandb"))
