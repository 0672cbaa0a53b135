from __future__ import annotations

import keras
import numpy as np
import pytest
from sklearn.datasets import load_digits

from tfp_flowvae import models, networks
from tfp_flowvae.flows import make_flow

IMAGE, D, HIDDEN = (8, 8, 1), 4, 16


@pytest.fixture(autouse=True)
def _same_draws():
    keras.utils.set_random_seed(0)


@pytest.fixture
def mixed_bfloat16():
    previous = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    yield
    keras.config.set_dtype_policy(previous)


@pytest.fixture(scope="session")
def digits():
    """256 binary 8 x 8 images."""
    images = load_digits().images[:256, :, :, None]
    return (images >= 8).astype(np.float32)


@pytest.fixture
def stir():
    """A function that moves every weight of a layer away from its start."""

    def move(layer, scale=0.2, seed=0):
        rng = np.random.default_rng(seed)
        for weight in layer.trainable_weights:
            weight.assign_add((scale * rng.normal(size=weight.shape)).astype(weight.dtype))
        return layer

    return move


@pytest.fixture
def make_vae(small_spec):
    """A function that builds a small FlowVAE from the names or specs of a flow and a prior.

    A part given as `encoder`, `posterior_layer`, `prior_layer` or `decoder` is taken as it is.
    """

    def make(flow="none", prior="none", image_shape=IMAGE, event_size=D, **parts):
        flow, prior = small_spec(flow), small_spec(prior)
        parts = {name.removesuffix("_layer"): part for name, part in parts.items()}
        defaults = {
            "encoder": lambda: networks.MLPEncoder(image_shape, hidden=(HIDDEN,)),
            "posterior": lambda: models.FlowPosterior(make_flow(flow, event_size, HIDDEN)),
            "prior": lambda: models.make_prior(prior, event_size, image_shape),
            "decoder": lambda: networks.MLPDecoder(image_shape, event_size, hidden=(HIDDEN,)),
        }
        built = {name: parts.pop(name, None) or default() for name, default in defaults.items()}
        return models.FlowVAE(**built, **parts)

    return make
