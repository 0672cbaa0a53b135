from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from scipy import integrate, stats

from tfp_flowvae.bijectors import MarginalInverseCDF, fit_rbig, forward_and_log_det
from tfp_flowvae.testing import check_bijector

tfb, tfd = tfp.bijectors, tfp.distributions


def moons(count, seed, dtype=np.float32):
    rng = np.random.default_rng(seed)
    angle, upper = rng.uniform(0.0, np.pi, count), rng.integers(0, 2, count)
    arcs = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    points = np.where(upper[:, np.newaxis] == 1, arcs, [1.0, 0.5] - arcs)
    return (points + 0.1 * rng.standard_normal((count, 2))).astype(dtype)


def model_of(flow, size, dtype=tf.float32):
    return tfd.TransformedDistribution(tfd.MultivariateNormalDiag(tf.zeros([size], dtype)), flow)


def negentropy(z, directions=24):
    """The largest over some directions, by Vasicek's spacing estimate of entropy, in nats."""
    rng = np.random.default_rng(0)
    axes = rng.standard_normal((z.shape[1], directions))
    projected = z @ (axes / np.linalg.norm(axes, axis=0))
    entropies = stats.differential_entropy(projected, axis=0, method="vasicek")
    return np.max(0.5 * np.log(2 * np.pi * np.e * projected.var(0)) - entropies)


TRAIN, TEST = moons(2000, 0), moons(1000, 1)


@pytest.fixture(scope="module", params=["random", "pca"])
def flow(request):
    return fit_rbig(TRAIN, layers=25, rotation=request.param, seed=3)


def test_beats_a_gaussian_on_held_out_data(flow):
    gaussian = stats.multivariate_normal(TRAIN.mean(0), np.cov(TRAIN.T))
    got = model_of(flow, 2).log_prob(TEST).numpy().mean()
    assert got > gaussian.logpdf(TEST).mean() + 0.6
    # No density can beat the true one, here by numerical integration over the arcs.
    angle = np.linspace(0.0, np.pi, 400)
    arc = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    centers = np.concatenate([arc, [1.0, 0.5] - arc])
    squares = np.sum(np.square(TEST[:, np.newaxis] - centers), axis=-1)
    true = np.log(np.mean(np.exp(-squares / 0.02), axis=1) / (2 * np.pi * 0.01)).mean()
    assert true - 0.35 < got < true + 0.05


def test_training_data_become_standard_normal(flow):
    z = flow.inverse(TRAIN).numpy().astype(np.float64)
    # To five standard errors of as many normal numbers.
    error = 5 / np.sqrt(len(z))
    np.testing.assert_allclose(z.mean(0), 0.0, atol=error)
    np.testing.assert_allclose(np.cov(z.T), np.eye(2), rtol=0.0, atol=error * np.sqrt(2))
    np.testing.assert_allclose(stats.skew(z), 0.0, atol=error * np.sqrt(6))
    np.testing.assert_allclose(stats.kurtosis(z), 0.0, atol=error * np.sqrt(24))
    assert abs(stats.spearmanr(np.abs(z))[0]) < error
    # An entropy is a mean of logarithms whose variance is 1 / 2.
    normal = np.random.default_rng(0).standard_normal(z.shape)
    assert negentropy(z) < negentropy(normal) + error * np.sqrt(0.5) < negentropy(TRAIN)


def test_density_of_two_dimensions_integrates_to_one(flow):
    edge = np.linspace(-3.0, 4.0, 211)
    grid = np.stack(np.meshgrid(edge, edge, indexing="ij"), axis=-1).reshape(-1, 2)
    density = np.exp(model_of(flow, 2).log_prob(grid.astype(np.float32)).numpy().astype(np.float64))
    density = density.reshape(211, 211)
    total, coarse = (
        integrate.trapezoid(integrate.trapezoid(density[::n, ::n], edge[::n]), edge[::n])
        for n in (1, 2)
    )
    # The rule over points twice as far apart is off by more. A log-density of size 10 is rounded
    # 16 times in each of 25 layers.
    allowed = abs(total - coarse) + 16 * 25 * 10 * np.finfo(np.float32).eps
    np.testing.assert_allclose(total, 1.0, rtol=0.0, atol=allowed)


def test_samples_look_like_the_data(flow):
    samples = model_of(flow, 2).sample(2000, seed=[1, 2]).numpy()
    for direction in ([1, 0], [0, 1], [0.6, 0.8], [0.8, -0.6]):
        distance = stats.ks_2samp(samples @ direction, TEST @ direction).statistic
        # The 1 / 1000 quantile of its distribution, with the error of the fit to 2000 points.
        assert distance < 1.95 * np.sqrt(1 / 2000 + 1 / 2000 + 1 / 1000)


def test_each_layer_lowers_the_negentropy():
    # The joint negentropy of what the layers have made of the data is, but for a constant, minus
    # the mean log-likelihood of the flow that ends there.
    flow = fit_rbig(TRAIN, layers=12, seed=1)
    z, log_det, found = TRAIN, 0.0, []
    for part in flow.bijectors:  # from the data to the base
        log_det += part.inverse_log_det_jacobian(z, event_ndims=1).numpy()
        z = part.inverse(z).numpy()
        if isinstance(part, MarginalInverseCDF):
            found.append(np.mean(stats.norm.logpdf(z).sum(-1) + log_det))
    assert len(found) == 12
    assert np.all(np.diff(found) > -0.01)
    assert found[-1] - found[0] > 0.3
    assert negentropy(z) < 0.3 * negentropy(TRAIN)


def test_one_dimension_integrates_to_one(trapezoid):
    rng = np.random.default_rng(0)
    data = np.where(rng.random(800) < 0.5, -3.0, 1.0) + rng.gamma(2.0, 0.3, 800)
    flow = fit_rbig(data[:, np.newaxis], layers=3, rotation="pca")
    grid = np.linspace(-20.0, 20.0, 40_001)
    density = np.exp(model_of(flow, 1, tf.float64).log_prob(grid[:, np.newaxis]))
    total, error = trapezoid(density, grid)
    assert abs(total - 1.0) <= error
    assert density[np.argmin(np.abs(grid - 0.0))] < 0.2 * density.max()


def test_ten_correlated_dimensions_of_unlike_units():
    rng = np.random.default_rng(0)
    mixing = rng.standard_normal((10, 10)) * 10.0 ** np.arange(-4, 6)
    train, test = (1e3 + rng.laplace(size=(1500, 10)) @ mixing for _ in range(2))
    flow = fit_rbig(train, layers=3)
    got = model_of(flow, 10, tf.float64).log_prob(test).numpy().mean()
    scale = np.sum(np.log(train.std(0)))
    standard = stats.multivariate_normal(np.zeros(10), np.corrcoef(train.T))
    whitened = (test - train.mean(0)) / train.std(0)
    assert got > standard.logpdf(whitened).mean() - scale + 0.03
    # Five standard errors of the test's 1500 points and of the 1500 that were fitted.
    allowed = 5 * np.sqrt(2 / 1500 + 2 / 1500)
    covariance = np.cov(flow.inverse(test).numpy().T)
    np.testing.assert_allclose(covariance, np.eye(10), rtol=0.0, atol=allowed)


def test_it_is_an_ordinary_chain(assert_same):
    data = moons(100, 0, np.float64)
    flow = fit_rbig(data, layers=2, num_knots=6, validate_args=True)
    assert isinstance(flow, tfb.Chain)
    assert len(flow.bijectors) == 6
    check_bijector(
        flow,
        data[:3],
        properties=[
            "inverse_of_forward",
            "forward_log_det",
            "opposite_log_dets",
            "xla",
            "saved_model",
        ],
    )
    separate = lambda x: (flow.forward(x), flow.forward_log_det_jacobian(x))  # noqa: E731
    joint = lambda x: forward_and_log_det(flow, x)  # noqa: E731
    assert_same(joint, separate, data[:4], 16)  # of the numbers of a spline


def test_the_seed_decides():
    data = moons(60, 0)
    x = tf.constant(TEST[:5])
    same = [fit_rbig(data, 3, num_knots=8, seed=s).inverse(x).numpy() for s in (1, 1, 2)]
    np.testing.assert_array_equal(same[0], same[1])
    assert np.all(same[0] != same[2])


@pytest.mark.parametrize(
    ("error", "message", "arguments"),
    [
        (ValueError, "layers=0", {"layers": 0}),
        (ValueError, r"layers=2\.5", {"layers": 2.5}),
        (ValueError, "Received: 'ica'", {"rotation": "ica"}),
        (ValueError, "fit_rbig .* num_knots=2", {"num_knots": 2}),
        (TypeError, "fit_rbig .* int64", {"x": np.zeros((20, 2), np.int64)}),
    ],
)
def test_errors(error, message, arguments):
    with pytest.raises(error, match=message):
        fit_rbig(**{"x": TRAIN, "layers": 2, **arguments})
