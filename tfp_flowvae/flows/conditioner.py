"""The bridge from a Keras network to a TFP bijector's conditioner."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tfp_flowvae import _compat
from tfp_flowvae.networks import MADE

# Affine layers scale by exp(s) with |s| below this: wide enough not to bind in practice, narrow
# enough that one bad step cannot overflow in either direction.
LOG_SCALE_BOUND = 3.0


def shift_and_log_scale(
    out: tf.Tensor, bound: float = LOG_SCALE_BOUND
) -> tuple[tf.Tensor, tf.Tensor]:
    """Reads `[..., M, 2]` as a shift and a log-scale within +-bound, `[..., M]` each."""
    shift, raw = tf.unstack(out, num=2, axis=-1)
    return shift, bound * tf.tanh(raw / bound)


class Conditioner(tf.Module):
    """A Keras network, bound to its context, as the callable that a TFP bijector takes.

    A bijector that closes over a Keras network hides its weights: TFP finds variables by walking
    `tf.Module`s, and Keras layers are not. This module holds the network's `tf.Variable`s, so that
    `trainable_variables` of the bijector, of any `tfb.Chain` or `tfb.Invert` around it and of a
    `tfd.TransformedDistribution` are complete.

    Args:
      network: A built layer from `[..., D]` (and a context) to `[..., M, P]`.
      context: Passed to the network as it is, or None.
      read: From the network's output to what the bijector takes.
      name: Name of the module.
    """

    def __init__(
        self,
        network: keras.layers.Layer,
        context: tf.Tensor | None = None,
        read: Callable[[tf.Tensor], Any] = shift_and_log_scale,
        name: str = "conditioner",
    ) -> None:
        super().__init__(name=name)
        self._read = read
        self._live_weights = [_compat.live(weight) for weight in network.trainable_weights]
        self._in_context = context is not None
        # In a closure, or tf.Module would walk the layer's attributes as well.
        self._run: Callable[[tf.Tensor], tf.Tensor] = lambda x: (
            network(x) if context is None else network(x, context=context)
        )

    def __call__(self, x: tf.Tensor, *unused_depth: int) -> Any:
        """Returns what `read` makes of the output: shift and log-scale, `[..., M]`, by default."""
        # Keras's layers take no single vector, which is what an unbatched draw is made of.
        single = x.shape.rank == 1
        out = self._run(x[tf.newaxis] if single else x)
        if single and not self._in_context:
            out = out[0]
        return self._read(out)


class AutoregressiveConditioner(Conditioner):
    """A `Conditioner` around a MADE, for which a flow can be solved in one sweep.

    The arguments are those of `Conditioner`.
    """

    def __init__(self, network: MADE, context: tf.Tensor | None = None, **kwargs: Any) -> None:
        super().__init__(network, context, **kwargs)
        self._solve: Callable[..., tf.Tensor] = lambda x, transform: network.solve_in_order(
            x, transform, context
        )

    def solve_in_order(
        self, x: tf.Tensor, transform: Callable[[Any, tf.Tensor], tf.Tensor]
    ) -> tf.Tensor:
        """The y `[..., D]` of `bijectors.SolvesInOrder`; transform gets what `read` returns."""
        return self._solve(x, lambda out, entry: transform(self._read(out), entry))
