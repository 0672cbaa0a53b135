from __future__ import annotations

import itertools

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flowvae.bijectors import ContractiveResidual
from tfp_flowvae.bijectors.internal.residual_inverse import iteration_bound

tfb, tfd = tfp.bijectors, tfp.distributions


def weights(sizes, seed=0, scale=1.0, dtype=np.float64, batch=()):
    rng = np.random.default_rng(seed)
    pairs = list(itertools.pairwise(sizes))
    kernels = [tf.constant(scale * rng.standard_normal((*batch, *pair)), dtype) for pair in pairs]
    return kernels, [tf.constant(rng.standard_normal(pair[1]), dtype) for pair in pairs]


EPS = np.finfo(np.float64).eps


def points(*shape, seed=1, dtype=np.float64):
    return tf.constant(np.random.default_rng(seed).standard_normal(shape), dtype)


NUMPY_ACTIVATIONS = {
    "lipswish": lambda t: t / (1.0 + np.exp(-t)) / 1.1,
    "elu": lambda t: np.where(t > 0, t, np.expm1(np.minimum(t, 0.0))),
    "sin": np.sin,
    "tanh": np.tanh,
}


@pytest.mark.parametrize("activation", NUMPY_ACTIVATIONS)
def test_forward_is_the_formula_and_slopes_are_at_most_one(activation):
    kernels, biases = weights([3, 7, 4, 3])
    bijector = ContractiveResidual(kernels, biases, lipschitz=0.8, activation=activation)
    x = hidden = points(5, 3).numpy()
    error = 0.0
    h = NUMPY_ACTIVATIONS[activation]
    for i, (kernel, bias) in enumerate(zip(kernels, biases, strict=True)):
        norm = np.linalg.norm(kernel, 2)
        limit = 0.8 ** (1 / 3)
        matrix = kernel.numpy() * min(1.0, limit / norm)
        hidden = hidden @ matrix
        # The norm that is used is above the true one by a factor of up to n^(1/4096).
        excess = min(kernel.shape) ** (1 / 4096) - 1.0
        error = limit * error + excess * np.linalg.norm(hidden, axis=-1)
        hidden = h(hidden + bias.numpy()) if i < 2 else hidden + bias.numpy()
    error += 3 * (7 + 10) * EPS * np.linalg.norm(x + hidden, axis=-1)  # sums of up to 7 terms
    assert np.all(np.linalg.norm(bijector.forward(x) - (x + hidden), axis=-1) <= error)
    t = np.linspace(-12, 12, 100_001)
    rounding = 4 * EPS * 12.0 / (t[1] - t[0])  # of t and h(t), twice, in a difference
    assert np.max(np.abs(np.diff(h(t)) / np.diff(t))) <= 1.0 + rounding


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scale", [0.0, 1e-40, 1e-20, 1e-3, 1.0, 1e10, 3e37])
def test_the_kernels_norms_are_truly_bounded(dtype, scale):
    for shape in [(2, 9), (9, 2), (6, 6), (1, 1), (64, 64)]:
        rng = np.random.default_rng(0)
        for matrix in (rng.standard_normal(shape), np.ones(shape), np.eye(*shape)):
            kernel = tf.constant(scale * matrix, dtype)
            bijector = ContractiveResidual(
                [kernel, tf.transpose(kernel)],
                [tf.zeros([shape[1]], dtype), tf.zeros([shape[0]], dtype)],
                lipschitz=0.9,
            )
            for given, got in zip(bijector.kernels, bijector.constrained_kernels(), strict=True):
                norm = np.linalg.norm(got.numpy().astype(np.float64), 2)
                wanted = min(np.linalg.norm(given.numpy().astype(np.float64), 2), 0.9**0.5)
                eps = np.finfo(dtype).eps
                assert norm <= 0.9**0.5 * (1 + eps)
                # The norm that is used is above the true one by a factor of up to n^(1/4096), and
                # by four times what its sums may lose.
                low = min(shape) ** (-1 / 4096) / (1 + 5 * sum(shape) * eps)
                assert norm >= low * wanted


def test_kernels_within_the_bound_are_unchanged():
    kernels, biases = weights([3, 5, 3], scale=0.05)
    for given, got in zip(
        kernels, ContractiveResidual(kernels, biases).constrained_kernels(), strict=True
    ):
        np.testing.assert_allclose(got, given, rtol=2 * EPS)  # scaled to 1 and back


def test_normalisation_has_the_gradient_of_finite_differences(assert_slope):
    kernels, _ = weights([4, 3, 4])
    direction = points(4, 3, seed=5)

    def normalised(kernel):
        biases = [tf.zeros([3], tf.float64), tf.zeros([4], tf.float64)]
        first = ContractiveResidual([kernel, kernels[1]], biases).constrained_kernels()[0]
        return tf.reduce_sum(first * points(4, 3, seed=6))

    with tf.GradientTape() as tape:
        tape.watch(kernels[0])
        value = normalised(kernels[0])
    got = tf.reduce_sum(tape.gradient(value, kernels[0]) * direction)
    # Twelve terms, each of a kernel whose powers are rounded in sums of up to 4 terms: their errors
    # count half each time, and are together twice that of the first.
    assert_slope(got, lambda step: normalised(kernels[0] + step * direction), 12 * (2 * 4 + 4))


@pytest.mark.parametrize("lipschitz", [0.5, 0.97])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_inverse_to_rounding(lipschitz, dtype):
    kernels, biases = weights([4, 16, 4], scale=10.0, dtype=dtype)
    bijector = ContractiveResidual(kernels, biases, lipschitz=lipschitz, activation="sin")
    x = 10.0 * points(64, 4, dtype=dtype)
    back = bijector.inverse(tf.identity(bijector.forward(x)))
    # f rounds sums of 4 and 16 terms, the sines and the last sum, and its inverse does so again and
    # multiplies both by up to 1 / (1 - L).
    allowed = 2 * (4 + 16 + 4) * np.finfo(dtype).eps / (1 - lipschitz)
    assert np.max(np.abs(back - x)) <= allowed * np.max(np.abs(x))


# Of a sum of some ten numbers, each rounded in sums of up to 5 terms and in ten operations, and
# what the inverse makes of it, at the default L = 0.9.
INVERSE_ROUNDINGS = 10 * (5 + 10) / (1 - 0.9)


@pytest.mark.parametrize("lipschitz", [0.1, 0.9, 0.99])
def test_iteration_bound_suffices_at_the_worst(lipschitz):
    # x + c x, the slowest of all: the kernel is a multiple of the identity.
    dtype = tf.float64
    residual = ContractiveResidual(
        [2.0 * tf.eye(2, dtype=dtype)], [tf.zeros([2], dtype)], lipschitz=lipschitz
    )
    slope = residual.constrained_kernels()[0][0, 0]
    y = tf.constant([1.0, -3.0], dtype)
    # The last difference that stops the iteration may leave c / (1 - c) of it.
    inverse = tf.function(residual.inverse)(y)
    # So may the rounding of a step: two eps of the largest numbers, a product and a difference.
    allowed = (1 + 2) * EPS / (1 - lipschitz) * 2 * np.max(np.abs(y))
    np.testing.assert_allclose(inverse, y / (1.0 + slope), rtol=0.0, atol=allowed)
    contraction = lipschitz ** iteration_bound(lipschitz, dtype) / (1 - lipschitz)
    slack = 64 * EPS  # of a logarithm of up to 64, and so relative of the power
    assert contraction <= EPS * (1 + slack)
    assert contraction >= lipschitz * EPS * (1 - slack)  # one step fewer would not do


def test_gradients_of_density_at_arbitrary_points_match_differences(assert_slope):
    kernels, biases = weights([2, 5, 2])
    y, direction = points(3, 2), [points(2, 5, seed=8), points(5, 2, seed=9)]

    def log_prob(y, first, second):
        bijector = ContractiveResidual([first, second], biases, activation="sin")
        base = tfd.MultivariateNormalDiag(tf.zeros([2], tf.float64))
        return tf.reduce_sum(tfd.TransformedDistribution(base, bijector).log_prob(y))

    arguments = [y, *kernels]
    directions = [points(3, 2, seed=7), *direction]
    with tf.GradientTape() as tape:
        tape.watch(arguments)
        value = log_prob(*arguments)
    for i, gradient in enumerate(tape.gradient(value, arguments)):

        def moved(step, i=i):
            there = list(arguments)
            there[i] = there[i] + step * directions[i]
            return log_prob(*there)

        assert_slope(tf.reduce_sum(gradient * directions[i]), moved, INVERSE_ROUNDINGS)


def test_second_derivatives_of_the_inverse(assert_slope):
    kernels, biases = weights([2, 4, 2])
    kernel, direction = kernels[0], points(2, 4, seed=3)
    y, weight = points(2, 2), points(2, 2, seed=4)

    def gradients(y, kernel):
        with tf.GradientTape() as tape:
            tape.watch([y, kernel])
            bijector = ContractiveResidual([kernel, kernels[1]], biases, activation="sin")
            value = tf.reduce_sum(tf.sin(bijector.inverse(y)) * weight)
        d_y, d_kernel = tape.gradient(value, [y, kernel])
        return tf.reduce_sum(d_y * weight) + tf.reduce_sum(d_kernel * direction)

    with tf.GradientTape() as tape:
        tape.watch([y, kernel])
        value = gradients(y, kernel)
    d_y, d_kernel = tape.gradient(value, [y, kernel])
    along_y, along_kernel = tf.reduce_sum(d_y * weight), tf.reduce_sum(d_kernel * direction)
    assert_slope(along_y, lambda s: gradients(y + s * weight, kernel), INVERSE_ROUNDINGS)
    assert_slope(along_kernel, lambda s: gradients(y, kernel + s * direction), INVERSE_ROUNDINGS)


def test_large_networks_log_det_against_autodiff(log_det_of):
    kernels, biases = weights([64, 32, 64])
    bijector = ContractiveResidual(kernels, biases, lipschitz=0.99)
    x = points(64)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = bijector.forward(x)
    jacobian = tape.jacobian(y, x)
    assert np.linalg.det(jacobian) > 0.0
    wanted, unit = log_det_of(jacobian)
    error = np.abs(bijector.forward_log_det_jacobian(x) - wanted)
    assert error <= (64 + 32 + 10) * unit  # sums of 64 and 32 terms


def test_zero_kernels_are_a_shift():
    zeros = [tf.zeros([2, 3]), tf.zeros([3, 2])]
    bijector = ContractiveResidual(zeros, [tf.ones([3]), tf.constant([1.0, -2.0])])
    np.testing.assert_array_equal(bijector.forward([0.0, 0.0]), [1.0, -2.0])
    assert bijector.forward_log_det_jacobian([0.0, 0.0]) == 0.0


def test_batches_of_parameters(rounding):
    kernels, biases = weights([2, 3, 2], batch=(4,))
    bijector = ContractiveResidual(kernels, biases)
    assert bijector.experimental_batch_shape() == [4]
    assert bijector[1:3].experimental_batch_shape() == [2]
    x = points(5, 4, 2)
    y, log_det = bijector.forward_and_log_det(x)
    assert log_det.shape == [5, 4]
    single = ContractiveResidual([k[2] for k in kernels], biases)
    # Sums of 2 and 3 terms, ten operations more, and what f^-1 makes of them at L = 0.9.
    n = (2 + 3 + 10) / (1 - 0.9)
    wanted, wanted_log_det = single.forward_and_log_det(x[:, 2])
    np.testing.assert_allclose(y[:, 2], wanted, **rounding(n, wanted, x))
    own = bijector[2].forward_log_det_jacobian(x[:, 2])
    for got in (own, log_det[:, 2]):
        np.testing.assert_allclose(got, wanted_log_det, **rounding(n, 1.0, wanted_log_det))
    back = single.inverse(y[0, 0])
    np.testing.assert_allclose(bijector.inverse(y[0, 0])[2], back, **rounding(n, back, y[0, 0]))


def test_one_trace_for_two_instances_and_live_variables(rounding):
    traces = []

    @tf.function
    def forward(bijector, x):
        traces.append(1)
        return bijector.forward(x)

    x = points(4, 2, dtype=np.float32)
    for seed in (0, 1):
        bijector = ContractiveResidual(*weights([2, 3, 2], seed, dtype=np.float32))
        wanted = bijector.forward(x)
        # Sums of 2 and 3 terms, and ten operations more.
        allowed = rounding(2 + 3 + 10, wanted, x)
        np.testing.assert_allclose(forward(bijector, x), wanted, **allowed)
    assert len(traces) == 1
    kernels, biases = ([tf.Variable(p) for p in part] for part in weights([2, 3, 2]))
    model = tfd.TransformedDistribution(
        tfd.MultivariateNormalDiag(tf.zeros([2], tf.float64)),
        tfb.Chain([tfb.Invert(ContractiveResidual(kernels, biases))]),
    )
    assert len(model.trainable_variables) == 4
    before = model.log_prob(points(2)).numpy()
    kernels[0].assign(-kernels[0])
    assert model.log_prob(points(2)) != before


K32 = [tf.zeros([2, 3]), tf.zeros([3, 2])]
B32 = [tf.zeros([3]), tf.zeros([2])]


@pytest.mark.parametrize(
    ("error", "message", "change"),
    [
        (ValueError, r"lipschitz=1\.0", {"lipschitz": 1.0}),
        (ValueError, r"lipschitz=nan", {"lipschitz": float("nan")}),
        (ValueError, r"Received: 'relu'", {"activation": "relu"}),
        (ValueError, r"Received: 'guess'", {"log_det": "guess"}),
        (ValueError, r"Received: seed=None", {"log_det": "series"}),
        (TypeError, r"Received: dtype float64", {"log_det": "series", "seed": 0.5}),
        (ValueError, r"Received: shape \(3,\)", {"log_det": "series", "seed": [1, 2, 3]}),
        (ValueError, r"Received: terms=0", {"terms": 0}),
        (ValueError, r"Received: probes=1\.5", {"probes": 1.5}),
        (ValueError, r"0 kernels and 0 biases", {"kernels": [], "biases": []}),
        (ValueError, r"2 kernels and 1 biases", {"biases": B32[:1]}),
        (
            ValueError,
            r"a SymbolicTensor|a EagerTensor of shape \(1, 2, 3\)",
            {"kernels": K32[0][tf.newaxis]},
        ),
        (ValueError, r"kernels_1\.shape=\(3, 4\)", {"kernels": [K32[0], tf.zeros([3, 4])]}),
        (ValueError, r"biases_0\.shape=\(5,\)", {"biases": [tf.zeros([5]), B32[1]]}),
        (
            TypeError,
            r"kernels_0\.dtype=float64",
            {"kernels": [tf.cast(K32[0], tf.float64), K32[1]]},
        ),
        (TypeError, r"biases_1\.dtype=int32", {"biases": [B32[0], tf.zeros([2], tf.int32)]}),
        (
            ValueError,
            r"holding nan",
            {"biases": [B32[0], [float("nan"), 0.0]], "validate_args": True},
        ),
    ],
)
def test_errors_name_what_was_received(error, message, change):
    with pytest.raises(error, match=message):
        ContractiveResidual(**{"kernels": K32, "biases": B32, **change})


def test_errors_for_sizes():
    big = [tf.zeros([65, 2]), tf.zeros([2, 65])], [tf.zeros([2]), tf.zeros([65])]
    with pytest.raises(ValueError, match=r'"series" or "roulette" beyond. Received: D=65'):
        ContractiveResidual(*big)
    assert ContractiveResidual(*big, log_det="roulette", seed=0).forward(tf.ones([65])).shape == [
        65
    ]
    with pytest.raises(ValueError, match=r"Received: shape \(4, 3\)"):
        ContractiveResidual(K32, B32).forward(tf.zeros([4, 3]))
