"""For which models XLA is the faster way."""

from __future__ import annotations

import keras
import tensorflow as tf

from tfp_flowvae._compat import layers_within

_CONVOLUTIONS = tuple(
    getattr(keras.layers, f"{kind}{rank}D{end}")
    for kind, ranks, end in (
        ("Conv", (1, 2, 3), ""),
        ("Conv", (1, 2, 3), "Transpose"),
        ("DepthwiseConv", (1, 2), ""),
        ("SeparableConv", (1, 2), ""),
    )
    for rank in ranks
)


def xla_suits(model: keras.Model) -> bool:
    """Whether XLA runs the model, in a loop too, and as fast as TensorFlow's own kernels do.

    A layer may say that it does not (`supports_jit`). On processors XLA brings a convolution's
    gradients, and a transposed convolution, into the form that it has a fast kernel for only where
    they stand in a program's outermost computation: in the body of a loop they take 7 to 120 times
    as long (TensorFlow 2.21).
    """
    layers = layers_within(model)
    if not all(layer.supports_jit for layer in layers):
        return False
    if tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("TPU"):
        return True
    return not any(isinstance(layer, _CONVOLUTIONS) for layer in layers)
