from __future__ import annotations

import itertools
import json
import os
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from tfp_flowvae.distributions import BASES
from tfp_flowvae.flows import FLOWS

POSTERIORS = [name for name, entry in FLOWS.items() if entry.fast_sample]
PRIORS = [
    *(name for name, entry in FLOWS.items() if entry.fast_density),
    *(name for name, entry in BASES.items() if entry.prior and name != "normal"),
    "mixture+realnvp",
]


def pytest_generate_tests(metafunc):
    """Runs a test that takes `flow` and `prior` on every posterior with every prior.

    All but a selection that has each of them at least once are marked slow; the selection shifts
    from test to test. A test with parameters of its own is left alone.
    """
    if not {"flow", "prior"} <= set(metafunc.fixturenames):
        return
    own = (str(mark.args[0]) for mark in metafunc.definition.iter_markers("parametrize"))
    if any(word in names for names in own for word in ("flow", "prior")):
        return
    shift = sum(map(ord, metafunc.function.__name__))
    longest = max(len(POSTERIORS), len(PRIORS))
    chosen = {
        (POSTERIORS[i % len(POSTERIORS)], PRIORS[(i + shift) % len(PRIORS)]) for i in range(longest)
    }
    metafunc.parametrize(
        ("flow", "prior"),
        [
            pytest.param(*pair, marks=[] if pair in chosen else [pytest.mark.slow])
            for pair in itertools.product(POSTERIORS, PRIORS)
        ],
    )


@pytest.fixture(scope="session")
def small_spec():
    """A function from a stack's names, without options, to a spec that is quick to run."""

    def small(name):
        if name in BASES:
            return f"{name}:3" if BASES[name].options else name
        options = FLOWS[name].options
        parts = ["2"] if "length" in options else []
        parts += [f"{k}={v}" for k, v in {"hidden": 8, "bins": 4}.items() if k in options]
        return name + (":" + ",".join(parts) if parts else "")

    return lambda spec: spec if ":" in spec else "+".join(map(small, spec.split("+")))


@pytest.fixture(scope="session")
def rounding():
    """A function to the tolerance between numbers that are the same but for rounding.

    It is `terms` eps times the largest of the values: a sum of n numbers, in whatever order, errs
    by at most n eps times the sum of their sizes, and n / 2 times eps is usual. `terms` is how many
    roundings follow one after the other, times a condition number where there is one. eps is that
    of the least precise of the values.
    """

    def tolerance(terms, *values):
        arrays = [np.asarray(value) for value in values]
        eps = max(np.finfo(array.dtype).eps for array in arrays)
        largest = max(np.abs(array).max(initial=0.0) for array in arrays)
        return {"rtol": 0.0, "atol": float(terms * eps * largest)}

    return tolerance


@pytest.fixture(scope="session")
def one_eps():
    """`one_eps(fn, arguments, *layers, rounds=2)`: how far one rounding moves fn's results.

    Each number of the arguments (a nest of arrays or tensors) and of the weights of the layers is
    changed by one eps up or down, at random and `rounds` times. The answer has a number for each
    flattened result of fn: the largest change in it, and not less than one eps of its own largest
    value. Two ways to compute fn that round each number some n times may differ by n of these.
    """

    import tensorflow as tf

    def changes(fn, arguments=(), *layers, rounds=2):
        rng = np.random.default_rng(0)
        weights = [weight for layer in layers for weight in layer.weights]
        values = [np.asarray(weight) for weight in weights]

        def rounded(value):
            value = np.asarray(value)
            if np.issubdtype(value.dtype, np.floating):
                eps = np.finfo(value.dtype).eps
                moved = value * (1.0 + eps * rng.choice([-1.0, 1.0], size=value.shape))
                value = moved.astype(value.dtype)
            return tf.constant(value)

        there = _flat(fn(tf.nest.map_structure(lambda v: tf.constant(np.asarray(v)), arguments)))
        found = [np.finfo(part.dtype).eps * np.max(np.abs(part), initial=0.0) for part in there]
        for _ in range(rounds):
            for weight, value in zip(weights, values, strict=True):
                weight.assign(rounded(value))
            moved = _flat(fn(tf.nest.map_structure(rounded, arguments)))
            changed = (
                np.max(np.abs(a - b), initial=0.0) for a, b in zip(moved, there, strict=True)
            )
            found = [max(old, float(new)) for old, new in zip(found, changed, strict=True)]
        for weight, value in zip(weights, values, strict=True):
            weight.assign(value)
        return found

    return changes


@pytest.fixture(scope="session")
def assert_within():
    """`assert_within(got, wanted, unit, n)`: each part of a nest is right to n of its units."""

    def check(got, wanted, unit, n, message=""):
        for ours, theirs, one in zip(_flat(got), _flat(wanted), unit, strict=True):
            assert ours.dtype == theirs.dtype
            np.testing.assert_allclose(ours, theirs, rtol=0.0, atol=n * one, err_msg=message)

    return check


@pytest.fixture(scope="session")
def log_det_of():
    """`log_det_of(jacobian)`: its log|det|, `[...]`, and what one eps in each entry changes in it.

    To first order that is at most sum_ij |J^-1_ji J_ij| eps. The elimination rounds each entry D
    times, and a Jacobian that comes from automatic differentiation some tens of times.
    """

    def evaluate(jacobian):
        jacobian = np.asarray(jacobian)
        inverse = np.linalg.inv(jacobian)
        unit = np.sum(np.abs(np.swapaxes(inverse, -1, -2) * jacobian), axis=(-2, -1))
        return np.linalg.slogdet(jacobian)[1], np.finfo(jacobian.dtype).eps * unit

    return evaluate


def _flat(results):
    import tensorflow as tf

    return [np.asarray(part) for part in tf.nest.flatten(results)]


@pytest.fixture
def mixed_bfloat16():
    import keras

    previous = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    yield
    keras.config.set_dtype_policy(previous)


@pytest.fixture(scope="session")
def digits():
    """256 binary 8 x 8 images."""
    from sklearn.datasets import load_digits

    return (load_digits().images[:256, :, :, None] >= 8).astype(np.float32)


@pytest.fixture(scope="session")
def stir():
    """A function that moves every weight of a layer away from its start."""

    def move(layer, scale=0.2, seed=0):
        rng = np.random.default_rng(seed)
        for weight in layer.trainable_weights:
            weight.assign_add((scale * rng.normal(size=weight.shape)).astype(weight.dtype))
        return layer

    return move


@pytest.fixture
def make_vae(small_spec):
    """A function that builds a small FlowVAE from the names or specs of a flow and a prior.

    A part given as `encoder`, `posterior`, `prior_part` or `decoder` is taken as it is.
    """
    from tfp_flowvae import FlowVAE

    def make(flow="none", prior="none", image_shape=(8, 8, 1), latent_size=4, **parts):
        defaults = {
            "encoder": "mlp:16",
            "posterior": small_spec(flow),
            "prior": small_spec(prior),
            "decoder": "mlp:16",
        }
        if "prior_part" in parts:
            parts["prior"] = parts.pop("prior_part")
        parts = {**defaults, **parts}
        return FlowVAE(image_shape=image_shape, latent_size=latent_size, **parts)

    return make


@pytest.fixture
def refusal(capsys):
    """`refusal(*arguments)`: the one sentence with which the command line refuses them.

    The exit status must be 2, and no file in the current folder may have changed.
    """
    from tfp_flowvae.cli import main

    def files():
        return {path: path.stat().st_mtime_ns for path in Path.cwd().rglob("*")}

    def check(*arguments):
        before = files()
        try:
            status = main(list(arguments))
        except SystemExit as stop:
            status = stop.code
        captured = capsys.readouterr()
        assert status == 2
        assert captured.out == ""
        assert captured.err.startswith("Error: ")
        assert captured.err.count("\n") == 1
        assert files() == before
        return captured.err

    return check


@pytest.fixture
def launch():
    """A function that runs a Python file without GPUs; what it started is dead when a test ends."""
    started = []

    def launch(*arguments, **variables):
        process = subprocess.Popen(
            [sys.executable, *arguments],
            env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONUNBUFFERED": "1", **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return process

    yield launch
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def loopback_cluster():
    """A function from a number of workers to each one's TF_CONFIG, on free ports of loopback."""

    def cluster(workers):
        with ExitStack() as stack:
            unused = [stack.enter_context(socket.socket()) for _ in range(workers)]
            for one in unused:
                one.bind(("127.0.0.1", 0))
            hosts = [f"127.0.0.1:{one.getsockname()[1]}" for one in unused]
        return [
            json.dumps({"cluster": {"worker": hosts}, "task": {"type": "worker", "index": index}})
            for index in range(workers)
        ]

    return cluster


@pytest.fixture(scope="session")
def three_gaussians():
    """A `ThreeGaussians`, whose model is not to be changed."""
    return ThreeGaussians()


class ThreeGaussians:
    """A FlowVAE with three classes and one latent dimension, whose densities are known.

    z|y ~ N(m_y, spread^2), x|z ~ N(w z + b, noise^2 I), and q(z|x, y) is exact, so that p(x|y) is
    normal. An unknown class is the context 0, for which z has the mean 0. `means` are m. With
    shifts s_y, `[3, 6]`, the decoder is conditional: x|z, y ~ N(w z + b + s_y, noise^2 I).
    """

    noise, spread, means = 0.7, 0.6, np.array([-2.0, 0.5, 3.0])

    def __init__(self, shifts=None):
        rng = np.random.default_rng(1)
        self.shifts = np.zeros([3, 6]) if shifts is None else shifts
        self.w, self.b = rng.normal(size=(1, 6)), rng.normal(size=6)
        self.model = self._model(shifts is not None)

    def images(self, labels, seed=0):
        """Images drawn from p(x|y), float32 `[N, 2, 3, 1]`."""
        rng = np.random.default_rng(seed)
        z = self.means[labels] + self.spread * rng.normal(size=len(labels))
        x = (
            z[:, np.newaxis] * self.w
            + self.b
            + self.shifts[labels]
            + self.noise * rng.normal(size=(len(labels), 6))
        )
        return x.reshape(-1, 2, 3, 1).astype(np.float32)

    def log_prob(self, x, mean, shift=0.0):
        """log p(x|y) in float64, `[N]`, for the mean of p(z|y) and s_y."""
        from scipy.stats import multivariate_normal

        covariance = self.spread**2 * self.w.T @ self.w + self.noise**2 * np.eye(6)
        flat = np.asarray(x, np.float64).reshape(len(x), 6)
        return multivariate_normal(mean * self.w[0] + self.b + shift, covariance).logpdf(flat)

    def _model(self, conditional_decoder):
        import keras
        from tensorflow_probability import distributions as tfd

        from tfp_flowvae import FlowVAE
        from tfp_flowvae.likelihoods.base import Likelihood

        noise = self.noise

        class FixedGaussian(Likelihood):
            def distribution(self, output):
                return tfd.Independent(tfd.Normal(output, noise), reinterpreted_batch_ndims=3)

            def mean(self, output):
                return output

        encoder, decoder = keras.layers.Dense(1), keras.layers.Dense(6)
        model = FlowVAE(
            image_shape=(2, 3, 1),
            latent_size=1,
            encoder=keras.Sequential([keras.layers.Flatten(), encoder]),
            decoder=keras.Sequential([decoder, keras.layers.Reshape((2, 3, 1))]),
            likelihood=FixedGaussian(),
            num_classes=3,
            conditional_decoder=conditional_decoder,
        )
        variance = 1.0 / (self.spread**-2 + np.sum(self.w**2) / noise**2)
        gain = variance * self.w.T / noise**2
        encoder.set_weights([gain, -self.b @ gain])
        rows = [self.w, self.shifts] if conditional_decoder else [self.w]
        decoder.set_weights([np.concatenate(rows), self.b])
        of_label = variance * self.means / self.spread**2 - (self.shifts @ gain)[:, 0]
        _set_normal(model.prior_layer.base, self.means, self.spread)
        _set_normal(model.posterior_layer.base, [1.0, *of_label], np.sqrt(variance))
        return model


def _set_normal(base, kernel, scale):
    """Makes a `Normal` base N(kernel . context, scale^2)."""
    from tfp_flowvae.distributions.normal import UNIT_SCALE

    base._loc.set_weights([np.array(kernel)[:, np.newaxis], np.zeros(1)])
    raw = np.log(np.expm1(scale)) - UNIT_SCALE
    base._raw_scale.set_weights([np.zeros([len(kernel), 1]), np.array([raw])])
