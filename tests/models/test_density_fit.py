"""FlowDensity's `fit`: what it finds, and that every way to give the data is the same."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

import tfp_flowvae as fv

EPS = float(np.finfo(np.float32).eps)
FLOW = "realnvp:1,hidden=8"


def _rows(count=64, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(count, 2)) * [2, 30] + [5, -100]).astype(np.float32)


def _contexts(count=64):
    return np.random.default_rng(9).normal(size=(count, 3)).astype(np.float32) * 50 + 7


def _density(flow=FLOW, optimizer=None, **how):
    keras.utils.set_random_seed(0)
    density = fv.FlowDensity(flow, event_size=2, **{"seed": 0, **how})
    optimizer = keras.optimizers.Adam(1e-2) if optimizer is None else optimizer
    density.compile(optimizer, run_eagerly=True)
    return density


def _fit(density, *data, **how):
    how = {"batch_size": 32, "epochs": 2, "verbose": 0, "shuffle": False, **how}
    if isinstance(data[0], tf.data.Dataset):
        how.pop("batch_size")
    return density.fit(*data, **how).history


def _to_the_optimum(density, *data, steps=300):
    """Fits by full batches, the learning rate going to 0."""
    schedule = keras.optimizers.schedules.CosineDecay(0.05, steps)
    density.compile(keras.optimizers.Adam(schedule), jit_compile=False)
    whole = tf.data.Dataset.from_tensors(data if len(data) > 1 else data[0]).repeat()
    density.fit(whole, steps_per_epoch=steps, verbose=0)


def _assert_near_the_truth(kl, parameters, count):
    """By Wilks's theorem 2 N KL is chi-squared for the maximum of the likelihood of N rows."""
    assert 0 <= kl < stats.chi2.ppf(1 - 1e-6, parameters) / (2 * count)


def test_finds_a_gaussian():
    covariance, mean = np.array([[4.0, 30.0], [30.0, 900.0]]), np.array([5.0, -100.0])
    truth = stats.multivariate_normal(mean, covariance)
    x = truth.rvs(2000, random_state=0).astype(np.float32)
    density = fv.FlowDensity("lu", event_size=2)
    _to_the_optimum(density, x)
    found = density.sample(2, seed=0).shape == (2, 2) and density.distribution()
    # The image of N(0, I): its mean and its Cholesky factor, in float64.
    origin, *ends = found.bijector.forward(np.float32([[0, 0], [1, 0], [0, 1]])).numpy()
    factor = (np.stack(ends) - origin).T.astype(np.float64)
    whitened = np.linalg.solve(factor, np.linalg.cholesky(covariance))
    shift = np.linalg.solve(factor, mean - origin)
    log_det = np.linalg.slogdet(whitened)[1]
    kl = 0.5 * (np.sum(whitened**2) + shift @ shift - 2) - log_det
    _assert_near_the_truth(kl, parameters=5, count=len(x))
    # The log-likelihood of held-out rows is the truth's, but for the KL and chance.
    test = truth.rvs(5000, random_state=1)
    difference = density.log_prob(test) - truth.logpdf(test)
    assert abs(np.mean(difference) + kl) < 5 * np.std(difference) / np.sqrt(len(test)) + 1e-5


def test_finds_the_posterior_of_a_linear_gaussian_model():
    """theta ~ N(0, I), c = H theta + e, e ~ N(0, s^2 I): p(theta|c) = N(K c, S)."""
    rng, h, s = np.random.default_rng(0), np.array([[1.0, 0.5], [0.0, 2.0], [1.0, -1.0]]), 0.7
    theta = rng.normal(size=(4000, 2))
    c = theta @ h.T + s * rng.normal(size=(4000, 3))
    covariance = np.linalg.inv(np.eye(2) + h.T @ h / s**2)
    gain = covariance @ h.T / s**2
    train, test = slice(3000), slice(3000, None)
    density = fv.FlowDensity("none", event_size=2, context_size=3, base="tril")
    theta, c = theta.astype(np.float32), (100 * c + 20).astype(np.float32)
    _to_the_optimum(density, theta[train], c[train])
    center = ((c - 20) / 100) @ gain.T
    truth = stats.multivariate_normal(np.zeros(2), covariance).logpdf(theta - center)
    difference = truth[test] - density.log_prob(theta[test], c[test]).numpy()
    # A mean, a diagonal and an entry below it, each linear in c: 5 (3 + 1) parameters.
    error = 5 * difference.std() / np.sqrt(len(difference))
    assert -error < difference.mean() < error + stats.chi2.ppf(1 - 1e-6, 20) / (2 * 3000)


@pytest.mark.parametrize("flow", ["maf:2,hidden=32", "spline:2,hidden=32"])
def test_finds_a_banana(flow):
    def draw(count, seed):
        rng = np.random.default_rng(seed)
        a = rng.normal(size=count)
        x = np.stack([a, a**2 + 0.5 * rng.normal(size=count)], axis=-1)
        return x.astype(np.float32), stats.norm.logpdf(a) + stats.norm.logpdf(x[:, 1], a**2, 0.5)

    (x, _), (test, truth) = draw(3000, 0), draw(3000, 1)
    keras.utils.set_random_seed(0)
    density = fv.FlowDensity(flow, event_size=2)
    density.compile(keras.optimizers.Adam(5e-3), jit_compile=False)
    batches = tf.data.Dataset.from_tensor_slices(x).shuffle(3000, seed=0).batch(200).repeat()
    density.fit(batches, steps_per_epoch=450, verbose=0)
    gaussian = stats.multivariate_normal(x.mean(axis=0), np.cov(x.T)).logpdf(test)
    lost = np.mean(truth - density.log_prob(test))
    assert -5 * np.std(truth - density.log_prob(test)) / np.sqrt(3000) < lost
    assert lost < 0.15 * np.mean(truth - gaussian)


def test_logs_the_log_likelihood():
    density, x = _density(), _rows()
    history = _fit(density, x, validation_data=(x[:32],))
    names = ["log_likelihood", "loss", "val_log_likelihood", "val_loss"]
    assert sorted(history) == names
    np.testing.assert_array_equal(history["loss"], -np.array(history["log_likelihood"]))
    found = density.evaluate(x, batch_size=32, verbose=0, return_dict=True)
    # Two means of 32, of which this is the mean.
    truth = np.mean(density.log_prob(x))
    np.testing.assert_allclose(found["log_likelihood"], truth, rtol=64 * EPS)
    assert found["log_likelihood"] > history["log_likelihood"][0]
    np.testing.assert_allclose(
        density.predict(x, verbose=0), density.log_prob(x), rtol=64 * EPS, atol=64 * EPS
    )


def test_the_first_fit_learns_the_units_from_the_training_rows_alone():
    density, x = _density(), _rows(100)
    _fit(density, x, validation_split=0.2, epochs=1)
    mean, scale, _ = (weight.numpy() for weight in density.non_trainable_weights[:3])
    # Sums in float64, rounded once.
    np.testing.assert_allclose(mean, x[:80].mean(axis=0, dtype=np.float64), rtol=EPS)
    np.testing.assert_allclose(scale, x[:80].std(axis=0, dtype=np.float64), rtol=EPS)
    _fit(density, 2 * x, epochs=1)
    np.testing.assert_array_equal(mean, density.non_trainable_weights[0])
    density.adapt(2 * x[:80])
    np.testing.assert_array_equal(2 * mean, density.non_trainable_weights[0])


def test_without_standardize_the_data_stay_as_they_are():
    density = _density(standardize=False)
    _fit(density, _rows(), epochs=1)
    np.testing.assert_array_equal(density.non_trainable_weights[0], [0, 0])


# A dataset has weights only after a context.
@pytest.mark.parametrize(("context", "weighted"), [(False, False), (True, False), (True, True)])
def test_arrays_and_datasets_are_the_same(context, weighted):
    x, weight = _rows(72), np.random.default_rng(1).uniform(size=72).astype(np.float32)
    data = (x, _contexts(72)) if context else (x,)
    how = {"context_size": 3} if context else {}
    first, second = _density(**how), _density(**how)
    history = _fit(first, *data, **({"sample_weight": weight} if weighted else {}))
    parts = (*data, weight) if weighted else data if context else x
    batches = tf.data.Dataset.from_tensor_slices(parts).batch(32)
    other = _fit(second, batches)
    # The statistics, joined in another order in float64, may round to another float32 number.
    np.testing.assert_allclose(other["loss"], history["loss"], rtol=64 * EPS)
    for mine, theirs in zip(first.weights, second.weights, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e3 * EPS, atol=1e3 * EPS)
    endless = _density(**how)
    again = _fit(endless, batches.repeat(), steps_per_epoch=3)
    np.testing.assert_array_equal(again["loss"], other["loss"])


def test_weights_are_repetitions():
    x, context, times = _rows(16), _contexts(16), np.arange(16) % 4
    repeated = np.repeat(x, times, axis=0), np.repeat(context, times, axis=0)
    first, second = (
        _density(context_size=3, optimizer=keras.optimizers.SGD(0.1)) for _ in range(2)
    )
    # A mean over the rows of the batch, as Keras has it: the weights have a mean of 1.
    weight = (times / times.mean()).astype(np.float32)
    _fit(first, x, context, sample_weight=weight, batch_size=16, epochs=5)
    _fit(second, *repeated, batch_size=len(repeated[0]), epochs=5)
    for mine, theirs in zip(first.weights, second.weights, strict=True):
        # Five steps with gradients that are sums of 24 numbers.
        np.testing.assert_allclose(mine, theirs, rtol=120 * EPS, atol=120 * EPS)


def test_a_run_repeats_bit_for_bit():
    found = []
    for _ in range(2):
        density = _density()
        history = _fit(density, _rows(), shuffle=True)
        found.append((history["loss"], density.sample(4), density.log_prob(_rows())))
    for first, second in zip(*found, strict=True):
        np.testing.assert_array_equal(first, second)


def test_compiled_training_with_averages_and_callbacks():
    density, x, seen = _density(), _rows(256), []
    optimizer = keras.optimizers.Adam(1e-2, use_ema=True, ema_momentum=0.9)
    density.compile(optimizer)
    stop = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(dict(logs)))
    swap = keras.callbacks.SwapEMAWeights()
    density.fit(x, batch_size=32, epochs=3, verbose=0, callbacks=[stop, swap])
    assert density.steps_per_execution == 8
    assert seen[0]["loss"] > seen[-1]["loss"]
    np.testing.assert_array_equal(
        density.trainable_weights[0], optimizer._model_variables_moving_average[0]
    )


def test_trains_under_mixed_precision(mixed_bfloat16):
    density = _density("maf:1,hidden=8")
    x = 0.1 * _rows() + 1000
    _fit(density, x)
    log_prob = density.log_prob(x)
    assert log_prob.dtype == tf.float32
    assert np.all(np.isfinite(log_prob))
