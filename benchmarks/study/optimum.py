"""What a family of posteriors can give at best: q fitted to each image by itself, no encoder.

The free energy of a flow VAE lies above -log p(x) because the family does not hold p(z|x), because
the encoder does not find the best member, and, in training, because the decoder adapts to both.
Here the decoder and the prior are those of a trained model, and the parameters of q are free for
every image: what remains is the first gap alone (Cremer et al. 2018,
https://arxiv.org/abs/1801.03558).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import tensorflow as tf

from tfp_flowvae import bijectors as fvb

Parameters = dict[str, tf.Tensor]
LogJoint = Callable[[tf.Tensor], tf.Tensor]
"""From z `[S, B, D]` to log p(x, z) `[S, B]` of the B images, in nats."""

_DRAWS, _EVALUATED, _AT_ONCE = 8, 1000, 50
_RATE, _DECAYS, _EPSILON = 5e-3, (0.9, 0.999), 1e-8


def _diagonal(size: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {}


def _below(size: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {"below": np.zeros([size, size])}


def _planar(length: int) -> Callable[[int, np.random.Generator], dict[str, np.ndarray]]:
    def start(size: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        w = rng.normal(size=[length, size]) / math.sqrt(size)
        return {"u": np.zeros([length, size]), "w": w, "b": np.zeros([length])}

    return start


def _householder(length: int) -> Callable[[int, np.random.Generator], dict[str, np.ndarray]]:
    def start(size: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        # In pairs that undo each other: the identity.
        return {"v": np.repeat(rng.normal(size=[length // 2, size]), 2, axis=0)}

    return start


FAMILIES: Mapping[str, Any] = MappingProxyType(
    {
        "diagonal": _diagonal,
        "householder:10": _householder(10),
        "full covariance": _below,
        "planar:2": _planar(2),
        "planar:10": _planar(10),
        "planar:40": _planar(40),
    }
)
"""By name, the starting values of what one image has beside the mean and deviations of a Gaussian.

Householder flows turn a Gaussian with a diagonal covariance: full covariance is their limit.
"""


def draw(parameters: Parameters, noise: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """z `[S, B, D]` and log q(z) `[S, B]` from standard normal noise `[S, B, D]`."""
    deviation = tf.exp(parameters["log_deviation"])
    constant = 0.5 * math.log(2 * math.pi)
    log_base = tf.reduce_sum(
        -0.5 * tf.square(noise) - constant - parameters["log_deviation"], axis=-1
    )
    z = deviation * noise
    if "below" in parameters:
        lower = tf.linalg.band_part(parameters["below"], -1, 0)
        lower = tf.linalg.set_diag(lower, tf.zeros_like(deviation))
        z += tf.einsum("bij,sbj->sbi", lower, noise)
    z += parameters["loc"]
    if "v" in parameters:
        bijector: Any = fvb.HouseholderFlow(parameters["v"])
    elif "u" in parameters:
        bijector = fvb.PlanarFlow(*(parameters[name] for name in ("u", "w", "b")))
    else:
        return z, log_base
    z, log_det = fvb.forward_and_log_det(bijector, z)
    return z, log_base - log_det


def fit(
    log_joint: LogJoint,
    family: str,
    loc: np.ndarray,
    deviation: np.ndarray,
    steps: int = 3000,
    seed: int = 0,
) -> np.ndarray:
    """The least free energy of each image in a family, found by Adam.

    Args:
      log_joint: Of the B images.
      family: One of `FAMILIES`.
      loc: `[B, D]`, where the mean of the Gaussian starts.
      deviation: `[B, D]`, the same of its deviations.
      steps: Of the optimizer, its rate decaying to 0.
      seed: Of starting values and draws.

    Returns:
      `[B]` in nats, by 1000 fresh draws.
    """
    count, size = loc.shape
    extra = FAMILIES[family](size, np.random.default_rng(seed))
    values = {k: np.broadcast_to(v, [count, *v.shape]) for k, v in extra.items()}
    values |= {"loc": loc, "log_deviation": np.log(deviation)}
    parameters = {k: tf.constant(v, tf.float32) for k, v in values.items()}

    def free_energy(parameters: Parameters, draws: int, seed: tf.Tensor) -> tf.Tensor:
        noise = tf.random.stateless_normal([draws, count, size], seed)
        z, log_q = draw(parameters, noise)
        return tf.reduce_mean(log_q - log_joint(z), axis=0)

    @tf.function(jit_compile=True, autograph=False)
    def step(parameters: Parameters, moments: Parameters, squares: Parameters, i: tf.Tensor) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(parameters)
            loss = tf.reduce_sum(free_energy(parameters, _DRAWS, tf.stack([seed, i])))
        gradients = tape.gradient(loss, parameters)
        t, (slow, slower) = tf.cast(i + 1, tf.float32), _DECAYS
        rate = 0.5 * _RATE * (1.0 + tf.cos(math.pi * t / steps))
        moments = {k: slow * moments[k] + (1 - slow) * g for k, g in gradients.items()}
        squares = {k: slower * squares[k] + (1 - slower) * g * g for k, g in gradients.items()}
        scale = rate * tf.sqrt(1 - slower**t) / (1 - slow**t)
        parameters = {
            k: value - scale * moments[k] / (tf.sqrt(squares[k]) + _EPSILON)
            for k, value in parameters.items()
        }
        return parameters, moments, squares

    moments = {k: tf.zeros_like(v) for k, v in parameters.items()}
    squares = dict(moments)
    for i in range(steps):
        parameters, moments, squares = step(parameters, moments, squares, tf.constant(i))
    evaluate = tf.function(free_energy, jit_compile=True, autograph=False)
    found = [
        evaluate(parameters, _AT_ONCE, tf.constant([seed + 1, i])).numpy()
        for i in range(_EVALUATED // _AT_ONCE)
    ]
    return np.mean(found, axis=0).astype(np.float64)
