"""The Sylvester flow as a Keras layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import bijectors as tfb

from tfp_flowvae import bijectors as fvb
from tfp_flowvae.flows.base import Flow, RepeatedFlow, checked_word, composed, derived

KINDS = ("orthogonal", "householder", "triangular")
DEFAULT_WIDTH = 16


@keras.saving.register_keras_serializable(package="tfp_flowvae")
class Sylvester(RepeatedFlow):
    """K Sylvester layers z + Q R h(R~ Q^T z + b) (van den Berg et al. 2018).

    https://arxiv.org/abs/1803.05649, equation 13; the mathematics, and what keeps it invertible,
    are in `bijectors.sylvester`. The kinds are the paper's, by how Q, `[D, M]`, is made:

    - "orthogonal": M = `width` <= D orthonormal columns (O-SNF);
    - "householder": a product of `reflections` Householder reflections, M = D (H-SNF);
    - "triangular": the identity and the reversal of the coordinates in turn, M = D (T-SNF).

    With a context every parameter is amortised, as in the paper. Starts as the identity: R = 0 and
    R~ has ones on its diagonal, while Q and the rest of R~ are drawn, or all layers would start to
    learn the same.

    Example:
      >>> flow = Sylvester(4, event_size=3, context_size=2)
      >>> z, log_det = flow(tf.zeros([5, 3]), tf.zeros([5, 2]))

    Args:
      length: K.
      kind: "orthogonal", "householder" or "triangular".
      width: M for "orthogonal", by default the smaller of D and 16; for the others M = D.
      reflections: For "householder" alone.
      **kwargs: See `Flow`.

    Raises:
      ValueError: If the kind is another, or the width or the number of reflections is out of range.
    """

    def __init__(
        self,
        length: int = 4,
        kind: str = "orthogonal",
        width: int | None = None,
        reflections: int = 8,
        **kwargs: Any,
    ) -> None:
        super().__init__(length, **kwargs)
        self.kind = checked_word("kind", kind, KINDS)
        if reflections < 1:
            raise ValueError(f"reflections must be at least 1. Received: {reflections=}.")
        self.width: Any = width  # chosen by `build` where it is None
        self.reflections = reflections

    def build(self, z_shape: Any = None, context_shape: Any = None) -> None:
        """Chooses the width that the constructor left open, and creates the weights."""
        Flow.build(self, z_shape, context_shape)
        size, kind, width = self.event_size, self.kind, self.width
        if width is None:
            width = min(size, DEFAULT_WIDTH) if kind == "orthogonal" else size
        if not (1 if kind == "orthogonal" else size) <= width <= size:
            allowed = "from 1 to the event_size" if kind == "orthogonal" else "the event_size"
            raise ValueError(
                f"width must be {allowed} for {kind=}. Received: {width=}, event_size={size}."
            )
        self.width = width
        super().build(z_shape, context_shape)

    def parameter_initializers(self) -> dict[str, tuple[tuple[int, ...], Any]]:
        """Shapes and starting values of what makes Q, the two triangles and b."""
        length, width = self.length, self.width
        normal = keras.initializers.RandomNormal(stddev=1.0)
        frames = {
            "orthogonal": {"q": ((length, self.event_size, width), normal)},
            "householder": {"v": ((length, self.reflections, self.event_size), normal)},
            "triangular": {},
        }
        return {
            **frames[self.kind],
            # Both triangular matrices, with nothing left over: column 1 and on hold R in their
            # upper triangle, those up to the last but one hold the transpose of R~ in their lower.
            "triangles": ((length, width, width + 1), _strictly_lower),
            "b": ((length, width), "zeros"),
        }

    def make_bijector(self, context: tf.Tensor | None) -> tfb.Bijector:
        """The Sylvester layers."""
        parameters = self.parameters(context)
        triangles = parameters.pop("triangles")
        if self.kind == "triangular":
            b = parameters["b"]
            return composed([self._triangular(k, triangles, b) for k in range(self.length)])
        system = {"r": derived(triangles, _r), "r_tilde": derived(triangles, _r_tilde)}
        stacks: dict[str, Callable[..., tfb.Bijector]] = {
            "orthogonal": fvb.OrthogonalSylvesterFlow,
            "householder": fvb.HouseholderSylvesterFlow,
        }
        return stacks[self.kind](**parameters, **system)

    def _triangular(
        self, k: int, triangles: tf.Tensor | tf.Variable, b: tf.Tensor | tf.Variable
    ) -> fvb.TriangularSylvester:
        """Step k, which reads the coordinates from the other end than the one before."""
        order = np.arange(self.event_size, dtype=np.int32)[:: -1 if k % 2 else 1]
        return fvb.TriangularSylvester(
            r=derived(triangles, lambda x: _r(x[..., k, :, :])),
            r_tilde=derived(triangles, lambda x: _r_tilde(x[..., k, :, :])),
            b=derived(b, lambda x: x[..., k, :]),
            permutation=order,
        )


def _r(triangles: tf.Tensor) -> tf.Tensor:
    return triangles[..., 1:]


def _r_tilde(triangles: tf.Tensor) -> tf.Tensor:
    return tf.linalg.matrix_transpose(triangles[..., :-1])


def _strictly_lower(shape: tuple[int, ...], dtype: Any = None) -> tf.Tensor:
    """Draws R~ above its diagonal; raw zeros elsewhere are R = 0 and ones on that diagonal."""
    draws = keras.random.normal(shape, stddev=shape[-2] ** -0.5, dtype=dtype)
    return draws * np.tri(shape[-2], shape[-1], k=-1)
