"""Neural spline flows: rational-quadratic splines in couplings and in autoregressive layers.

Durkan et al. (2019), https://arxiv.org/abs/1906.04032. Every entry that a layer moves goes through
a monotone spline of its own on [-B, B], of K bins, whose 3 K - 1 parameters a network computes from
other entries (and the context); outside that interval it stays as it is. The formulas are in
`bijectors.spline`. All flows here start as the identity.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf
from tensorflow_probability import bijectors as tfb

from tfp_flowvae.bijectors import (
    Coupling,
    ParallelMaskedAutoregressiveFlow,
    RationalQuadraticSpline,
    spline_from_raw,
)
from tfp_flowvae.flows.autoregressive import AutoregressiveFlow
from tfp_flowvae.flows.conditioner import AutoregressiveConditioner, Conditioner
from tfp_flowvae.flows.coupling import CouplingFlow
from tfp_flowvae.flows.network_flow import NetworkFlow
from tfp_flowvae.networks import MADE, MLP


class _Spline(NetworkFlow):
    """The bins and the bound of a spline flow, in front of the flow that moves by splines."""

    def __init__(self, *args: Any, bins: int, bound: float, **kwargs: Any) -> None:
        if not 2 <= bins <= 256 or not 0.0 < bound < math.inf:
            raise ValueError(
                "A spline flow takes bins from 2 to 256 and a bound that is positive and finite. "
                f"Received: {bins=}, {bound=}."
            )
        super().__init__(*args, **kwargs)
        self.bins, self.bound = bins, float(bound)

    @property
    def params(self) -> int:
        """3 K - 1."""
        return 3 * self.bins - 1

    @property
    def _read(self) -> Callable[[tf.Tensor], RationalQuadraticSpline]:
        return functools.partial(spline_from_raw, bound=self.bound)


@keras.saving.register_keras_serializable(package="tfp_flowvae")
class SplineCoupling(_Spline, CouplingFlow):
    """K spline couplings, one pass both ways; the mathematics is at the head of this module.

    The arguments are those of `CouplingFlow`, and:

    Example:
      >>> flow = SplineCoupling(2, event_size=3, hidden=(32,))
      >>> z, log_det = flow(tf.zeros([5, 3]))

    Args:
      bins: How many bins each spline has.
      bound: B.

    Raises:
      ValueError: If an argument is not allowed.
    """

    def __init__(
        self,
        length: int = 4,
        hidden: Sequence[int] = (256, 256),
        activation: str = "elu",
        mask: str = "half",
        bins: int = 8,
        bound: float = 4.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(length, hidden, activation, mask, bins=bins, bound=bound, **kwargs)

    def make_layer(self, k: int, network: MLP, context: tf.Tensor | None) -> tfb.Bijector:
        """One spline coupling."""
        return Coupling(self.kept(k), bijector_fn=Conditioner(network, context, read=self._read))


@keras.saving.register_keras_serializable(package="tfp_flowvae")
class SplineMAF(_Spline, AutoregressiveFlow):
    """K autoregressive spline layers with a one-pass density.

    The mathematics is at the head of this module; the networks are MADEs that read z, in
    alternating order from layer to layer, as in MAF. The arguments are those of `NetworkFlow`, with
    `bins` and `bound` as in `SplineCoupling`.

    Example:
      >>> flow = SplineMAF(2, event_size=3, hidden=(32,))
      >>> z, log_det = flow(tf.zeros([5, 3]))
    """

    def __init__(
        self,
        length: int = 2,
        hidden: Sequence[int] = (320,),
        activation: str = "elu",
        bins: int = 8,
        bound: float = 4.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(length, hidden, activation, bins=bins, bound=bound, **kwargs)

    def make_layer(self, k: int, network: MADE, context: tf.Tensor | None) -> tfb.Bijector:
        """One autoregressive spline layer."""
        conditioner = AutoregressiveConditioner(network, context, read=self._read)
        return ParallelMaskedAutoregressiveFlow(bijector_fn=conditioner)


@keras.saving.register_keras_serializable(package="tfp_flowvae")
class SplineIAF(SplineMAF):
    """K autoregressive spline layers with one-pass sampling: those of `SplineMAF`, inverted.

    The networks read the layer's input z_{k-1}, as in IAF. The arguments are those of `SplineMAF`.

    Example:
      >>> flow = SplineIAF(2, event_size=3, hidden=(32,))
      >>> z, log_det = flow(tf.zeros([5, 3]))
    """

    inverted = True
