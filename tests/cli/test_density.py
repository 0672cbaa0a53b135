"""The command `density`: what it writes, that it repeats, and its errors."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfp_flowvae.cli import main


def table(folder, rows=400):
    """a normal, b a normal around sin 2a, and c = 3 + a normal, as CSV."""
    rng = np.random.default_rng(0)
    a = rng.normal(size=rows)
    b = np.sin(2.0 * a) + 0.3 * rng.normal(size=rows)
    c = 3.0 + rng.normal(size=rows)
    path = folder / "table.csv"
    columns = np.stack([a, b, c], axis=1)
    np.savetxt(path, columns, delimiter=",", header="a,b,c", comments="")
    return path


def fit(path, output, *more):
    options = ["--flow", "maf:1,hidden=8", "--epochs", "2", "--batch-size", "64", "--verbose", "0"]
    return main(["density", str(path), *options, "--output", str(output), *more])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("density")


@pytest.fixture(scope="module")
def run(folder):
    assert fit(table(folder), folder / "run", "--context", "a") == 0
    return folder / "run"


def test_writes_the_folder_of_a_run(run):
    names = {path.name for path in run.iterdir()}
    assert names >= {"saved_model.pb", "variables", "model.keras", "corner.png", "history.csv"}
    card = (run / "README.md").read_text(encoding="utf-8")
    assert "| rows | 320 train, 40 valid, 40 test |" in card
    assert str(run.parent) not in card  # no path of the machine
    assert not [name for name in names if name.startswith(".")]
    config, record = (json.loads((run / f"{name}.json").read_text()) for name in ("config", "run"))
    assert config["context"] == ["a"]
    assert record["columns"] == ["b", "c"]
    assert record["rows"] == {"train": 320, "valid": 40, "test": 40}


def test_reports_the_held_out_log_likelihood_of_the_export(run, folder):
    rows = np.loadtxt(folder / "table.csv", delimiter=",", skiprows=1).astype(np.float32)
    held_out = rows[np.random.default_rng(1797).permutation(400)[360:]]
    exported = tf.saved_model.load(str(run))
    found = exported.log_prob(held_out[:, 1:], held_out[:, :1])["log_prob"].numpy()
    metrics = json.loads((run / "metrics.json").read_text())
    # Both are means of the same 40 numbers, of a compiled and of an exported program: each has
    # some hundred roundings of its terms.
    rounding = 200 * np.finfo(np.float32).eps * np.abs(found).max()
    assert abs(metrics["test_log_likelihood"] - found.mean()) <= rounding
    assert abs(metrics["test_log_likelihood_se"] - found.std(ddof=1) / 40**0.5) <= rounding


def test_keras_loads_the_model(run):
    model = keras.saving.load_model(run / "model.keras")
    assert model.sample(3, np.zeros([2, 1], np.float32), seed=0).shape == (3, 2, 2)


def test_repeats_bit_for_bit(run, folder):
    assert fit(folder / "table.csv", folder / "again", "--context", "a") == 0
    assert (folder / "again" / "metrics.json").read_bytes() == (run / "metrics.json").read_bytes()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--context", "z"], "There is no column 'z'"),
        (["--context", "a", "b", "c"], "Every column is a context"),
        (["--context", "a", "--columns", "a", "b"], "'a' is in both --columns and --context"),
        (["--flow", "iaf:2"], "maf"),
        (["--flow", "mafia"], "Unknown flow"),
        (["--batch-size", "5000"], "A batch of 5000 rows needs more than the 320 training rows"),
        (["--epochs", "0"], "--epochs must be at least 1"),
        (["--learning-rate", "2"], "--learning-rate must lie strictly between 0 and 1"),
    ],
)
def test_errors_are_one_sentence_and_nothing_is_written(options, words, tmp_path, capsys):
    assert fit(table(tmp_path), tmp_path / "run", *options) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.startswith("Error: ")
    assert said.count("\n") == 1
    assert not (tmp_path / "run").exists()
