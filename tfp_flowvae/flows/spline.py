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
import numpy as np
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
from tfp_flowvae.networks import MADE, MLP


@keras.saving.register_keras_serializable(package="tfp_flowvae")
class SplineCouplingFlowLayer(CouplingFlow):
    """K spline couplings, one pass both ways; the mathematics is at the head of this module.

    Args:
      event_size: D, at least 2.
      context_size: Size of the context vector, or None.
      length: How many layers.
      hidden: Sizes of each MLP's hidden layers.
      activation: Of the hidden layers.
      mask: Which half a layer keeps, see `CouplingFlow`.
      bins: How many bins each spline has.
      bound: B.
      **kwargs: See `keras.layers.Layer`.
    """

    def __init__(
        self,
        event_size: int,
        context_size: int | None = None,
        length: int = 4,
        hidden: Sequence[int] = (256, 256),
        activation: str = "elu",
        mask: str = "half",
        bins: int = 8,
        bound: float = 4.0,
        **kwargs: Any,
    ) -> None:
        params = _params(bins, bound)
        super().__init__(
            event_size, context_size, length, hidden, activation, mask, params, **kwargs
        )
        self.bins, self.bound = bins, float(bound)

    def _layer(self, kept: np.ndarray, network: MLP, context: tf.Tensor | None) -> tfb.Bijector:
        return Coupling(kept, bijector_fn=Conditioner(network, context, read=_reader(self.bound)))

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "bins": self.bins, "bound": self.bound}


@keras.saving.register_keras_serializable(package="tfp_flowvae")
class MaskedSplineFlowLayer(AutoregressiveFlow):
    """K autoregressive spline layers with a one-pass density.

    The mathematics is at the head of this module; the networks are MADEs that read z, in
    alternating order from layer to layer, as in MAF.

    Args:
      event_size: D.
      context_size: Size of the context vector, or None.
      length: How many layers.
      hidden: Sizes of each MADE's hidden layers.
      activation: Of the hidden layers.
      bins: How many bins each spline has.
      bound: B.
      **kwargs: See `keras.layers.Layer`.
    """

    def __init__(
        self,
        event_size: int,
        context_size: int | None = None,
        length: int = 2,
        hidden: Sequence[int] = (320,),
        activation: str = "elu",
        bins: int = 8,
        bound: float = 4.0,
        **kwargs: Any,
    ) -> None:
        params = _params(bins, bound)
        super().__init__(event_size, context_size, length, hidden, activation, params, **kwargs)
        self.bins, self.bound = bins, float(bound)

    def _layer(self, network: MADE, context: tf.Tensor | None) -> tfb.Bijector:
        conditioner = AutoregressiveConditioner(network, context, read=_reader(self.bound))
        return ParallelMaskedAutoregressiveFlow(bijector_fn=conditioner)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "bins": self.bins, "bound": self.bound}


@keras.saving.register_keras_serializable(package="tfp_flowvae")
class InverseSplineFlowLayer(MaskedSplineFlowLayer):
    """K autoregressive spline layers with one-pass sampling: `MaskedSplineFlowLayer`'s, inverted.

    The networks read the layer's input z_{k-1}, as in IAF. Arguments as there.
    """

    _invert = True


def _reader(bound: float) -> Callable[[tf.Tensor], RationalQuadraticSpline]:
    return functools.partial(spline_from_raw, bound=bound)


def _params(bins: int, bound: float) -> int:
    """How many numbers a spline takes, after a check of its sizes."""
    if not 2 <= bins <= 256 or not 0.0 < bound < math.inf:
        raise ValueError(
            "A spline flow takes bins from 2 to 256 and a bound that is positive and finite. "
            f"Received: {bins=}, {bound=}."
        )
    return 3 * bins - 1
