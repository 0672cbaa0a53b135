"""Linear flows, mostly as parts of a stack: LU, elementwise affine and fixed permutations."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from tensorflow_probability import bijectors as tfb

from tfp_flowvae import bijectors as fvb
from tfp_flowvae.flows.amortised import amortised
from tfp_flowvae.flows.base import Flow, ParametricFlow, checked_word, derived

ORDERS = ("random", "reverse", "alternating")


@keras.saving.register_keras_serializable(package="tfp_flowvae")
class LU(ParametricFlow):
    """z = L U z0 + shift: `tfp_flowvae.bijectors.LULinear` with weights.

    Glow's invertible linear layer (Kingma & Dhariwal 2018, https://arxiv.org/abs/1807.03039,
    equation 10; Oliva et al. 2018, https://arxiv.org/abs/1801.09819) without its permutation, which
    `permute` supplies. One `[D, D]` weight holds L below its diagonal, U above, and log u_ii on it.
    With a context matrix and shift are amortised: a full-covariance Gaussian of a Gaussian base.
    Starts as the identity.

    Example:
      >>> z, log_det = LU(event_size=3)(tf.zeros([5, 3]))

    Args:
      **kwargs: See `Flow`.
    """

    def parameter_initializers(self) -> dict[str, tuple[tuple[int, ...], Any]]:
        """Shapes and starting values of the matrix and the shift."""
        size = self.event_size
        return {"matrix": ((size, size), "zeros"), "shift": ((size,), "zeros")}

    def make_bijector(self, context: tf.Tensor | None) -> fvb.LULinear:
        """The linear map."""
        matrix, shift = self.parameters(context).values()
        log_diag = derived(matrix, tf.linalg.diag_part)
        return fvb.LULinear(lower=matrix, log_diag=log_diag, upper=matrix, shift=shift)


@keras.saving.register_keras_serializable(package="tfp_flowvae")
class Affine(ParametricFlow):
    """z_i = exp(log_scale_i) z0_i + shift_i, with a log-det of sum_i log_scale_i.

    The map of Glow's activation normalisation (Kingma & Dhariwal 2018,
    https://arxiv.org/abs/1807.03039, section 3.1), but not its first setting from a batch of data:
    what reaches a flow inside a VAE changes as the encoder does. Starts as the identity.

    Example:
      >>> z, log_det = Affine(event_size=3)(tf.zeros([5, 3]))

    Args:
      **kwargs: See `Flow`.
    """

    def parameter_initializers(self) -> dict[str, tuple[tuple[int, ...], Any]]:
        """Shapes and starting values of the log-scale and the shift."""
        vector = ((self.event_size,), "zeros")
        return {"log_scale": vector, "shift": vector}

    def make_bijector(self, context: tf.Tensor | None) -> fvb.ActNorm:
        """The scaling and the shift."""
        return fvb.ActNorm(**self.parameters(context))


@keras.saving.register_keras_serializable(package="tfp_flowvae")
class Permute(Flow):
    """z_i = z0_{p_i} for a fixed permutation p: no weights, a log-det of 0.

    It takes a context, so that it may stand in an amortised stack, and ignores it.

    Example:
      >>> z, log_det = Permute(event_size=3)(tf.zeros([5, 3]))

    Args:
      order: "random", "reverse", or "alternating" (places 0, 2, 4, ..., then 1, 3, 5, ...).
      seed: Of the random permutation.
      **kwargs: See `Flow`.

    Raises:
      ValueError: If the order is none of these, or the seed is negative.
    """

    def __init__(self, order: str = "random", seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if seed < 0:
            raise ValueError(f"seed must be at least 0. Received: {seed=}.")
        self.order, self.seed = checked_word("order", order, ORDERS), seed

    def make_bijector(self, context: tf.Tensor | None) -> tfb.Bijector:
        """The permutation."""
        # TFP 0.25: a `tfb.Permute` refuses to be sliced with a batch that it does not have.
        return amortised(context, self._permutation)

    def _permutation(self, context: tf.Tensor | None) -> tfb.Bijector:
        if self.order == "reverse":
            return fvb.reverse_permutation(self.event_size)
        if self.order == "alternating":
            return fvb.alternating_permutation(self.event_size)
        return fvb.random_permutation(self.event_size, self.seed)
