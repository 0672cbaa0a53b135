from __future__ import annotations

import itertools

import numpy as np
import pytest
import tensorflow as tf

from tfp_flowvae.bijectors import ContractiveResidual


def weights(sizes, seed=0, scale=1.0, dtype=np.float64, batch=()):
    rng = np.random.default_rng(seed)
    pairs = list(itertools.pairwise(sizes))
    kernels = [tf.constant(scale * rng.standard_normal((*batch, *pair)), dtype) for pair in pairs]
    return kernels, [tf.constant(rng.standard_normal(pair[1]), dtype) for pair in pairs]


def points(*shape, seed=1, dtype=np.float64):
    return tf.constant(np.random.default_rng(seed).standard_normal(shape), dtype)


def test_series_converges_to_exact_within_its_bound():
    kernels, biases = weights([3, 8, 3])
    exact = ContractiveResidual(kernels, biases, lipschitz=0.6)
    x = tf.tile(points(1, 3), [20_000, 1])
    wanted = exact.forward_log_det_jacobian(x).numpy()[0]
    series = exact.copy(log_det="series", terms=12, seed=3)
    estimates = series.forward_log_det_jacobian(x).numpy()
    error = 5 * estimates.std() / np.sqrt(len(estimates))
    assert 0 < error < 0.05
    bound = 3 * 0.6**13 / (13 * 0.4)
    assert abs(estimates.mean() - wanted) < error + bound
    # One term is the trace: too few to pass the same test.
    first = exact.copy(log_det="series", terms=1, seed=3).forward_log_det_jacobian(x).numpy()
    assert abs(first.mean() - wanted) > 5 * first.std() / np.sqrt(len(first))


def test_roulette_and_its_gradient_are_unbiased():
    kernels, biases = weights([2, 6, 2])
    x = points(1, 2)

    def log_det_and_gradient(x, **options):
        with tf.GradientTape() as tape:
            tape.watch(kernels[0])
            bijector = ContractiveResidual(
                kernels, biases, lipschitz=0.85, activation="sin", **options
            )
            log_det = tf.reduce_mean(bijector.forward_log_det_jacobian(x))
        return log_det, tape.gradient(log_det, kernels[0])

    exact, exact_gradient = log_det_and_gradient(x)
    many = tf.tile(x, [32, 1])

    @tf.function
    def estimates(seeds):
        return tf.map_fn(
            lambda seed: log_det_and_gradient(many, log_det="roulette", terms=1, seed=seed),
            seeds,
            fn_output_signature=(tf.float64, tf.float64),
        )

    seeds = tf.stack([tf.range(1500), tf.zeros([1500], tf.int32)], axis=-1)
    values, gradients = (part.numpy() for part in estimates(seeds))
    for got, wanted in ((values, exact.numpy()), (gradients, exact_gradient.numpy())):
        error = got.std(0) / np.sqrt(len(seeds))
        assert np.all(error < 0.05)
        assert np.all(np.abs(got.mean(0) - wanted) < 4.5 * error)
    # Cut where the roulette begins there is a bias to be seen.
    truncated = log_det_and_gradient(tf.tile(x, [20_000, 1]), log_det="series", terms=1, seed=0)[0]
    error = values.std() / np.sqrt(len(seeds))
    assert abs(truncated - exact) > 4.5 * error


@pytest.mark.parametrize("log_det", ["series", "roulette"])
def test_estimates_are_functions_of_the_seed(log_det, assert_round_trip):
    kernels, biases = weights([3, 4, 3], dtype=np.float32)
    seed = tf.Variable([1, 2], trainable=False)
    bijector = ContractiveResidual(kernels, biases, log_det=log_det, seed=seed, probes=2)
    x = points(2, 5, 3, dtype=np.float32)
    _, log_det_joint = bijector.forward_and_log_det(x)
    np.testing.assert_array_equal(bijector.forward_log_det_jacobian(x), log_det_joint)
    # Sums of 3 and 4 terms, and the last move that ends the inverse's iteration at L = 0.9.
    assert_round_trip(lambda _: bijector, (), x, (3 + 4 + 10) / (1 - 0.9))
    assert np.unique(log_det_joint).size == 10
    seed.assign([1, 3])
    assert np.all(bijector.forward_and_log_det(x)[1] != log_det_joint)


@pytest.mark.parametrize("log_det", ["series", "roulette"])
def test_estimates_compile(log_det, assert_same):
    kernels, biases = weights([100, 8, 100], dtype=np.float32)
    x = points(3, 100, dtype=np.float32)

    def value_and_gradients(arguments):
        x, kernels = arguments
        with tf.GradientTape() as tape:
            tape.watch([x, kernels])
            bijector = ContractiveResidual(kernels, biases, log_det=log_det, seed=5, terms=3)
            y, log_det_of_x = bijector.inverse_and_log_det(x)
            loss = tf.reduce_sum(y) + tf.reduce_sum(log_det_of_x)
        return loss, tape.gradient(loss, [x, *kernels])

    compiled = tf.function(value_and_gradients, jit_compile=True)
    # Sums of 100 and 8 terms, in each of ten or so products by the Jacobian.
    assert_same(compiled, value_and_gradients, (x, kernels), 10 * (100 + 8))
