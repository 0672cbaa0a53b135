"""check_bijector passes on TFP's own bijectors."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flowvae.testing import check_bijector

tfb = tfp.bijectors


class Conditioner(tf.Module):
    """A network with variables, that RealNVP keeps and so lists."""

    def __init__(self, inputs, outputs, dtype):
        super().__init__()
        rng = np.random.default_rng(1)
        self.inner = tf.Variable(0.5 * rng.standard_normal((inputs, 8)), dtype=dtype)
        self.outer = tf.Variable(0.5 * rng.standard_normal((8, 2 * outputs)), dtype=dtype)

    def __call__(self, x, units, **kwargs):
        shift, log_scale = tf.split(tf.tanh(x @ self.inner) @ self.outer, 2, axis=-1)
        return shift, tf.tanh(log_scale)


class MaskedLinear(tf.Module):
    """Shift and log scale of x_i from x_j, j < i."""

    def __init__(self, size, dtype):
        super().__init__()
        rng = np.random.default_rng(2)
        self.kernel = tf.Variable(rng.standard_normal((size, size)), dtype=dtype)

    def __call__(self, x):
        strictly_upper = self.kernel - tf.linalg.band_part(self.kernel, -1, 0)
        hidden = x @ strictly_upper
        return tf.stack([hidden, tf.tanh(0.5 * hidden)], axis=-1)


def exp(c):
    return tfb.Exp(), c([-1.0, 0.5, 2.0])


def softplus(c):
    return tfb.Softplus(), c([[-1.0, 0.5, 2.0]])


def batched_scale(c):
    return tfb.Scale(c([[1.5], [-0.5], [2.0]])), c([0.3, -1.0])


def tril(c):
    tril = c([[[1.0, 0.0], [0.3, 2.0]], [[0.5, 0.0], [-1.0, 1.0]]])
    return tfb.ScaleMatvecTriL(tril), c(normal(4, 1, 2))


def chain(c):
    shift = tf.Variable(c([0.5, -0.2]))
    scale = tfb.Scale(c([1.0, 2.0]))
    return tfb.Chain([scale, tfb.Shift(shift), tfb.Softplus()]), c(normal(4, 2))


def invert(c):
    return tfb.Invert(tfb.ScaleMatvecTriL(c([[1.0, 0.0], [0.3, 2.0]]))), c(normal(4, 2))


def real_nvp(c):
    net = Conditioner(1, 1, c(0.0).dtype)
    return tfb.RealNVP(num_masked=1, shift_and_log_scale_fn=net), c(normal(4, 2))


def masked_autoregressive_flow(c):
    return tfb.MaskedAutoregressiveFlow(MaskedLinear(3, c(0.0).dtype)), c(normal(4, 3))


def spline(c):
    # range_min is an int, which is not differentiated: TFP 0.25 pads the knots with it by tf.pad,
    # which has no gradient for what it pads with.
    spline = tfb.RationalQuadraticSpline(
        c([[1.0, 2.0, 1.0]]), c([[2.0, 1.0, 1.0]]), c([[1.0, 0.5]]), range_min=-2
    )
    return spline, c(normal(6, 1))


def transpose(c):
    """Matrix events."""
    return tfb.Transpose(perm=[1, 0]), c(normal(3, 2, 2))


def normal(*shape):
    return np.random.default_rng(0).standard_normal(shape)


QUICK = (exp, softplus, batched_scale, tril, invert, transpose)
LONG = (chain, real_nvp, masked_autoregressive_flow, spline)

TABLE = [
    *((case, dtype) for case in QUICK for dtype in (tf.float32, tf.float64)),
    *((case, tf.float64) for case in LONG),
    *(pytest.param(case, tf.float32, marks=pytest.mark.slow) for case in LONG),
]


@pytest.mark.parametrize(
    ("case", "dtype"), TABLE, ids=lambda v: getattr(v, "__name__", None) or v.name
)
def test_passes(case, dtype):
    bijector, x = case(lambda value: tf.constant(value, dtype))
    check_bijector(bijector, x)


def test_elementwise_bijector_on_vectors():
    check_bijector(tfb.Scale(np.array([1.0, 2.0])), normal(3, 2), event_ndims=1)


def test_finds_the_gradient_that_the_spline_of_tfp_lacks():
    """Padding has no gradient for the value that is padded with, here the leftmost knot."""
    one = tf.constant(1.0, tf.float64)
    padded = tfb.RationalQuadraticSpline(
        one * [1.0, 2.0], one * [2.0, 1.0], one * [1.5], range_min=-1.5 * one
    )
    with pytest.raises(AssertionError, match="with respect to parameter 'range_min'"):
        check_bijector(padded, np.array([-1.0]), properties=["gradients"])
