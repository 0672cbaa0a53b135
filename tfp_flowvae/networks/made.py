"""MADE: the masked autoencoder that conditions autoregressive flows.

Germain, Gregor, Murray & Larochelle (2015), https://arxiv.org/abs/1502.03509. Every unit carries a
degree. Input d (in the chosen order) has degree d in 1..D; a hidden unit of degree m sees inputs
and hidden units of degree <= m; output d sees hidden units of degree < d (equation 9 and 10). So
output d depends on inputs 1..d-1 only, whatever the weights.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfp_flowvae import _compat
from tfp_flowvae.networks.building import ConfiguredLayer, check_context, ensure_built
from tfp_flowvae.networks.made_sweep import SweepNetwork, sweep
from tfp_flowvae.networks.masked_dense import MaskedDense


@keras.saving.register_keras_serializable(package="tfp_flowvae")
class MADE(ConfiguredLayer):
    """An autoregressive network with optional context.

    Example:
      >>> made = MADE(event_size=4, params=2, hidden=(32,))
      >>> made(tf.zeros([5, 4])).shape
      TensorShape([5, 4, 2])

    Args:
      event_size: D.
      params: How many numbers P to put out for each dimension.
      hidden: Sizes of the hidden layers, at least one.
      context_size: Size of the context vector, or None for none.
      activation: The hidden layers' activation.
      reverse: Whether dimension D comes first in the order.
      **kwargs: See `keras.layers.Layer`.

    Input shape: z `[..., D]`, of rank 2 or more, and, with a context, `[..., context_size]`, whose
    leading dimensions broadcast against those of z (`[B, C]` against `[S, B, D]`, say).
    Output shape: `[..., D, P]`; `output[..., d, :]` depends on the context and on those dimensions
    of z that come before d.

    The last layer starts at zero, so a flow that this network conditions starts as the identity.
    The context enters the first hidden layer and, linearly, the output; both are unmasked, since
    it comes before every dimension. With a context some hidden units have degree 0: they see the
    context alone, so that the first dimension too depends on it nonlinearly.
    """

    def __init__(
        self,
        event_size: int,
        params: int = 2,
        hidden: Sequence[int] = (320,),
        context_size: int | None = None,
        activation: str = "elu",
        reverse: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if event_size < 1 or params < 1 or not hidden or min(hidden) < 1:
            raise ValueError(
                "event_size, params and every size in hidden must be at least 1, with at least one "
                f"hidden layer. Received: {event_size=}, {params=}, hidden={tuple(hidden)}."
            )
        self.event_size, self.params, self.hidden = event_size, params, tuple(hidden)
        self.context_size, self.reverse = context_size, reverse
        self.activation = activation
        with_context = context_size is not None
        masks = autoregressive_masks(event_size, self.hidden, params, with_context, reverse)
        # The first layer's activation waits until the context has been added.
        self._hidden_layers = [
            MaskedDense(
                mask, activation if i else None, dtype=self.dtype_policy, name=f"hidden_{i}"
            )
            for i, mask in enumerate(masks[:-1])
        ]
        self._output_layer = MaskedDense(
            masks[-1], kernel_initializer="zeros", dtype=self.dtype_policy, name="output"
        )
        self._context_layers = []
        if with_context:
            dense = functools.partial(keras.layers.Dense, use_bias=False, dtype=self.dtype_policy)
            self._context_layers = [
                dense(self.hidden[0], name="context_hidden"),
                dense(event_size * params, kernel_initializer="zeros", name="context_output"),
            ]

    def build(self, input_shape: Any = None) -> None:
        """Builds every layer; the sizes are known from the constructor."""
        sizes = (self.event_size, *self.hidden)
        for layer, size in zip((*self._hidden_layers, self._output_layer), sizes, strict=True):
            ensure_built(layer, (None, size))
        for layer in self._context_layers:
            ensure_built(layer, (None, self.context_size))

    def call(self, z: tf.Tensor, context: tf.Tensor | None = None) -> tf.Tensor:
        """Maps z `[..., D]` and the context `[..., C]` to `[..., D, P]`."""
        check_context(self, context)
        activation = keras.activations.get(self.activation)
        h = self._hidden_layers[0](z)
        if context is not None:
            h += self._context_layers[0](context)
        h = activation(h)
        for layer in self._hidden_layers[1:]:
            h = layer(h)
        out = self._output_layer(h)
        if context is not None:
            out += self._context_layers[1](context)
        return tf.reshape(out, tf.concat([tf.shape(out)[:-1], [self.event_size, self.params]], 0))

    def solve_in_order(
        self,
        x: tf.Tensor,
        transform: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
        context: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """The y with y_d = transform(output_d, x_d), where output is this network's at y.

        One sweep over the degrees (see `networks.made_sweep`), the work of about one call. Not
        differentiable: `bijectors.ParallelMaskedAutoregressiveFlow`, which it is for, gets the
        derivatives from one application at y.

        Args:
          x: `[..., D]`.
          transform: Elementwise, from `[N, 1, P]` and `[N, 1]` to `[N, 1]`: the leading dimensions
            arrive as one.
          context: `[..., context_size]`, as for a call.

        Returns:
          y, `[..., D]`; leading dimensions are those of x and the context, broadcast.

        Raises:
          ValueError: If x is not of size D, or a context is missing or not wanted.
        """
        check_context(self, context)
        if x.shape.rank is None or x.shape.rank < 1 or x.shape[-1] not in (None, self.event_size):
            raise ValueError(
                f"This MADE takes points [..., {self.event_size}] of known rank. "
                f"Received: shape {x.shape}."
            )
        ensure_built(self)
        layers = [*self._hidden_layers, self._output_layer]
        with_context = context is not None
        network = SweepNetwork(
            kernels=[tf.cast(_compat.live(layer.kernel), self.compute_dtype) for layer in layers],
            biases=[tf.cast(_compat.live(layer.bias), self.compute_dtype) for layer in layers],
            degrees=[hidden_degrees(self.event_size, n, with_context) for n in self.hidden],
            activation=keras.activations.get(self.activation),
            order=np.arange(self.event_size)[:: -1 if self.reverse else 1],
        )
        x = tf.ensure_shape(x, [*x.shape[:-1], self.event_size])
        added: list[tf.Tensor | None] = [None] * len(layers)
        if with_context:
            added[0], added[-1] = (layer(context) for layer in self._context_layers)
        return sweep(network, x, transform, added)


def autoregressive_masks(
    event_size: int, hidden: Sequence[int], params: int, context: bool, reverse: bool
) -> list[np.ndarray]:
    """The masks of a MADE, one `[fan_in, units]` for each layer, the output's last."""
    order = np.arange(1, event_size + 1)
    inputs = order[::-1] if reverse else order
    return masks_of_degrees(
        inputs, [hidden_degrees(event_size, size, context) for size in hidden], params
    )


def masks_of_degrees(
    inputs: np.ndarray, hidden: Sequence[np.ndarray], params: int
) -> list[np.ndarray]:
    """The masks that the degrees of the inputs `[D]` and of the hidden layers `[units]` imply.

    Args:
      inputs: 1, ..., D in some order.
      hidden: One array for each hidden layer; there may be none.
      params: How many outputs each dimension has. They lie next to one another.

    Returns:
      One mask `[fan_in, units]` for each layer, the output's last.
    """
    degrees = [inputs, *hidden]
    masks = [below[:, None] <= above[None, :] for below, above in itertools.pairwise(degrees)]
    outputs = np.repeat(inputs, params)
    masks.append(degrees[-1][:, None] < outputs[None, :])
    return [mask.astype(np.int8) for mask in masks]


def hidden_degrees(event_size: int, size: int, context: bool) -> np.ndarray:
    """The degrees of a hidden layer's units, `[size]`, ascending.

    They are spread evenly over 1..D-1, or over 0..D-1 where units that see the context alone are of
    use. They are not drawn, so there is nothing to save and restore.
    """
    lowest = 0 if context or event_size == 1 else 1
    return lowest + np.arange(size) * (event_size - lowest) // size
