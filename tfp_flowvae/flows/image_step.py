"""One step of a flow of images: ActNorm, a 1 x 1 convolution if there is one, and a coupling."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf
from tensorflow_probability import bijectors as tfb

from tfp_flowvae import _compat
from tfp_flowvae import bijectors as fvb
from tfp_flowvae.flows.base import composed, derived
from tfp_flowvae.flows.conditioner import Conditioner, shift_and_log_scale
from tfp_flowvae.networks.glow import CouplingNetwork

_BINS, _COMPONENTS = 8, 4
# A pixel goes through many couplings, so each needs little. With a bound of 3 the first epoch of a
# Glow of MNIST had a loss of 1e13. With scales below 1 only, as in Glow, all expansion is left to
# the ActNorms: after five epochs of 10000 images at a learning rate of 0.001 the loss was 3.4 bits
# per dimension, where a bound of 2 gave 2.4. At a rate of 0.003 a bound of 1 was better than 2.
_LOG_SCALE_BOUND = 1.0


def _shift(out: tf.Tensor) -> tuple[tf.Tensor, None]:
    return out[..., 0], None


# For each coupling: how many parameters move a number, what reads them, and the argument of the
# bijector that takes the result.
_COUPLINGS: dict[str, tuple[int, Callable[[tf.Tensor], Any], str]] = {
    "affine": (
        2,
        functools.partial(shift_and_log_scale, bound=_LOG_SCALE_BOUND),
        "shift_and_log_scale_fn",
    ),
    "additive": (1, _shift, "shift_and_log_scale_fn"),
    "spline": (3 * _BINS - 1, fvb.spline_from_raw, "bijector_fn"),
    "mixture": (
        3 * _COMPONENTS + 2,
        functools.partial(fvb.logistic_mixture_from_raw, components=_COMPONENTS),
        "bijector_fn",
    ),
}


class ImageStep(keras.layers.Layer):
    """The weights of a step for images `[..., H, W, C]`, and its bijector from data to latents.

    It starts as the identity, or as a rotation of the channels if there is a convolution.

    Args:
      image_shape: `(H, W, C)` of what the step maps.
      coupling: One of `COUPLINGS`.
      width: See `CouplingNetwork`.
      checkerboard: Whether the coupling splits pixels, and not channels.
      reverse: Whether the coupling keeps the other part.
      convolves: Whether there is a 1 x 1 convolution.
      normalizes: Whether there is an ActNorm.
      context_channels: The channels of the context image, 0 for none.
      **kwargs: See `keras.layers.Layer`.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        coupling: str,
        width: int,
        *,
        checkerboard: bool = False,
        reverse: bool = False,
        convolves: bool = False,
        normalizes: bool = True,
        context_channels: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        height, image_width, channels = image_shape
        self._reverse = reverse
        params, self._read, self._argument = _COUPLINGS[coupling]
        self._coupling = fvb.CheckerboardCoupling if checkerboard else fvb.ChannelCoupling
        kept, moving = channels, channels
        if not checkerboard:
            sizes = channels // 2, channels - channels // 2
            kept, moving = sizes[::-1] if reverse else sizes
        self._network = CouplingNetwork(
            (height, image_width, kept),
            moving,
            params,
            width,
            context_channels,
            dtype=self.dtype_policy,
            name="network",
        )
        self._act_norm: list[keras.Variable] = []
        if normalizes:
            self._act_norm = [self._vector(name, channels) for name in ("log_scale", "shift")]
        if convolves:
            self._add_convolution(channels)
        self._convolves = convolves
        self.built = True

    def bijector(self, context: tf.Tensor | None = None) -> tfb.Bijector:
        """The map from the side of the data to that of the latents.

        Args:
          context: `[B, H, W, context_channels]`, or None.
        """
        parts: list[tfb.Bijector] = []
        if self._act_norm:
            parts.append(fvb.ActNorm(*map(_compat.live, self._act_norm)))
        if self._convolves:
            parts.append(self._convolution())
        conditioner = Conditioner(self._network, context, self._read)
        parts.append(self._coupling(**{self._argument: conditioner}, reverse=self._reverse))
        return composed(parts)

    def _vector(self, name: str, size: int, initializer: Any = "zeros", **more: Any) -> Any:
        return self.add_weight(
            name=name, shape=(size,), initializer=initializer, autocast=False, **more
        )

    def _add_convolution(self, channels: int) -> None:
        """Creates the weights of a random rotation, as Glow starts with it."""
        rotation = keras.initializers.Orthogonal()((channels, channels), self.variable_dtype)
        linear = fvb.Invertible1x1Convolution.from_matrix(rotation)
        packed = linear.lower + linear.upper + tf.linalg.diag(linear.log_diag)
        self._matrix = self.add_weight(
            name="matrix",
            shape=(channels, channels),
            initializer=lambda *_, **__: packed,
            autocast=False,
        )
        self._sign = self._vector("sign", channels, lambda *_, **__: linear.sign, trainable=False)
        self._permutation = self._vector(
            "permutation",
            channels,
            lambda *_, **__: linear.permutation,
            trainable=False,
            dtype="int32",
        )

    def _convolution(self) -> fvb.Invertible1x1Convolution:
        """As in the flow `LU`, one matrix holds L, the logarithm of U's diagonal, and U."""
        matrix = _compat.live(self._matrix)
        return fvb.Invertible1x1Convolution(
            lower=matrix,
            log_diag=derived(matrix, tf.linalg.diag_part),
            upper=matrix,
            permutation=_compat.live(self._permutation),
            sign=_compat.live(self._sign),
        )
