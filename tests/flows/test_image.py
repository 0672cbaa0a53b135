"""Flows of images: against autodiff in float64, and how they start."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfp_flowvae.errors import UserError
from tfp_flowvae.flows import IMAGE_FLOWS
from tfp_flowvae.flows.image_registry import COUPLINGS
from tfp_flowvae.spec import parse

SHAPE, D = (4, 4, 1), 16
EPS = np.finfo(np.float64).eps
every_flow = pytest.mark.parametrize("name", IMAGE_FLOWS)


def make(name, **options):
    keras.utils.set_random_seed(0)
    spec = parse(IMAGE_FLOWS, f"{name}:levels=2,steps=2,width=8")
    flow = spec.entry.load()(**{**spec.options, **options}, image_shape=SHAPE, dtype="float64")
    flow.build()
    return flow


def data(count, seed=0):
    return tf.constant(3.0 + 2.0 * np.random.default_rng(seed).standard_normal([count, D]))


def stirred(flow):
    """Random numbers in all weights, small enough that every map stays well-conditioned."""
    rng = np.random.default_rng(1)
    for weight in flow.trainable_weights:
        weight.assign(weight + 0.03 * rng.standard_normal(weight.shape))
    return flow


@every_flow
@pytest.mark.parametrize("coupling", COUPLINGS)
def test_exact_both_ways_and_log_det_of_autodiff(name, coupling):
    flow = make(name, coupling=coupling)
    flow.initialize(data(50))
    z = tf.constant(np.random.default_rng(2).standard_normal([3, D]))
    x, log_det = stirred(flow)(z)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(z)
        y = flow.bijector().forward(tf.identity(z))
    jacobian = tape.batch_jacobian(y, z, experimental_use_pfor=False).numpy()
    np.testing.assert_array_equal(y, x)
    # A determinant of D x D numbers is right to D^2 eps times the condition of the matrix. The map
    # itself has up to 8 steps, in each of which a number is a sum of 9 x 8 products twice; the
    # condition is what an error may grow by on its way back, in the mixtures' roots as well.
    condition = max(np.linalg.cond(one) for one in jacobian)
    tolerance = (D**2 + 8 * 2 * 72) * condition * EPS
    np.testing.assert_allclose(log_det, np.linalg.slogdet(jacobian)[1], rtol=0, atol=tolerance)
    back = flow.bijector().inverse(tf.identity(x))
    np.testing.assert_allclose(back, z, rtol=0, atol=tolerance * np.abs(x).max())
    inverse = flow.bijector().inverse_log_det_jacobian(tf.identity(x), event_ndims=1)
    np.testing.assert_allclose(inverse, -log_det, rtol=0, atol=tolerance * np.abs(x).max())


def test_initialize_gives_every_channel_mean_0_and_variance_1():
    flow = make("realnvp-image", levels=1, steps=1)
    flow.initialize(data(50))
    # Without convolutions, and with couplings that start as the identity, z is what the last
    # ActNorm puts out: 50 x 2 x 2 numbers for each channel.
    z = tf.reshape(flow.bijector().inverse(data(50)), [-1, 4]).numpy()
    atol = 200 * EPS
    np.testing.assert_allclose(z.mean(axis=0), 0.0, atol=atol)
    np.testing.assert_allclose(z.var(axis=0), 1.0, atol=atol)


def test_glow_starts_as_rotations_of_normalised_channels():
    flow = make("glow", levels=1, steps=4)
    flow.initialize(data(50))
    z = flow.bijector().inverse(data(50)).numpy()
    # A rotation keeps the squares' sum, and ActNorm makes it the number of channels.
    np.testing.assert_allclose(np.mean(np.square(z)), 1.0, atol=50 * D * EPS)


@every_flow
def test_config_and_weights_rebuild_the_flow(name):
    flow = stirred(make(name, coupling="spline"))
    again = type(flow).from_config(flow.get_config())
    again.build()
    again.set_weights(flow.get_weights())
    z = data(2)
    np.testing.assert_array_equal(again(z)[0], flow(z)[0])


@pytest.mark.parametrize(
    ("levels", "shape", "words"),
    [
        (2, (6, 8, 1), "multiples of 4: pad the images to 8 x 8 with numpy.pad, or take levels=1."),
        (1, (7, 7, 3), "halves images 1 time, .* pad the images to 8 x 8 with numpy.pad. Received"),
        (4, (8, 8, 1), "pad the images to 16 x 16 with numpy.pad, or take levels=3."),
    ],
)
def test_images_that_cannot_be_halved_are_refused(levels, shape, words):
    with pytest.raises(UserError, match=words):
        parse(IMAGE_FLOWS, f"glow:levels={levels}").build(image_shape=shape)


@every_flow
def test_the_map_is_the_same_for_every_context(name):
    flow, z = stirred(make(name, context_size=3)), data(2)
    with pytest.raises(ValueError, match="a context: one of size 3"):
        flow(z)
    x, log_det = flow(z, tf.constant([[1.0, 0.0, 0.0], [0.0, 0.0, 2.0]]))
    alone = stirred(make(name))
    wanted, wanted_log_det = alone(z)
    np.testing.assert_array_equal(x, wanted)
    np.testing.assert_array_equal(log_det, wanted_log_det)
    one = flow.bijector(tf.ones([2, 3]))[1]
    np.testing.assert_array_equal(one.forward(z[1]), alone.bijector().forward(z[1:])[0])
