"""The contractive g of a residual flow: its value, its Jacobian products, its Lipschitz bound."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf

from tfp_flowvae.bijectors.internal import numerics

_SQUARINGS = 10


class Activation(NamedTuple):
    """A smooth elementwise function and its derivative, which lies in [-1, 1]."""

    value: Callable[[tf.Tensor], tf.Tensor]
    slope: Callable[[tf.Tensor], tf.Tensor]


ACTIVATIONS: dict[str, Activation] = {
    # The steepest slope of the swish t sigmoid(t) is 1.0998.
    "lipswish": Activation(
        lambda t: t * tf.sigmoid(t) / 1.1,
        lambda t: tf.sigmoid(t) * (1.0 + t * tf.sigmoid(-t)) / 1.1,
    ),
    "elu": Activation(tf.nn.elu, lambda t: tf.exp(tf.minimum(t, 0.0))),
    "sin": Activation(tf.sin, tf.cos),
    "tanh": Activation(tf.tanh, lambda t: 4.0 * tf.sigmoid(2.0 * t) * tf.sigmoid(-2.0 * t)),
}


class ResidualNet:
    """g(x) = W_L^T a(... a(W_1^T x + b_1) ...) + b_L with products by its Jacobian J, as formulas.

    Written out, J t and J^T c are ordinary differentiable operations on `[..., P, D]`: P vectors
    for each point, in one matrix product a layer.

    Args:
      kernels: W_l, `[..., in, out]`.
      biases: b_l, `[..., out]`.
      activation: The function a, between the layers but not after the last.
    """

    def __init__(
        self, kernels: Sequence[tf.Tensor], biases: Sequence[tf.Tensor], activation: Activation
    ) -> None:
        self.kernels = list(kernels)
        self.biases = list(biases)
        self.activation = activation

    @property
    def weights(self) -> tuple[tf.Tensor, ...]:
        """Kernels, then biases."""
        return (*self.kernels, *self.biases)

    def with_weights(self, weights: Sequence[tf.Tensor]) -> ResidualNet:
        """The same net of other weights, given as `weights` gives them."""
        count = len(self.kernels)
        return ResidualNet(weights[:count], weights[count:], self.activation)

    def value(self, x: tf.Tensor) -> tf.Tensor:
        """g(x), `[..., D]` to `[..., D]`."""
        return self._evaluate(x, None)

    def linearize(self, x: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Returns g(x) and a' at every hidden layer, `[..., 1, out]`, which is all J depends on."""
        slopes: list[tf.Tensor] = []
        return self._evaluate(x, slopes), slopes

    def _evaluate(self, x: tf.Tensor, slopes: list[tf.Tensor] | None) -> tf.Tensor:
        hidden = x[..., tf.newaxis, :]
        for i, bias in enumerate(self.biases):
            hidden = self._times(hidden, i) + bias[..., tf.newaxis, :]
            if i < len(self.biases) - 1:
                if slopes is not None:
                    slopes.append(self.activation.slope(hidden))
                hidden = self.activation.value(hidden)
        return hidden[..., 0, :]

    def push(self, slopes: Sequence[tf.Tensor], tangents: tf.Tensor) -> tf.Tensor:
        """J t for each t of `tangents`, `[..., P, D]`."""
        for i in range(len(self.kernels)):
            tangents = self._times(tangents, i)
            if i < len(slopes):
                tangents *= slopes[i]
        return tangents

    def pull(self, slopes: Sequence[tf.Tensor], cotangents: tf.Tensor) -> tf.Tensor:
        """J^T c for each c of `cotangents`, `[..., P, D]`."""
        for i in reversed(range(len(self.kernels))):
            if i < len(slopes):
                cotangents *= slopes[i]
            cotangents = self._times(cotangents, i, transpose=True)
        return cotangents

    def transposed_jacobian(self, slopes: Sequence[tf.Tensor]) -> tf.Tensor:
        """J^T, `[..., D, D]`, by pushing the D unit vectors through the net together."""
        rows = self.kernels[0]
        for i in range(len(self.kernels)):
            rows = self._times(rows, i) if i else rows
            if i < len(slopes):
                rows *= slopes[i]
        return rows

    def _times(self, x: tf.Tensor, layer: int, transpose: bool = False) -> tf.Tensor:
        kernel = self.kernels[layer]
        if kernel.shape.rank == 2:  # one matrix for all points: one product
            return tf.tensordot(x, kernel, [[-1], [1 if transpose else 0]])
        return tf.matmul(x, kernel, transpose_b=transpose)


def limit_norm(kernel: tf.Tensor, bound: float) -> tf.Tensor:
    """Scales each matrix of `kernel`, `[..., in, out]`, to a spectral norm of at most `bound`.

    Matrices that are within the bound stay as they are. The norm is taken as the Schatten norm

        ||W||_p = (sum_i sigma_i^p)^(1/p) = ||(W^T W)^(p/4)||_F^(2/p),      p = 4096,

    the power by repeated squaring. It exceeds the largest singular value by a factor of at most
    n^(1/p), 1.001 for n = 64, and is never below it, where a power iteration from a start vector
    is never above. It takes matrix products alone, so that XLA compiles it, and it is smooth
    wherever it is not 0, also where singular values coincide.
    """
    # The result is homogeneous in W: the scale, which keeps squares in range, is not traced.
    scale = tf.stop_gradient(tf.reduce_max(tf.abs(kernel), axis=[-2, -1], keepdims=True))
    is_zero = scale < numerics.tiny(kernel.dtype) / numerics.epsilon(kernel.dtype)
    safe_scale = tf.where(is_zero, tf.ones_like(scale), scale)
    scaled = tf.where(is_zero, tf.ones_like(kernel), kernel / safe_scale)
    norm = _schatten_norm(scaled)
    limited = scaled * tf.minimum(safe_scale, bound / norm)
    return tf.where(is_zero, kernel, limited)


def _schatten_norm(matrix: tf.Tensor) -> tf.Tensor:
    """||W||_4096 of `[..., m, n]` with largest entry 1, rounded upwards; `[..., 1, 1]`."""
    rows, columns = matrix.shape[-2], matrix.shape[-1]
    is_wide = rows is not None and columns is not None and rows < columns
    power = tf.matmul(matrix, matrix, transpose_a=not is_wide, transpose_b=is_wide)
    log_norm, share = tf.zeros_like(power[..., :1, :1]), 0.5
    for i in range(_SQUARINGS + 1):
        frobenius = tf.sqrt(tf.reduce_sum(tf.square(power), axis=[-2, -1], keepdims=True))
        log_norm += share * tf.math.log(frobenius)
        share *= 0.5
        if i < _SQUARINGS:
            power /= frobenius
            power = tf.matmul(power, power)
    # Each product is right to about (length of its sums) eps, and counts half of the one before.
    terms = tf.cast(tf.reduce_sum(tf.shape(matrix)[-2:]), matrix.dtype)
    return tf.exp(log_norm) * (1.0 + 4.0 * terms * numerics.epsilon(matrix.dtype))
