"""The free energy of a set: a mean over all images, the same however they are stored."""

import keras
import numpy as np
import pytest

from tfp_flowvae import FlowVAE
from tfp_flowvae.evaluation import free_energy as module


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    shape = (3, 4, 1)
    return FlowVAE(
        image_shape=shape, latent_size=3, encoder="mlp:8", posterior="planar:2", decoder="mlp:8"
    )


def test_free_energy_is_the_mean_over_seeded_batches(model, monkeypatch):
    monkeypatch.setattr(module, "EVALUATION_BATCH", 4)
    images = np.random.default_rng(1).integers(0, 2, (10, 3, 4, 1)).astype(np.uint8)
    got = module.free_energy(model, images, levels=2, seed=7)
    elbos = [
        model.elbo(images[4 * i : 4 * i + 4].astype(np.float32), seed=7 + i).numpy()
        for i in range(3)
    ]
    # Two programs of the same operations in float32, in which a number passes through sums over 12
    # pixels, 8 and 8 units and 12 pixels, each term rounded once.
    tolerance = (12 + 8 + 8 + 12) * float(np.finfo(np.float32).eps)
    mean = -np.concatenate(elbos).mean(dtype=np.float64)
    assert got["free_energy"] == pytest.approx(mean, rel=tolerance)
    assert got["free_energy"] == got["kl"] - got["log_likelihood"]


def test_grey_levels_and_floats_give_the_same_free_energy(model):
    levels = np.random.default_rng(1).integers(0, 17, (6, 3, 4, 1)).astype(np.uint8)
    stored = module.free_energy(model, levels, levels=17, seed=0)
    floats = module.free_energy(model, levels.astype(np.float32) / 16, levels=None, seed=0)
    assert stored == floats  # k / 16 is exact
