"""The floor: the same maths as a hand-written XLA loop, without Keras and without TFP.

Weights, Adam's moments and the sum of the losses are carried through a `tf.while_loop` over the
steps of an epoch, in one program; batches are gathered inside it from the resident uint8 images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from training_cases import (
    BATCH,
    COUPLINGS,
    LATENT,
    LAYERS,
    LENGTH,
    MADE_HIDDEN,
    PIXELS,
    RATE,
    Job,
    made_masks,
    shapes,
    starting_weights,
)
from training_workers import Turns

Weights = Mapping[str, tf.Tensor]
# How each posterior and each prior goes on: a flow's value and log-det of z `[B, D]`.
Flow = Callable[[Weights, tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor | float]]

_BOUND = 3.0  # of log-scales
_UNIT = math.log(math.e - 1.0)  # its softplus is 1
_LOG_2PI = math.log(2.0 * math.pi)
_BETA_1, _BETA_2, _EPSILON = 0.9, 0.999, 1e-7


def linear(weights: Weights, name: str, x: tf.Tensor) -> tf.Tensor:
    """x W + b."""
    return x @ weights[name] + weights[f"{name}_b"]


def _bounded(raw: tf.Tensor) -> tf.Tensor:
    return _BOUND * tf.tanh(raw / _BOUND)


def iaf(weights: Weights, z: tf.Tensor, features: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """z <- (z - m) / exp(s), with m and s from a masked network of z and the features."""
    log_det = tf.zeros([BATCH])
    for k in range(LAYERS):
        mask_in, mask_out = made_masks(k)
        context = features @ weights[f"made{k}_context"]
        hidden = z @ (weights[f"made{k}_in"] * mask_in) + weights[f"made{k}_in_b"]
        hidden = tf.nn.elu(hidden + context[:, :MADE_HIDDEN])
        out = hidden @ (weights[f"made{k}_out"] * mask_out) + weights[f"made{k}_out_b"]
        shift, raw = tf.split(out + context[:, MADE_HIDDEN:], 2, axis=-1)
        log_scale = _bounded(raw)
        z = (z - shift) * tf.exp(-log_scale)
        log_det -= tf.reduce_sum(log_scale, axis=-1)
    return z, log_det


def planar(weights: Weights, z: tf.Tensor, features: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """z <- z + u^ tanh(w.z + b), the parameters of every step from the features."""
    out = linear(weights, "flow", features)
    size = LENGTH * LATENT
    u = tf.reshape(out[:, :size], [-1, LENGTH, LATENT])
    w = tf.reshape(out[:, size : 2 * size], [-1, LENGTH, LATENT])
    b = out[:, 2 * size :]
    product = tf.reduce_sum(u * w, axis=-1)
    inner = tf.math.softplus(product + _UNIT) - 1.0  # w.u^ > -1
    u += ((inner - product) / tf.reduce_sum(w * w, axis=-1))[..., tf.newaxis] * w
    log_det = tf.zeros([BATCH])
    for k in range(LENGTH):
        h = tf.tanh(tf.reduce_sum(w[:, k] * z, axis=-1) + b[:, k])
        z += u[:, k] * h[:, tf.newaxis]
        log_det += tf.math.log1p(inner[:, k] * (1.0 - h * h))
    return z, log_det


def householder(weights: Weights, z: tf.Tensor, features: tf.Tensor) -> tuple[tf.Tensor, float]:
    """z <- z - V' L^-1 V z, the mirrors V of unit length from the features (compact WY form)."""
    mirrors = tf.reshape(linear(weights, "flow", features), [-1, LENGTH, LATENT])
    mirrors *= tf.math.rsqrt(tf.reduce_sum(mirrors * mirrors, axis=-1, keepdims=True))
    gram = tf.matmul(mirrors, mirrors, transpose_b=True)
    strictly = np.tri(LENGTH, k=-1, dtype=np.float32)
    lower = gram * strictly + 0.5 * np.eye(LENGTH, dtype=np.float32)
    inner = tf.matmul(mirrors, z[..., tf.newaxis])
    solved = tf.linalg.triangular_solve(lower, inner)
    return z - tf.matmul(mirrors, solved, transpose_a=True)[..., 0], 0.0


def realnvp_noise(weights: Weights, z: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """From z to the prior's standard normal, through couplings that move one half each."""
    log_det, halves = tf.zeros([BATCH]), tf.split(z, 2, axis=-1)
    for k in reversed(range(COUPLINGS)):
        kept, moved = halves[k % 2], halves[1 - k % 2]
        hidden = tf.nn.elu(linear(weights, f"mlp{k}_0", kept))
        hidden = tf.nn.elu(linear(weights, f"mlp{k}_1", hidden))
        shift, raw = tf.split(linear(weights, f"mlp{k}_2", hidden), 2, axis=-1)
        log_scale = _bounded(raw)
        halves[1 - k % 2] = (moved - shift) * tf.exp(-log_scale)
        log_det -= tf.reduce_sum(log_scale, axis=-1)
    return tf.concat(halves, axis=-1), log_det


_POSTERIORS: Mapping[str, Flow] = {"iaf": iaf, "planar": planar, "householder": householder}


def elbo(case: str, weights: Weights, x: tf.Tensor, noise: tf.Tensor) -> tf.Tensor:
    """log p(x|z) + log p(z) - log q(z|x), `[B]`, for x `[B, 784]` and noise `[B, D]`."""
    features = tf.nn.elu(linear(weights, "enc0", x))
    features = tf.nn.elu(linear(weights, "enc1", features))
    loc, raw = tf.split(linear(weights, "head", features), 2, axis=-1)
    scale = tf.math.softplus(raw + _UNIT)
    z = loc + scale * noise
    log_posterior = _normal(noise) - tf.reduce_sum(tf.math.log(scale), axis=-1)
    if case in _POSTERIORS:
        z, log_det = _POSTERIORS[case](weights, z, features)
        log_posterior -= log_det
    if case == "realnvp-prior":
        unit, log_det = realnvp_noise(weights, z)
        log_prior = _normal(unit) + log_det
    else:
        log_prior = _normal(z)
    hidden = tf.nn.elu(linear(weights, "dec0", z))
    hidden = tf.nn.elu(linear(weights, "dec1", hidden))
    logits = linear(weights, "dec2", hidden)
    log_likelihood = tf.reduce_sum(x * logits - tf.math.softplus(logits), axis=-1)
    return log_likelihood + log_prior - log_posterior


def _normal(z: tf.Tensor) -> tf.Tensor:
    return -0.5 * (tf.reduce_sum(z * z, axis=-1) + LATENT * _LOG_2PI)


def program(case: str, variables: list[tf.Variable]) -> Callable[..., tf.Tensor]:
    """The compiled epoch: from images, order `[S, B]`, a seed and the step to the mean loss."""
    names = list(shapes(case))

    def gradients(weights: list[tf.Tensor], x: tf.Tensor, noise: tf.Tensor) -> tuple[Any, Any]:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(weights)
            named = dict(zip(names, weights, strict=True))
            loss = -tf.reduce_mean(elbo(case, named, x, noise))
        return loss, tape.gradient(loss, weights)

    @tf.function(jit_compile=True, autograph=False)
    def epoch(images: tf.Tensor, order: tf.Tensor, seed: tf.Tensor, done: tf.Tensor) -> tf.Tensor:
        steps = order.shape[0]

        def body(i: tf.Tensor, total: tf.Tensor, *state: tf.Tensor) -> tuple[tf.Tensor, ...]:
            weights, first, second = (list(state[n::3]) for n in range(3))
            x = tf.cast(tf.gather(images, order[i]), tf.float32)
            noise = tf.random.stateless_normal([BATCH, LATENT], tf.stack([seed, i]))
            loss, slopes = gradients(weights, x, noise)
            t = tf.cast(done + i + 1, tf.float32)
            rate = RATE * tf.sqrt(1.0 - _BETA_2**t) / (1.0 - _BETA_1**t)
            updated = []
            for w, m, v, g in zip(weights, first, second, slopes, strict=True):
                m += (1.0 - _BETA_1) * (g - m)
                v += (1.0 - _BETA_2) * (g * g - v)
                updated += [w - rate * m / (tf.sqrt(v) + _EPSILON), m, v]
            return i + 1, total + loss, *updated

        start = (tf.constant(0), tf.constant(0.0), *(v.read_value() for v in variables))
        _, total, *state = tf.while_loop(
            lambda i, *_: i < steps, body, start, maximum_iterations=steps
        )
        for variable, value in zip(variables, state, strict=True):
            variable.assign(value)
        return total / steps

    return epoch


def train(job: Job, turns: Turns) -> None:
    """A contender: an epoch of the loop in each turn."""
    images = tf.constant(job.images("train").reshape(-1, PIXELS))
    variables: list[tf.Variable] = []
    for value in starting_weights(job.case).values():
        variables += [tf.Variable(value), *(tf.Variable(tf.zeros_like(value)) for _ in range(2))]
    run, rng = program(job.case, variables), np.random.default_rng(0)
    epochs = 0

    def epoch() -> float:
        nonlocal epochs
        order = rng.permutation(len(images)).astype(np.int32).reshape(-1, BATCH)
        done = tf.constant(epochs * len(order))
        loss = run(images, tf.constant(order), tf.constant(epochs), done)
        epochs += 1
        return float(loss)

    turns.ready(sum(math.prod(shape) for shape in shapes(job.case).values()))
    turns.take(epoch)
