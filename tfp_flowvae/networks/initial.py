"""How weights start: every unit's input with variance 1, whatever the activation.

A linear map of n inputs whose kernel is drawn with variance s / n puts out s E[h^2], the mean
square of its inputs times s. Where h = f(a) with a ~ N(0, 1), s = 1 / E[f(a)^2] therefore gives the
next layer variance 1 again, at any depth: 2 for ReLU, which is He et al. (2015),
https://arxiv.org/abs/1502.01852; 1.55 for ELU; 2.81 for SiLU; 1 for a linear layer or for raw
inputs, which is LeCun's rule. Glorot's rule, the default of Keras, lets the signal of ELU and SiLU
nets fade by a third to two thirds a layer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

# E[f(a)^2] for a ~ N(0, 1).
MEAN_SQUARES = {
    "linear": 1.0,
    "elu": 0.644945,
    "relu": 0.5,
    "silu": 0.355776,
    "softplus": 0.921246,
    "tanh": 0.394294,
    "gelu": 0.425221,
}
SIGMOID_MEAN_SQUARE = 0.293379

# Pixels start near their bias, so that a fresh decoder errs by little more than the average image.
PIXEL_SCALE = 0.1


def scale_after(activation: str, gated: bool = False) -> float:
    """s for a layer whose inputs are f(a), or f(a) sigmoid(b), with a and b ~ N(0, 1)."""
    return 1.0 / (MEAN_SQUARES[activation] * (SIGMOID_MEAN_SQUARE if gated else 1.0))


def normal(scale: float, fan_in: float) -> keras.initializers.Initializer:
    """Draws from N(0, scale / fan_in)."""
    return keras.initializers.RandomNormal(stddev=math.sqrt(scale / fan_in))


class Tiled(keras.initializers.Initializer):
    """Repeats a few values over a vector: a bias for each channel, at every pixel.

    Args:
      values: The values to repeat; None for zero.
    """

    def __init__(self, values: Sequence[float] | None = None) -> None:
        self.values = (0.0,) if values is None else tuple(values)

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> tf.Tensor:
        """A vector of `shape`, whose size is a multiple of the number of values."""
        repeats = math.prod(shape) // len(self.values)
        return tf.tile(tf.constant(self.values, dtype or "float32"), [repeats])
