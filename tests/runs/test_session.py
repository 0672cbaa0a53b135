"""Sessions with averaging, early stopping, clipping and other likelihoods."""

from __future__ import annotations

import csv
import json
import math
import re
import shlex

import numpy as np
import pytest

from tfp_flowvae.cli import main
from tfp_flowvae.data import ImageSplits, binarize_fixed, load_images
from tfp_flowvae.errors import UserError
from tfp_flowvae.runs import TrainConfig
from tfp_flowvae.runs.images import load_splits
from tfp_flowvae.runs.session import Session

EVERYTHING = """
train --flow householder:2+iaf:1,hidden=16 --base tril --prior vamp:5+realnvp:2,hidden=16
--likelihood logistic-mixture --components 2 --encoder gated-conv --decoder residual-mlp --hidden 20
--channels 4 6 --norm layer --latent-dim 4 --epochs 2 --optimizer adamax --schedule inverse-time
--clip-norm 0.5 --ema 0.9 --patience 5 --samples 2 --bound iwae --warmup cyclic --cycles 1
--tensorboard --verbose 0 --output run
"""


@pytest.fixture(scope="module")
def splits():
    """A few of the digits."""
    digits = load_images("digits")
    return ImageSplits(
        "digits", digits.train[:200], digits.valid[:100], digits.test[:100], digits.levels
    )


def _session(splits, **values):
    small = {
        "flow": "none",
        "prior": "none",
        "latent_dim": 4,
        "hidden": (8,),
        "jit": False,
        "diagnostics": False,
    }
    return Session(TrainConfig(**{**small, **values}), splits)


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("stream", [False, True], ids=["memory", "stream"])
def test_flattened_images_are_read_and_warnings_are_printed(stream, tmp_path, capsys):
    rows = np.random.default_rng(0).integers(0, 2, (30, 20), np.uint8)
    np.save(tmp_path / "rows.npy", rows)
    config = TrainConfig(dataset=str(tmp_path / "rows.npy"), image_shape=(4, 5, 1))
    config = TrainConfig.from_mapping(json.loads(config.to_json()), source="config.json")
    images = load_splits(config, tmp_path / "cache" if stream else None)
    assert images.image_shape == (4, 5, 1)
    *_, said = capsys.readouterr().err.splitlines()
    assert said.startswith("Warning: '")
    assert "no value but 0 and 1, so its images are read as black and white" in said


@pytest.mark.parametrize("ema", [None, 0.5], ids=["weights", "averages"])
def test_early_stopping_keeps_the_best_epoch(ema, splits):
    # At this learning rate the ELBO rises in the first epochs only.
    session = _session(
        splits, ema=ema, patience=2, epochs=20, learning_rate=0.4, schedule="constant", seed=1
    )
    session.fit(verbose=0)
    elbos = [row["val_elbo"] for row in session.history.rows]
    assert len(elbos) == int(np.argmax(elbos)) + 3 < 20
    kept = -session.evaluate()["valid_free_energy"]
    # The kept weights are the best and not the last ones, up to five standard errors of an ELBO
    # from one sample per image.
    images, _ = binarize_fixed(splits.valid, splits.levels, "dynamic", "valid")
    one, two = (session.model.elbo(images.astype(np.float32), seed=i).numpy() for i in (1, 2))
    noise = 5 * np.std(one - two) / np.sqrt(len(images))
    assert abs(kept - max(elbos)) < noise < max(elbos) - elbos[-1]


def test_evaluation_uses_the_averaged_weights(splits):
    moved = {}
    for ema in (None, 0.999):
        session = _session(splits, ema=ema, epochs=4, learning_rate=1e-3)
        start = session.model.get_weights()
        session.fit(verbose=0)
        weights = session.model.get_weights()
        moved[ema] = max(np.max(np.abs(a - b)) for a, b in zip(start, weights, strict=True))
    # Keras's average starts at the weights after the first of 8 steps. Adam moves them by at most
    # the rate, 1e-3, in that step, and by (1 - 0.9) / sqrt(1 - 0.999) = 3.2 times that in others.
    most = 1e-3 + (1 - 0.999**7) * 7 * 3.2e-3
    assert moved[0.999] < most < moved[None]


def test_reports_how_often_the_gradient_was_clipped(splits):
    session = _session(splits, clip_norm=1e-3, epochs=1)
    session.fit(verbose=0)
    assert session.history.clipped == 1.0
    session = _session(splits, clip_norm=1e6, epochs=1)
    session.fit(verbose=0)
    assert session.history.clipped == 0.0


def test_progress_is_a_line_an_epoch_and_the_rest_is_in_the_history(splits, capsys):
    session = _session(splits, epochs=2)
    session.fit(verbose=1)
    first, line, *_ = lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert first == "Epoch 1/2"
    names = re.findall(r"(\w+): ", line)
    assert names == ["loss", "elbo", "kl", "val_elbo"]
    assert len(line) < 80
    assert {"gradient_norm", "val_kl", *names} < set(session.history.rows[0])
    assert "clipped" not in session.history.rows[0]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("gaussian", marks=pytest.mark.slow),
        pytest.param("continuous-bernoulli", marks=pytest.mark.slow),
        "logistic-mixture",
    ],
)
def test_grey_levels_are_scored_in_bits_per_dimension(name, splits):
    session = _session(splits, likelihood=name, epochs=2, components=2)
    before = session.evaluate()
    session.fit(verbose=0)
    after = session.evaluate()
    for metrics in (before, after):
        assert metrics["test_bits_per_dimension"] == metrics["test_free_energy"] / 64 / math.log(2)
    # A code needs a positive number of bits, and training makes it shorter.
    assert 0.0 < after["test_bits_per_dimension"] < before["test_bits_per_dimension"]


def test_a_mixture_of_levels_needs_levels(splits):
    grey = ImageSplits(
        "grey", *(getattr(splits, k).astype(np.float32) / 16 for k in ("train", "valid", "test")),
        levels=None,
    )  # fmt: skip
    with pytest.raises(UserError, match="needs images with grey levels"):
        _session(grey, likelihood="logistic-mixture")


@pytest.mark.slow
def test_a_run_with_every_option(tmp_path, monkeypatch, capsys):
    pytest.importorskip("tensorboard")
    monkeypatch.chdir(tmp_path)
    arguments = shlex.split(EVERYTHING)
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "bits/dim" in printed
    assert "the gradient was clipped in" in printed
    assert list((tmp_path / "run" / "tensorboard").rglob("events.out*"))
    with (tmp_path / "run" / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2
    assert {"active_units", "log_prior_std", "base_kl_3"} <= set(rows[0])
    # The density of an IAF is too slow for a data set as small as this.
    assert "mutual_information" not in rows[0]
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert (
        main(["train", "--config", "run/config.json", "--output", "again", "--verbose", "0"]) == 0
    )
    assert json.loads((tmp_path / "again" / "metrics.json").read_text()) == metrics


def test_tensorboard_changes_no_number(splits, tmp_path):
    pytest.importorskip("tensorboard")
    found = {}
    for folder in (None, tmp_path):
        session = _session(splits, epochs=2)
        session.fit(verbose=0, tensorboard=folder)
        rows = [row | {"seconds": 0.0} for row in session.history.rows]
        found[folder] = rows, [weight.tobytes() for weight in session.model.get_weights()]
    assert found[None] == found[tmp_path]
    assert {path.name for path in tmp_path.iterdir()} == {"train", "validation", "test"}
    assert (tmp_path / "test" / "projector_config.pbtxt").is_file()
