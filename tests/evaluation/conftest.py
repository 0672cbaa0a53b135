from __future__ import annotations

from dataclasses import dataclass

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flowvae import FlowVAE
from tfp_flowvae.distributions.normal import UNIT_SCALE
from tfp_flowvae.likelihoods.base import Likelihood

tfd = tfp.distributions

SCALE = 0.7
IMAGE = (2, 3, 1)


@dataclass(frozen=True)
class FixedGaussian(Likelihood):
    """x|z ~ N(output, SCALE^2 I)."""

    def distribution(self, output):
        return tfd.Independent(tfd.Normal(output, SCALE), reinterpreted_batch_ndims=3)

    def mean(self, output):
        return output


class LinearGaussian:
    """z ~ N(0, I), x|z ~ N(W z + b, s^2 I): evidence and posterior in closed form, in float64.

    The encoder is linear and has 2 D features: the mean and the raw scale of the posterior's base.

    Attributes:
      model: The FlowVAE.
      precision: Lambda = I + W^T W / s^2, of the posterior.
    """

    def __init__(self, posterior="none", latent_size=2, image_shape=IMAGE):
        keras.utils.set_random_seed(0)
        self.image_shape, size = image_shape, int(np.prod(image_shape))
        self.encoder, self.decoder = keras.layers.Dense(2 * latent_size), keras.layers.Dense(size)
        self.model = FlowVAE(
            image_shape=image_shape,
            latent_size=latent_size,
            encoder=keras.Sequential([keras.layers.Flatten(), self.encoder]),
            posterior=posterior,
            decoder=keras.Sequential([self.decoder, keras.layers.Reshape(image_shape)]),
            likelihood=FixedGaussian(),
        )
        rng = np.random.default_rng(1)
        w = 0.5 * rng.normal(size=(latent_size, size))
        w[1:] += w[0]  # so that the posterior is correlated
        self.decoder.set_weights([w, rng.normal(size=size)])
        self.w, self.b = (np.asarray(v, np.float64) for v in self.decoder.get_weights())
        self.precision = np.eye(latent_size) + self.w @ self.w.T / SCALE**2
        self.covariance = np.linalg.inv(self.precision)
        self.best_scale = np.diag(self.precision) ** -0.5
        # x -> E[z|x] = (x - b) `gain`
        self.gain = self.w.T @ self.covariance / SCALE**2
        base = self.model.posterior_layer.base
        eye, zero = np.eye(latent_size), np.zeros((latent_size, latent_size))
        base._loc.set_weights([np.concatenate([eye, zero]), np.zeros(latent_size)])
        base._raw_scale.set_weights([np.concatenate([zero, eye]), np.zeros(latent_size)])
        self.set_encoder(np.zeros(latent_size), self.best_scale)

    def set_encoder(self, shift, scale):
        """Gives the base of q(z|x) the mean E[z|x] + shift and the scale."""
        raw = np.log(np.expm1(scale)) - UNIT_SCALE
        kernel = np.concatenate([self.gain, np.zeros_like(self.gain)], axis=1)
        bias = np.concatenate([shift - self.b @ self.gain, raw])
        self.encoder.set_weights([kernel, bias])

    def images(self, count, seed=0):
        """Draws from p(x), `[N, H, W, C]`."""
        rng = np.random.default_rng(seed)
        z = rng.normal(size=(count, len(self.w)))
        x = z @ self.w + self.b + SCALE * rng.normal(size=(count, len(self.b)))
        return x.reshape(count, *self.image_shape).astype(np.float32)

    def posterior_mean(self, x):
        """E[z|x], `[N, D]`."""
        return (x.reshape(len(x), -1).astype(np.float64) - self.b) @ self.gain

    def nll(self, x):
        """-log p(x), `[N]`."""
        covariance = self.w.T @ self.w + SCALE**2 * np.eye(len(self.b))
        off = x.reshape(len(x), -1).astype(np.float64) - self.b
        square = np.sum(off * np.linalg.solve(covariance, off.T).T, axis=1)
        return 0.5 * (square + np.linalg.slogdet(2 * np.pi * covariance)[1])

    def kl(self, shift, scale):
        """KL of N(E[z|x] + shift, diag(scale^2)) from the posterior; the same for every x."""
        log_det = np.linalg.slogdet(self.precision)[1] + 2 * np.sum(np.log(scale))
        trace = np.sum(np.diag(self.precision) * scale**2)
        return 0.5 * (trace - len(scale) - log_det + shift @ self.precision @ shift)


@pytest.fixture
def linear_gaussian():
    return LinearGaussian


@pytest.fixture
def identity_flow():
    """Sets every weight of a model's planar or IAF posterior flow to zero: the identity."""

    def still(model):
        for weight in model.posterior_layer.flow.trainable_weights:
            weight.assign(tf.zeros_like(weight))

    return still
