"""The contractive residual flow as a Keras layer."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from tensorflow_probability import bijectors as tfb

from tfp_flowvae import _compat
from tfp_flowvae import bijectors as fvb
from tfp_flowvae.bijectors.contractive_residual import MAX_EXACT_SIZE
from tfp_flowvae.flows.base import Flow, RepeatedFlow, composed, derived


@keras.saving.register_keras_serializable(package="tfp_flowvae")
class Residual(RepeatedFlow):
    """K residual layers z + g(z), g a perceptron of Lipschitz constant c < 1.

    Behrmann et al. (2019), https://arxiv.org/abs/1811.00995, and Chen et al. (2019),
    https://arxiv.org/abs/1906.02735; the mathematics is in `bijectors.contractive_residual`. The
    log-det is exact, by a D by D determinant for each point and layer, and the inverse a fixed
    point, so that both directions cost more than those of a coupling. Starts as the identity.

    With a context g(z; context) has biases, in all its layers, that are linear in the context; the
    kernels, and with them the bound on g's Lipschitz constant, are the same for all examples.

    Example:
      >>> flow = Residual(4, event_size=3, context_size=2)
      >>> z, log_det = flow(tf.zeros([5, 3]), tf.zeros([5, 2]))

    Args:
      length: K.
      hidden: Sizes of each perceptron's hidden layers.
      activation: "lipswish", "elu", "sin" or "tanh", see `ContractiveResidual`.
      lipschitz: c, between 0 and 1.
      **kwargs: See `Flow`; an event_size of at most 64.

    Raises:
      ValueError: If an argument is out of its range.
    """

    def __init__(
        self,
        length: int = 2,
        hidden: Sequence[int] = (64,),
        activation: str = "lipswish",
        lipschitz: float = 0.9,
        **kwargs: Any,
    ) -> None:
        super().__init__(length, **kwargs)
        if not hidden or min(hidden) < 1 or not 0.0 < lipschitz < 1.0:
            raise ValueError(
                "hidden must name at least one size of at least 1, and lipschitz lie between 0 and "
                f"1. Received: hidden={tuple(hidden)}, {lipschitz=}."
            )
        self.hidden, self.activation, self.lipschitz = tuple(hidden), activation, float(lipschitz)

    @property
    def _sizes(self) -> tuple[int, ...]:
        return (self.event_size, *self.hidden, self.event_size)

    def parameter_initializers(self) -> dict[str, tuple[tuple[int, ...], Any]]:
        """Shapes and starting values of the biases."""
        sizes = enumerate(self._sizes[1:])
        return {f"bias_{i}": ((self.length, size), "zeros") for i, size in sizes}

    def build(self, z_shape: Any = None, context_shape: Any = None) -> None:
        """Creates the biases, or what makes them of the context, and the kernels."""
        Flow.build(self, z_shape, context_shape)
        if self.event_size > MAX_EXACT_SIZE:
            raise ValueError(
                f"The exact log-det takes an event_size of at most {MAX_EXACT_SIZE}. "
                f"Received: event_size={self.event_size}."
            )
        super().build(z_shape, context_shape)
        self._kernels = []
        for i, (rows, columns) in enumerate(itertools.pairwise(self._sizes)):
            is_last = i == len(self.hidden)
            normal = keras.initializers.RandomNormal(stddev=rows**-0.5)
            self._kernels.append(
                self.add_weight(
                    name=f"kernel_{i}",
                    shape=(self.length, rows, columns),
                    initializer="zeros" if is_last else normal,
                    autocast=False,
                )
            )

    def make_bijector(self, context: tf.Tensor | None) -> tfb.Bijector:
        """The residual layers."""
        kernels = [_compat.live(kernel) for kernel in self._kernels]
        biases = list(self.parameters(context).values())
        return composed([self._layer(k, kernels, biases) for k in range(self.length)])

    def _layer(
        self, k: int, kernels: list[tf.Variable], biases: list[tf.Tensor | tf.Variable]
    ) -> fvb.ContractiveResidual:
        return fvb.ContractiveResidual(
            kernels=[derived(kernel, lambda x: x[k]) for kernel in kernels],
            biases=[derived(bias, lambda x: x[..., k, :]) for bias in biases],
            lipschitz=self.lipschitz,
            activation=self.activation,
        )
