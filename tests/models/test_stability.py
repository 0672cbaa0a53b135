"""Training stays finite: 20 epochs of the digits at the default rate, whatever the pair.

Without XLA, whose compilation would be most of the hours that this takes.
"""

from __future__ import annotations

import keras
import numpy as np
import pytest
from sklearn.datasets import load_digits

from tfp_flowvae import models
from tfp_flowvae.flows import FLOWS

pytestmark = pytest.mark.slow

D, HIDDEN = 16, 64
LONG = ("planar", "householder")


def _of_length(spec, length):
    def one(name):
        takes = name in FLOWS and "length" in FLOWS[name].options
        return f"{name}:{length}" if takes else name

    return "+".join(map(one, spec.split("+")))


def _losses(flow, prior):
    """The loss of each epoch, and the standard error of a difference of two, by the draws of z."""
    keras.utils.set_random_seed(0)
    images = (load_digits().images[:1200, :, :, None] >= 8).astype(np.float32)
    vae = models.FlowVAE(
        image_shape=(8, 8, 1),
        latent_size=D,
        encoder=f"mlp:{HIDDEN}",
        posterior=flow,
        prior=prior,
        decoder=f"mlp:{HIDDEN}",
        seed=0,
    )
    vae.adapt(images)
    vae.compile(keras.optimizers.Adam(1e-3), jit_compile=False)
    losses = vae.fit(images, batch_size=100, epochs=20, verbose=0).history["loss"]
    assert np.all(np.isfinite(losses))
    variance = np.var(vae.elbo_terms(images, 4, seed=0).elbo, axis=0)
    return losses, np.sqrt(2 * np.mean(variance) / len(images))


@pytest.mark.parametrize("length", [1, 10])
def test_every_pair(length, flow, prior):
    losses, error = _losses(_of_length(flow, length), _of_length(prior, length))
    assert losses[0] - losses[-1] > 5 * error


@pytest.mark.parametrize("name", LONG)
@pytest.mark.parametrize("side", ["posterior", "prior"])
def test_eighty_layers(name, side):
    spec = f"{name}:80"
    losses, error = _losses(*((spec, "none") if side == "posterior" else ("none", spec)))
    assert losses[0] - losses[-1] > 5 * error
