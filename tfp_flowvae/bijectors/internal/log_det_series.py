"""log det(I + J) for a contraction's Jacobian J: exactly, or from its power series.

    log det(I + J) = tr log(I + J) = sum_{k >= 1} (-1)^(k+1) / k tr(J^k)

with tr(A) = E[v^T A v] over probes v of random signs (Hutchinson 1990). The sum is cut after n
terms, or at a random N (Kahn's Russian roulette), its terms then weighted by 1 / P(N >= k), which
leaves no bias (Chen et al. 2019, equation 6).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import tensorflow as tf

from tfp_flowvae._typing import TensorLike
from tfp_flowvae.bijectors.internal.residual_net import ResidualNet

_ALGORITHM = "philox"  # TensorFlow's own choice differs between XLA and other modes


def exact(net: ResidualNet, slopes: Sequence[tf.Tensor]) -> tf.Tensor:
    """log det(I + J), `[...]`, from J itself; `slopes` as `net.linearize` gives them."""
    jacobian = net.transposed_jacobian(slopes)
    return _log_abs_det(jacobian + tf.eye(jacobian.shape[-1], dtype=jacobian.dtype))


@tf.custom_gradient
def _log_abs_det(matrix: tf.Tensor) -> tuple:
    # XLA has no LU decomposition, which tf.linalg.slogdet uses.
    diagonal = tf.linalg.diag_part(tf.linalg.qr(matrix)[1])

    def grad(upstream: tf.Tensor) -> tf.Tensor:
        return upstream[..., tf.newaxis, tf.newaxis] * tf.linalg.inv(matrix, adjoint=True)

    return tf.reduce_sum(tf.math.log(tf.abs(diagonal)), axis=-1), grad


def truncated(
    net: ResidualNet, slopes: Sequence[tf.Tensor], probes: tf.Tensor, terms: int
) -> tf.Tensor:
    """The first `terms` terms, `[...]`; `probes` is `[..., P, D]`, and P estimates are averaged."""
    total, tangents = tf.zeros_like(probes[..., 0]), probes
    for k in range(1, terms + 1):
        tangents = net.push(slopes, tangents)
        total += (-1.0) ** (k + 1) / k * tf.reduce_sum(tangents * probes, axis=-1)
    return tf.reduce_mean(total, axis=-1)


def roulette(
    net: ResidualNet,
    slopes: Sequence[tf.Tensor],
    probes: tf.Tensor,
    terms: int,
    survival: float,
    seed: tf.Tensor,
) -> tf.Tensor:
    """An unbiased estimate of the whole series whose gradient is unbiased too, `[...]`.

    `terms` terms are always there, each further one with probability `survival` after the one
    before. The gradient is estimated by the Neumann series of the same paper (equation 8),

        d log det(I + J) = E[ sum_{k >= 0} (-1)^k / P(N >= k + 1) v^T J^k dJ v ],

    in which only dJ is differentiated: memory does not grow with N. It is not the derivative of
    the estimate, but has the same expectation.
    """
    count = terms + _geometric(survival, seed)
    fixed = net.with_weights([tf.stop_gradient(w) for w in net.weights])
    fixed_slopes = [tf.stop_gradient(s) for s in slopes]

    def body(k: tf.Tensor, power: tf.Tensor, total: tf.Tensor, neumann: tf.Tensor) -> tuple:
        number = tf.cast(k, probes.dtype)
        extra = tf.maximum(number - terms, 0.0)
        sign = 1.0 - 2.0 * tf.cast((k + 1) % 2, probes.dtype)
        weight = sign * tf.pow(tf.constant(survival, probes.dtype), -extra)
        neumann += weight * power
        power = fixed.pull(fixed_slopes, power)
        total += weight / number * tf.reduce_sum(power * probes, axis=-1)
        return k + 1, power, total, neumann

    zeros = tf.zeros_like(probes)
    start = (tf.constant(1), probes, zeros[..., 0], zeros)
    _, _, total, neumann = tf.while_loop(lambda k, *_: k <= count, body, start)
    change = tf.reduce_sum(tf.stop_gradient(neumann) * net.push(slopes, probes), axis=-1)
    return tf.reduce_mean(tf.stop_gradient(total - change) + change, axis=-1)


def _geometric(survival: float, seed: tf.Tensor) -> tf.Tensor:
    """G with P(G >= k) = survival^k."""
    # In float64 whatever the dtype: the smallest uniform number cuts the distribution's tail off.
    uniform = tf.random.stateless_uniform([], seed, dtype=tf.float64, alg=_ALGORITHM)
    return tf.cast(tf.floor(tf.math.log(1.0 - uniform) / math.log(survival)), tf.int32)


def split_seed(seed: TensorLike) -> tuple[tf.Tensor, tf.Tensor]:
    """Two seeds of TensorFlow's stateless random functions from one integer or two."""
    seed = tf.convert_to_tensor(seed)
    pair = tf.stack([tf.zeros_like(seed), seed]) if seed.shape.rank == 0 else seed
    first, second = tf.unstack(tf.random.split(pair, 2, alg=_ALGORITHM))
    return first, second


def draw_probes(x: tf.Tensor, count: int, seed: tf.Tensor) -> tf.Tensor:
    """Random signs, `[..., count, D]` for x of `[..., D]`: other ones for every point."""
    shape = tf.concat([tf.shape(x)[:-1], [count], tf.shape(x)[-1:]], axis=0)
    bits = tf.random.stateless_uniform(
        shape, seed, minval=0, maxval=2, dtype=tf.int32, alg=_ALGORITHM
    )
    signs = tf.cast(2 * bits - 1, x.dtype)
    return tf.ensure_shape(signs, [*x.shape[:-1], count, x.shape[-1]])
