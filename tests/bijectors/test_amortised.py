"""Parameters that a network computes, compiled for a batch of unknown size: as in a VAE's `fit`.

XLA refuses some of TensorFlow's gradients only there, where shapes are not known at tracing.
"""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tfp_flowvae import bijectors as fvb

D, M, K = 4, 2, 3
SQUARES = {"r": (D, D), "r_tilde": (D, D), "b": (D,)}
CASES = {
    "planar": (fvb.PlanarFlow, {"u": (K, D), "w": (K, D), "b": (K,)}),
    "radial": (
        lambda center, raw, beta: fvb.RadialFlow(center, tf.exp(raw), beta),
        {"center": (K, D), "raw": (K,), "beta": (K,)},
    ),
    "householder": (fvb.HouseholderFlow, {"v": (K, D)}),
    "orthogonal_sylvester": (
        fvb.OrthogonalSylvester,
        {"q": (D, M), "r": (M, M), "r_tilde": (M, M), "b": (M,)},
    ),
    "householder_sylvester": (fvb.HouseholderSylvester, {"v": (K, D), **SQUARES}),
    "orthogonal_sylvester_flow": (
        fvb.OrthogonalSylvesterFlow,
        {"q": (K, D, M), "r": (K, M, M), "r_tilde": (K, M, M), "b": (K, M)},
    ),
    "householder_sylvester_flow": (
        fvb.HouseholderSylvesterFlow,
        {"v": (K, 2, D), "r": (K, D, D), "r_tilde": (K, D, D), "b": (K, D)},
    ),
    "triangular_sylvester": (fvb.TriangularSylvester, SQUARES),
    "lu_linear": (fvb.LULinear, {"lower": (D, D), "log_diag": (D,), "upper": (D, D)}),
    "act_norm": (fvb.ActNorm, {"log_scale": (D,), "shift": (D,)}),
}
QUICK = ("planar", "householder", "lu_linear")


@pytest.mark.parametrize("part", [fvb.forward_and_log_det, fvb.inverse_and_log_det])
@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in CASES]
)
def test_gradients_compile_for_a_batch_of_unknown_size(name, part, assert_same):
    make, shapes = CASES[name]
    sizes = [int(np.prod(shape)) for shape in shapes.values()]

    def gradients(flat, x):
        with tf.GradientTape() as tape:
            tape.watch((flat, x))
            pieces = tf.split(flat, sizes, axis=-1)
            parameters = {
                key: tf.reshape(piece, tf.concat([tf.shape(flat)[:1], shape], axis=0))
                for (key, shape), piece in zip(shapes.items(), pieces, strict=True)
            }
            y, log_det = part(make(**parameters), x)
            total = tf.reduce_sum(tf.sin(y)) + tf.reduce_sum(log_det)
        zero = tf.UnconnectedGradients.ZERO
        return tape.gradient(total, (flat, x), unconnected_gradients=zero)

    signature = [tf.TensorSpec([None, sum(sizes)]), tf.TensorSpec([None, None, D])]
    compiled = tf.function(gradients, input_signature=signature, autograph=False, jit_compile=True)
    rng = np.random.default_rng(0)
    flat = tf.constant(rng.normal(scale=0.5, size=(3, sum(sizes))), tf.float32)
    x = tf.constant(rng.normal(size=(2, 3, D)), tf.float32)
    # A number is rounded in sums of D terms and in ten operations or so, in each of K steps, and
    # as often on the way back.
    assert_same(
        lambda given: compiled(*given), lambda given: gradients(*given), (flat, x), 2 * K * (D + 10)
    )
