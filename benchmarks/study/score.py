"""The figures of a finished run, from its folder: what knows the package's models.

What the exported SavedModel can answer is asked of it; the importance-weighted likelihood, which it
cannot, of the Keras model.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

import tfp_flowvae
from tfp_flowvae.data import binarize_fixed, load_images

from .holes import holes
from .optimum import FAMILIES, fit
from .unconstrained import register

# As `train.py` takes them for its own free energies.
BATCH = 1000
NLL_SAMPLES = 5000
# Images whose likelihoods are kept as soon as they are there.
CHUNK = 2000
ACTIVE_VARIANCE = 0.01
_ACTIVE_DRAWS = 32
# Of the history: what the figures show.
_COLUMNS = (
    "elbo",
    "kl",
    "val_elbo",
    "val_kl",
    "log_base",
    "log_base_std",
    "log_posterior",
    "log_posterior_std",
    "log_det",
    "log_det_std",
    "log_prior",
    "log_prior_std",
    "gradient_norm",
    "seconds",
)
_ALL_UNTIL, _EVERY = 20, 5


def score(folder: Path, scratch: Path, test: bool) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The result of a run, all but its machine, and the values of each test image.

    Args:
      folder: The run's folder, as `train.py` has written it.
      scratch: A folder for likelihoods that are there already, for when this is cut.
      test: Whether to look at the test images.
    """
    config = json.loads((folder / "config.json").read_text())
    metrics = json.loads((folder / "metrics.json").read_text())
    record = json.loads((folder / "run.json").read_text())
    splits = load_images(config["dataset"], config["data_dir"])
    train, valid, tested = (
        _unit(*binarize_fixed(getattr(splits, name), splits.levels, config["binarization"], name))
        for name in ("train", "valid", "test")
    )
    saved = tf.saved_model.load(str(folder))
    result = {
        "flow": config["flow"],
        "prior": config["prior"],
        "config": config,
        "seed": config["seed"],
        "epochs": record["epochs"],
        "seconds": record["seconds"],
        "versions": {"python": record["python"], **record["packages"]},
        "train_free_energy": float(np.mean(_free_energies(saved, train, config["seed"]))),
        "valid_free_energy": metrics["valid_free_energy"],
        "test_free_energy": None,
        "test_nll": None,
        "test_nll_se": None,
        "kl": None,
        "active_units": active_units(saved, valid),
        "diagnostics": diagnostics(folder / "history.csv"),
        "failed": None,
    }
    if not test:
        return result, {}
    energies = _free_energies(saved, tested, config["seed"])
    # The export and `train.py` draw the same noise; what differs is the order of float32 sums.
    if abs(np.mean(energies) - metrics["test_free_energy"]) > 1e-3:
        raise AssertionError(
            f"The export's free energy, {np.mean(energies)}, is not that of metrics.json, "
            f"{metrics['test_free_energy']}."
        )
    register()
    model = tfp_flowvae.load(folder)
    result["diagnostics"]["weights"] = int(sum(np.prod(w.shape) for w in model.trainable_weights))
    result["diagnostics"] |= _holes(saved, model, valid)
    nll = _likelihoods(model, tested, config["seed"], scratch)
    result |= {
        "test_free_energy": metrics["test_free_energy"],
        "test_nll": float(np.mean(nll)),
        "test_nll_se": float(np.std(nll, ddof=1) / np.sqrt(len(nll))),
        "kl": metrics["test_kl"],
    }
    return result, {"free_energy": energies, "nll": nll}


def failure(folder: Path, why: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The result of a run whose loss did not stay finite, and no values of images."""
    config = json.loads((folder / "config.json").read_text())
    known = {"flow": config["flow"], "prior": config["prior"], "seed": config["seed"]}
    unknown = ("epochs", "seconds", "versions", "active_units", "diagnostics", "kl", "test_nll_se")
    figures = ("train_free_energy", "valid_free_energy", "test_free_energy", "test_nll")
    return {**known, "config": config, **dict.fromkeys((*unknown, *figures)), "failed": why}, {}


def _unit(images: np.ndarray, levels: int | None) -> np.ndarray:
    return (images if levels is None else images / (levels - 1)).astype(np.float32)


def _free_energies(saved: Any, images: np.ndarray, seed: int) -> np.ndarray:
    """-ELBO of each image by one sample, with the noise of `train.py`'s own figure."""
    starts = range(0, len(images), BATCH)
    parts = [
        -saved.elbo(tf.constant(images[start : start + BATCH]), seed + i)["elbo"].numpy()
        for i, start in enumerate(starts)
    ]
    return np.concatenate(parts).astype(np.float64)


def active_units(saved: Any, images: np.ndarray) -> int:
    """How many dimensions of z have Var_x(E[z|x]) > 0.01 (Burda et al. 2016, section 5.1).

    E[z|x] is the mean m of S draws. Over images, Var(m) = Var_x(E[z|x]) + E_x[Var(z|x)] / S, and
    the second term, estimated from the draws of each image, is subtracted.
    """
    starts = range(0, len(images), BATCH)
    means, within = [], []
    for i, start in enumerate(starts):
        x = tf.constant(images[start : start + BATCH])
        total, squares = np.zeros(0), np.zeros(0)
        for draw in range(_ACTIVE_DRAWS):
            z = saved.encode(x, 1_000_000 + i * _ACTIVE_DRAWS + draw)["z"].numpy()
            z = z.astype(np.float64)
            total, squares = (z, z * z) if draw == 0 else (total + z, squares + z * z)
        mean = total / _ACTIVE_DRAWS
        means.append(mean)
        within.append((squares - _ACTIVE_DRAWS * mean**2) / (_ACTIVE_DRAWS - 1))
    noise = np.mean(np.concatenate(within), axis=0) / _ACTIVE_DRAWS
    variances = np.var(np.concatenate(means), axis=0, ddof=1) - noise
    return int(np.sum(variances > ACTIVE_VARIANCE))


def _holes(saved: Any, model: Any, images: np.ndarray) -> dict[str, Any]:
    encoded, sampled = [], []
    for i, start in enumerate(range(0, len(images), BATCH)):
        x = tf.constant(images[start : start + BATCH])
        encoded.append(saved.encode(x, 2_000_000 + i)["z"].numpy())
        sampled.append(model.prior().sample(len(x), seed=[2_000_000, i]).numpy())
    return holes(
        np.concatenate(encoded),
        np.concatenate(sampled),
        lambda z: saved.log_prior(tf.constant(z))["log_prior"].numpy(),
    )


def _likelihoods(model: Any, images: np.ndarray, seed: int, scratch: Path) -> np.ndarray:
    """-log p(x) of each image by 5000 samples, those kept from an earlier try taken as they are."""
    scratch.mkdir(parents=True, exist_ok=True)
    found = []
    for start in range(0, len(images), CHUNK):
        kept = scratch / f"nll-{start}.npy"
        if not kept.exists():
            # Each image its own noise: the function counts batches from 0 in every call.
            chunk = images[start : start + CHUNK]
            values = model.nll(chunk, NLL_SAMPLES, seed=seed + 1000 * start)
            aside = scratch / "partial.npy"
            np.save(aside, values)
            aside.replace(kept)
        found.append(np.load(kept, allow_pickle=False))
    return np.concatenate(found)


def optima(folder: Path, images: int) -> dict[str, Any]:
    """What each family of posteriors gives at best under the decoder of a run without a flow.

    Args:
      folder: The run's folder, its posterior a Gaussian and its likelihood Bernoulli.
      images: How many of the first validation images to fit.

    Returns:
      `images`, and the free energies of each image: `encoder`, what the model's own posterior
      gives, and by family what is best in it; with `nll`, the importance-weighted estimate.
    """
    config = json.loads((folder / "config.json").read_text())
    splits = load_images(config["dataset"], config["data_dir"])
    valid, levels = binarize_fixed(splits.valid, splits.levels, config["binarization"], "valid")
    x, model = tf.constant(_unit(valid[:images], levels)), tfp_flowvae.load(folder)
    base = model.posterior(x).distribution

    def log_joint(z: tf.Tensor) -> tf.Tensor:
        return model.likelihood.log_prob(model._decode_parameters(z), x) + model.prior_layer(z)

    own = [model.elbo_terms(x, 50, seed=i).elbo.numpy().mean(axis=0) for i in range(20)]
    found = {
        "encoder": -np.mean(own, axis=0),
        "nll": model.nll(x, NLL_SAMPLES, seed=config["seed"]),
    }
    for family in FAMILIES:
        found[family] = fit(log_joint, family, base.mean().numpy(), base.stddev().numpy())
    rounded = {name: [round(float(v), 3) for v in values] for name, values in found.items()}
    return {"images": images, "free_energies": rounded}


def diagnostics(history: Path) -> dict[str, Any]:
    """Columns of the history: every epoch up to the 20th, then every fifth and the last."""
    with history.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    last = len(rows)
    kept = [row for i, row in enumerate(rows, 1) if i <= _ALL_UNTIL or i % _EVERY == 0 or i == last]
    found: dict[str, Any] = {"epoch": [int(row["epoch"]) for row in kept]}
    for name in _COLUMNS:
        if name in rows[0]:
            found[name] = [float(f"{float(row[name]):.5g}") for row in kept]
    return found
