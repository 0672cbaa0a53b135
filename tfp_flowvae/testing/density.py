"""The density that a bijector gives its image integrates to one."""

from __future__ import annotations

import math
import warnings

import numpy as np
import tensorflow as tf

from tfp_flowvae.errors import UserError
from tfp_flowvae.testing.subject import Subject, event_of, fresh, sides

MAX_SIZE = 3
"""Numbers in an event up to which importance sampling is worth its noise."""

SAMPLES = 8192
KERNELS = 128
DEGREES = 3.0
STANDARD_ERRORS = 5.0
FLOOR = 2e-3
"""Allowed on top of the statistical error, for rounding."""


def density(subject: Subject) -> None:
    """The integral over y of p(f^-1(y)) |det df^-1/dy| is 1.

    The proposal is a mixture of Student t kernels around images of samples from p. It does not
    use the bijector's log-det, so that an error common to both log-dets is found. Points that do
    not come back from `forward(inverse(y))` are outside the codomain and have density 0.

    Left out for events of more than three numbers and, unless the user gives the base p, where
    the domain is not all of R^D: where standard normal points do not map to finite ones and
    back.
    """
    size = int(np.prod(event_of(subject.x, subject.event_ndims)))
    size_y = int(np.prod(event_of(subject.y, subject.sides[0].out_ndims)))
    if subject.base is None and (size > MAX_SIZE or size_y != size):
        return
    if size > MAX_SIZE or size_y != size:
        raise UserError(
            f"The density is integrated for events of up to {MAX_SIZE} numbers that stay as many;"
            f" pass skip=('density',). Received: {size} numbers that become {size_y}."
        )
    rng = np.random.default_rng(subject.seed)
    points = _base_samples(subject, rng)
    images = subject.sides[0].apply(fresh(points))
    if subject.base is None and not _comes_back(subject, points, images):
        return
    if not np.isfinite(images.numpy()).all():
        raise AssertionError("forward is not finite on samples of the base given")
    y_event = event_of(images, subject.sides[0].out_ndims)
    batch = subject.samples_shape(SAMPLES)
    flat = images.numpy().astype(np.float64).reshape([*batch, size])
    proposals, log_q = _student_mixture(flat, rng)
    y = tf.constant(proposals.reshape([*batch, *y_event]), subject.dtype)
    weights = np.exp(_log_density(subject, y) - log_q)
    _assert_one(weights)


def _base_samples(subject: Subject, rng: np.random.Generator) -> tf.Tensor:
    shape = subject.samples_shape(SAMPLES)
    event = event_of(subject.x, subject.event_ndims)
    if subject.base is None:
        return tf.constant(rng.standard_normal([*shape, *event]), subject.dtype)
    got = subject.base.batch_shape.as_list() + subject.base.event_shape.as_list()
    if subject.base.batch_shape.rank != 0 or got != event:
        raise UserError(
            f"base must have batch shape () and x's event shape {tuple(event)}."
            f" Received: base={subject.base}."
        )
    return tf.cast(subject.base.sample(shape, seed=[subject.seed, 0]), subject.dtype)


def _comes_back(subject: Subject, points: tf.Tensor, images: tf.Tensor) -> bool:
    back = subject.sides[1].apply(fresh(images)).numpy()
    near = np.abs(back - points.numpy()) <= 1e-2 * np.maximum(1.0, np.abs(points.numpy()))
    return bool(np.isfinite(images.numpy()).all() and np.mean(near) > 0.99)


def _log_density(subject: Subject, y: tf.Tensor) -> np.ndarray:
    """The sum log p(f^-1(y)) + log |det df^-1/dy|, `[N, ...]` in nats; -inf outside the image."""
    forward, inverse = sides(subject.bijector, subject.event_ndims)
    x = inverse.apply(fresh(y))
    axes = tuple(range(-inverse.in_ndims, 0))
    back = forward.apply(fresh(x)).numpy()
    near = np.abs(back - y.numpy()) <= 1e-2 * np.maximum(1.0, np.abs(y.numpy()))
    inside = np.all(near, axis=axes) if axes else near
    log_det = np.broadcast_to(inverse.log_det(fresh(y)).numpy(), inside.shape)
    if subject.base is None:
        axes = tuple(range(-inverse.out_ndims, 0))
        parts = -0.5 * np.square(x.numpy().astype(np.float64)) - 0.5 * math.log(2 * math.pi)
        log_p = np.sum(parts, axis=axes) if axes else parts
    else:
        log_p = subject.base.log_prob(tf.cast(x, subject.base.dtype)).numpy()
    total = log_p + log_det
    return np.where(inside & np.isfinite(total), total, -np.inf)


def _student_mixture(data: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draws from t kernels around `data` and one wide t, and their log density.

    Args:
      data: `[N, ..., D]`, a mixture for each member of the batch.
      rng: Source of the draws.

    Returns:
      Draws of the shape of `data`, and their log density `[N, ...]`.
    """
    count, size = data.shape[0], data.shape[-1]
    low, middle, high = np.quantile(data, (0.01, 0.5, 0.99), axis=0)
    body = np.clip(data, middle + 2 * (low - middle), middle + 2 * (high - middle))
    centred = body - body.mean(0)
    covariance = np.einsum("n...i,n...j->...ij", centred, centred) / count
    spread = np.trace(covariance, axis1=-2, axis2=-1)[..., None, None]
    root = np.linalg.cholesky(covariance + (1e-9 * spread + 1e-30) * np.eye(size))
    white = np.einsum("...ij,n...j->n...i", np.linalg.inv(root), data - body.mean(0))

    centres = np.concatenate([white[:KERNELS], np.zeros_like(white[:1])])
    widths = np.full(KERNELS + 1, 0.8 * KERNELS ** (-1.0 / (size + 4)))
    widths[-1] = 2.0
    shares = np.full(KERNELS + 1, 0.8 / KERNELS)
    shares[-1] = 0.2

    kernel = rng.choice(KERNELS + 1, size=count, p=shares)
    normal = rng.standard_normal(white.shape)
    chi = np.sqrt(rng.chisquare(DEGREES, (*white.shape[:-1], 1)) / DEGREES)
    column = (count,) + (1,) * (white.ndim - 1)
    draws = centres[kernel] + widths[kernel].reshape(column) * normal / chi

    log_terms = np.stack(
        [
            math.log(share) + _student_log_prob((draws - centre) / width) - size * math.log(width)
            for share, width, centre in zip(shares, widths, centres, strict=True)
        ]
    )
    log_q = np.logaddexp.reduce(log_terms, axis=0) - np.linalg.slogdet(root)[1]
    return np.einsum("...ij,n...j->n...i", root, draws) + body.mean(0), log_q


def _student_log_prob(z: np.ndarray) -> np.ndarray:
    """The standard multivariate t with `DEGREES` degrees of freedom, `[..., D]` to `[...]`."""
    size = z.shape[-1]
    constant = math.lgamma((DEGREES + size) / 2) - math.lgamma(DEGREES / 2)
    constant -= size / 2 * math.log(DEGREES * math.pi)
    return constant - (DEGREES + size) / 2 * np.log1p(np.sum(z * z, -1) / DEGREES)


def _assert_one(weights: np.ndarray) -> None:
    """Compares the mean of the importance weights `[N, ...]` with 1, by its own standard error."""
    integral = weights.mean(0)
    error = weights.std(0) / math.sqrt(len(weights))
    largest = weights.max(0) / np.maximum(weights.sum(0), 1e-300)
    if np.any(error > 0.1) or np.any(largest > 0.1):
        warnings.warn(
            "check_bijector could not judge the density: its integral is"
            f" {np.ravel(integral)[np.argmax(error)]:.3g} with a standard error of"
            f" {np.max(error):.2g}; narrow the bijector or pass skip=('density',)",
            UserWarning,
            stacklevel=2,
        )
        return
    allowed = STANDARD_ERRORS * error + FLOOR
    off = np.abs(integral - 1.0)
    if np.any(off > allowed):
        worst = np.unravel_index(np.argmax(off / allowed), off.shape)
        raise AssertionError(
            "the integral of the density over the codomain, batch member"
            f" {[int(i) for i in worst]}: got {integral[worst]:.4g}, wanted 1, off by"
            f" {off[worst]:.3g} where {allowed[worst]:.3g} is allowed"
            f" ({STANDARD_ERRORS:g} standard errors of {len(weights)} importance samples)"
        )
