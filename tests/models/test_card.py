"""Model cards: their header, which Hugging Face's hub reads, and their text."""

from __future__ import annotations

import importlib.util

import keras
import pytest
import yaml

import tfp_flowvae as fv
from tfp_flowvae.models.card import CARD
from tfp_flowvae.models.facts import Facts, Figure

FIGURES = (
    Figure(
        "nll", "-log p(x)", 22.3449, "importance-weighted | 5000 samples", "22.345 +- 0.2", "test"
    ),
    Figure("free_energy", "free energy, -ELBO", 23.5, "one sample, nats", split="test"),
    Figure("free_energy", "free energy, -ELBO", 23.1, "one sample, nats", split="valid"),
    Figure("", "precision", 0.5, "draws", split="test"),
)
FACTS = Facts('digits: a "model"', "digits", {"images": "10 test"}, {"seed": 3}, FIGURES)


@pytest.fixture
def vae():
    return fv.FlowVAE(
        image_shape=(4, 4, 1),
        latent_size=2,
        encoder="mlp:4",
        decoder="mlp:4",
        posterior="tril+iaf:1,hidden=4",
        prior="mixture:2",
        seed=7,
    )


def read(folder):
    """The header of a card, parsed, and its text."""
    start, header, text = (folder / CARD).read_text(encoding="utf-8").split("---\n", 2)
    assert start == ""
    return yaml.safe_load(header), text


def test_the_header_has_the_figures_by_split(vae, tmp_path):
    vae.write_card(tmp_path, FACTS)
    header, text = read(tmp_path)
    assert header["library_name"] == "tfp_flowvae"
    assert header["datasets"] == ["digits"]
    assert header["metrics"] == ["nll", "free_energy"]
    assert {"license", "tags", "pipeline_tag"} <= set(header)
    (model,) = header["model-index"]
    assert model["name"] == FACTS.name
    test, valid = model["results"]
    assert test["dataset"] == {"type": "digits", "name": "digits", "split": "test"}
    assert [m["value"] for m in test["metrics"]] == [22.3449, 23.5]
    assert [(m["type"], m["value"]) for m in valid["metrics"]] == [("free_energy", 23.1)]
    assert "| -log p(x) | 22.345 +- 0.2 | test, importance-weighted \\| 5000 samples |" in text
    assert "| precision | 0.500 | test, draws |" in text


def test_the_text_is_that_of_the_model(vae, tmp_path):
    vae.write_card(tmp_path)
    header, text = read(tmp_path)
    assert "model-index" not in header
    assert "datasets" not in header
    assert f"# {tmp_path.name}\n" in text
    for row in (
        "| images | 4 x 4, 1 channel |",
        "| posterior q(z\\|x) | tril+iaf |",
        "| prior p(z) | mixture |",
        f"| parameters | {vae.count_params():,} |",
        "| seed | 7 |",
        f"| keras | {keras.__version__} |",
    ):
        assert row in text
    for title in ("Model", "Versions", "Limits"):
        assert f"\n## {title}\n" in text
    assert "\n## Figures\n" not in text


@pytest.mark.skipif(
    importlib.util.find_spec("huggingface_hub") is None, reason="the extra hub is not installed"
)
def test_hugging_face_reads_the_header(vae, tmp_path):
    from huggingface_hub import ModelCard

    vae.write_card(tmp_path, FACTS)
    data = ModelCard.load(tmp_path / CARD, ignore_metadata_errors=False).data
    assert data.model_name == FACTS.name
    assert {(r.metric_type, r.metric_value) for r in data.eval_results} == {
        (figure.type, figure.value) for figure in FIGURES if figure.type
    }


def test_a_readme_of_another_kind_stays(vae, tmp_path):
    (tmp_path / CARD).write_text("Mine.")
    vae.write_card(tmp_path, FACTS)
    assert (tmp_path / CARD).read_text() == "Mine."
    (tmp_path / CARD).unlink()
    vae.write_card(tmp_path)
    vae.write_card(tmp_path, FACTS)
    assert "datasets" in read(tmp_path)[0]


def test_an_export_has_a_card_with_its_sizes(tmp_path):
    density = fv.FlowDensity("maf:1,hidden=4", event_size=2, context_size=3)
    fv.export(density, tmp_path / "out")
    header, text = read(tmp_path / "out")
    assert "density-estimation" in header["tags"]
    size = (tmp_path / "out" / "saved_model.pb").stat().st_size
    assert f"| saved_model.pb | {size:,} bytes |" in text
    assert "| context | 3 columns |" in text
    code = text.split("```python\n")[1].split("```")[0]
    code = code.replace('"PATH"', repr(str(tmp_path / "out")))
    exec(code, {"x": [[1.0, 2.0]], "context": [[1.0, 2.0, 3.0]]})


def test_two_exports_have_the_same_card(vae, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        vae.write_card(tmp_path / name, FACTS)
    assert (tmp_path / "a" / CARD).read_bytes() == (tmp_path / "b" / CARD).read_bytes()
