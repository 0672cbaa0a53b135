"""The examples of TFP's docstrings, run with TFP's classes and with ours: one import changes.

What the docstrings leave to Keras 2's functional API, the training, is a loop here; see
docs/from-tfp.md for `fit`. Sizes are smaller.
"""

from __future__ import annotations

import types

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from numpy.testing import assert_allclose
from tensorflow_probability import bijectors as tfb
from tensorflow_probability import distributions as tfd

from tfp_flowvae import bijectors as fvb
from tfp_flowvae import networks

OURS = types.SimpleNamespace(
    AutoregressiveNetwork=networks.AutoregressiveNetwork,
    real_nvp_default_template=networks.real_nvp_default_template,
    GlowDefaultNetwork=networks.GlowDefaultNetwork,
    GlowDefaultExitNetwork=networks.GlowDefaultExitNetwork,
    BatchNormalization=fvb.BatchNormalization,
)


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    policy, floatx = keras.config.dtype_policy(), tf_keras.backend.floatx()
    keras.config.set_dtype_policy(request.param)
    tf_keras.backend.set_floatx(request.param)
    yield request.param
    keras.config.set_dtype_policy(policy)
    tf_keras.backend.set_floatx(floatx)


def standard_normal(size, dtype):
    return tfd.Sample(tfd.Normal(np.array(0.0, dtype), 1.0), sample_shape=[size])


def gaussians(*shape, dtype):
    return np.random.default_rng(0).normal(size=shape).astype(dtype)


def assert_draws_are_scored(distribution, shape, rounding, **kwargs):
    """Draws have this shape, and their density is the same with and without TFP's cache."""
    x = distribution.sample(3, seed=(1, 2), **kwargs)
    cached = distribution.log_prob(x, **kwargs)
    anew = distribution.log_prob(tf.identity(x), **kwargs)
    assert x.shape == (3, *shape)
    assert x.dtype == distribution.dtype
    # The way there and back through two hidden layers of up to 512 units, and a sum over entries.
    terms = 4 * 2 * 512 * np.prod(shape)
    assert_allclose(cached, anew, **rounding(terms, anew, x))


def train(distribution, x, steps=20, learning_rate=0.01, **kwargs):
    """Returns the mean log-likelihood before and after some steps of Adam."""
    optimizer = keras.optimizers.Adam(learning_rate)

    def mean():
        return tf.reduce_mean(distribution.log_prob(tf.constant(x), **kwargs))

    before = mean()
    variables = distribution.trainable_variables
    optimizer.build(variables)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            loss = -mean()
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))

    for _ in range(steps):
        step()
    return float(before), float(mean())


def masked_autoregressive_flow(library, dtype, rounding):
    """Of `MaskedAutoregressiveFlow`: MAF, IAF, and a flow without scales."""

    def made(params, hidden_units):
        return library.AutoregressiveNetwork(params=params, hidden_units=hidden_units)

    base = standard_normal(2, dtype)
    maf = tfd.TransformedDistribution(
        base, tfb.MaskedAutoregressiveFlow(shift_and_log_scale_fn=made(2, [512, 512]))
    )
    iaf = tfd.TransformedDistribution(
        base, tfb.Invert(tfb.MaskedAutoregressiveFlow(shift_and_log_scale_fn=made(2, [512, 512])))
    )
    shifts = made(1, [32])
    no_scale = tfd.TransformedDistribution(
        base,
        tfb.MaskedAutoregressiveFlow(
            lambda y: (shifts(y)[..., 0], None), is_constant_jacobian=True
        ),
    )
    no_scale._made = shifts
    for distribution, variables in ((maf, 6), (iaf, 6), (no_scale, 4)):
        assert_draws_are_scored(distribution, (2,), rounding)
        assert distribution.sample().shape == (2,)
        assert distribution.log_prob(np.zeros(2, dtype)).shape == ()
        assert len(distribution.trainable_variables) == variables


def density_estimation(library, dtype, rounding):
    """Of `AutoregressiveNetwork`: the banana of Papamakarios et al. (2017), figure 1."""
    x2, noise = 2.0 * gaussians(2000, dtype=dtype), gaussians(2, 2000, dtype=dtype)[1]
    data = np.stack([noise + x2 * x2 / 4.0, x2], axis=-1)
    made = library.AutoregressiveNetwork(params=2, hidden_units=[10, 10])
    distribution = tfd.TransformedDistribution(
        standard_normal(2, dtype), tfb.MaskedAutoregressiveFlow(made)
    )
    before, after = train(distribution, data)
    assert after > before
    assert distribution.sample((3, 1)).shape == (3, 1, 2)
    assert distribution.log_prob(np.ones((3, 2), dtype)).shape == (3,)
    assert_draws_are_scored(distribution, (2,), rounding)


def conditional_density_estimation(library, dtype, rounding):
    """Of `AutoregressiveNetwork`: two clusters, told apart by the conditional input."""
    n = 2000
    c = np.r_[np.zeros(n // 2), np.ones(n // 2)].astype(dtype)[:, np.newaxis]
    x = gaussians(n, 1, dtype=dtype) + 5.0 * c
    made = library.AutoregressiveNetwork(
        params=2,
        hidden_units=[2, 2],
        event_shape=(1,),
        conditional=True,
        kernel_initializer=keras.initializers.VarianceScaling(0.1, seed=1),
        conditional_event_shape=(1,),
    )
    distribution = tfd.TransformedDistribution(
        standard_normal(1, dtype), tfb.MaskedAutoregressiveFlow(made)
    )
    told = {"bijector_kwargs": {"conditional_input": c}}
    _, after = train(distribution, x, steps=60, learning_rate=0.1, **told)
    # Entropy of the standard normal 1.419; without the condition, of the mixture, 2.1 nats.
    assert after > -1.6
    ones = {"bijector_kwargs": {"conditional_input": 1.0 * np.ones((1000, 1))}}
    samples = distribution.sample((1000,), seed=3, **ones)
    assert samples.shape == (1000, 1)
    assert abs(np.mean(samples) - 5.0) < 1.0


def image_of_one_order(library, dtype, rounding):
    """Of `AutoregressiveNetwork`: each channel of each pixel after those before it."""
    event_size = 3 * 3 * 2
    images = gaussians(100, event_size, dtype=dtype)
    made = library.AutoregressiveNetwork(
        params=2, event_shape=[event_size], hidden_units=[20, 20], activation="relu"
    )
    distribution = tfd.TransformedDistribution(
        standard_normal(event_size, dtype), tfb.MaskedAutoregressiveFlow(made)
    )
    before, after = train(distribution, images)
    assert after > before
    assert distribution.sample((3, 1)).shape == (3, 1, event_size)
    assert distribution.log_prob(np.ones((5, event_size), dtype)).shape == (5,)


def image_of_separate_channels(library, dtype, rounding):
    """Of `AutoregressiveNetwork`: `tfd.Autoregressive` with one network for all channels."""
    channels, pixels = 3, 3 * 3
    images = (gaussians(100, channels, pixels, dtype=dtype) > 0).astype(dtype)
    made = library.AutoregressiveNetwork(
        params=1, event_shape=[pixels], hidden_units=[20, 20], activation="relu"
    )
    distribution = tfd.Autoregressive(
        lambda x: tfd.Independent(
            tfd.Bernoulli(logits=tf.unstack(made(x), axis=-1)[0], dtype=dtype),
            reinterpreted_batch_ndims=2,
        ),
        sample0=tf.zeros([channels, pixels], dtype=dtype),
    )
    distribution._made = made
    before, after = train(distribution, images)
    assert after > before
    assert distribution.sample(7).shape == (7, channels, pixels)
    assert distribution.log_prob(images[:4]).shape == (4,)


def real_nvp(library, dtype, rounding):
    """Of `RealNVP`."""
    distribution = tfd.TransformedDistribution(
        tfd.MultivariateNormalDiag(loc=np.zeros(3, dtype)),
        tfb.RealNVP(
            num_masked=2,
            shift_and_log_scale_fn=library.real_nvp_default_template(hidden_layers=[512, 512]),
        ),
    )
    assert distribution.sample().shape == (3,)
    assert distribution.log_prob(np.zeros(3, dtype)).shape == ()
    assert_draws_are_scored(distribution, (3,), rounding)
    if library is OURS:  # TFP's own leave them out
        assert len(distribution.trainable_variables) == 6


def glow(library, dtype, rounding):
    """Of `Glow`."""
    shape = (8, 8, 3)
    bijector = tfb.Glow(
        output_shape=shape,
        num_glow_blocks=2,
        num_steps_per_block=1,
        coupling_bijector_fn=library.GlowDefaultNetwork,
        exit_bijector_fn=library.GlowDefaultExitNetwork,
        seed=1,
    )
    z_shape = bijector.inverse_event_shape(shape)
    base = tfd.Sample(tfd.Normal(np.array(0.0, dtype), 1.0), z_shape)
    images = bijector(base).sample(4)
    assert images.shape == (4, *shape)
    x = gaussians(4, *shape, dtype=dtype)
    z = bijector.inverse(x)
    taken = [split[1] * 4 ** (i + 1) for i, split in enumerate(bijector.blockwise_splits)]
    parts = tf.split(z, [z_shape[0] - sum(taken), *taken], axis=-1)
    assert sum(part.shape[-1] for part in parts) == np.prod(shape)
    # Steps of one convolution of 1 x 1, with 12 and 24 channels, and an activation normalisation;
    # the couplings start without a shift. 1e2 for the condition of the random 1 x 1 convolutions.
    assert_allclose(bijector.forward(tf.identity(z)), x, **rounding(1e2 * (12 + 24), x))
    assert bijector(base).log_prob(x).shape == (4,)
    # Of each coupling network 6, of the one exit that is none of nothing 2, and of each of the two
    # steps the LU factors, and the scale and shift of its normalisation.
    assert len(bijector.trainable_variables) == 2 * 6 + 2 + 2 * 3


def batch_normalization(library, dtype, rounding):
    """Of `BatchNormalization`."""
    distribution = tfd.TransformedDistribution(
        tfd.Normal(loc=np.zeros(1, dtype), scale=np.ones(1, dtype)),
        library.BatchNormalization(),
    )
    y = 1.0 + 2.0 * gaussians(100, 1, dtype=dtype)
    x = distribution.bijector.inverse(tf.constant(y))
    # A mean of 100, and a quotient by a root: some roundings.
    terms = 100 + 10
    expected = (y - y.mean()) / np.sqrt(y.var() + 1e-3)
    assert_allclose(x, expected, **rounding(terms, y))
    assert distribution.sample(100).shape == (100, 1)
    assert len(distribution.trainable_variables) == 2
    assert len(distribution.variables) == 4


EXAMPLES = [
    masked_autoregressive_flow,
    density_estimation,
    conditional_density_estimation,
    image_of_one_order,
    image_of_separate_channels,
    real_nvp,
    glow,
    batch_normalization,
]


@pytest.mark.parametrize(
    "library",
    [pytest.param(OURS, id="ours"), pytest.param(tfb, marks=pytest.mark.slow, id="tfp")],
)
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.__name__)
def test_example(example, library, dtype, rounding):
    example(library, dtype, rounding)
