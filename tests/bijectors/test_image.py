"""Bijectors of images: against other formulas, and every property of `check_bijector`."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flowvae import bijectors as fvb
from tfp_flowvae.testing import check_bijector

tfb, tfd = tfp.bijectors, tfp.distributions

H, W, C = 4, 4, 2
K = 3
EPS = np.finfo(np.float64).eps


class Network(tf.Module):
    """A network of images: each pixel sees its neighbours on the left and above.

    With `params` it gives so many raw numbers for each of the `channels`, and else two images.
    """

    def __init__(self, kept, channels, params=None, seed=0):
        super().__init__()
        rng = np.random.default_rng(seed)
        outputs = channels * (params or 2)
        self.kernel = tf.Variable(0.4 * rng.standard_normal([3, kept, outputs]))
        self.params = params

    def __call__(self, kept, channels):
        h = sum(
            tf.einsum("...i,io->...o", tf.roll(kept, shift, [-3, -2]), self.kernel[k])
            for k, shift in enumerate(([0, 0], [1, 0], [0, 1]))
        )
        h = tf.tanh(h + 0.3)
        if self.params is None:
            return tf.split(h, 2, axis=-1)
        return tf.reshape(h, tf.concat([tf.shape(h)[:-1], [channels, self.params]], axis=0))


def variable(*shape, seed=0):
    return tf.Variable(0.5 * np.random.default_rng(seed).standard_normal(shape))


def convolution(channels, seed=0):
    return fvb.Invertible1x1Convolution(
        variable(channels, channels, seed=seed),
        variable(channels, seed=seed + 1),
        variable(channels, channels, seed=seed + 2),
        permutation=tf.range(channels)[::-1],
        shift=variable(channels, seed=seed + 3),
    )


def steps(channels):
    """A step of Glow for images of so many channels."""
    network = Network(channels // 2, channels - channels // 2, seed=channels)
    act_norm = fvb.ActNorm(variable(channels), variable(channels, seed=1))
    return tfb.Chain([fvb.ChannelCoupling(network), convolution(channels), act_norm])


MAKE = {
    "squeeze": lambda: fvb.Squeeze(),
    "checkerboard": lambda: fvb.CheckerboardCoupling(Network(C, C)),
    "checkerboard_spline": lambda: fvb.CheckerboardCoupling(
        bijector_fn=fvb.SplineTransform(Network(C, C, 3 * K - 1), bins=K), reverse=True
    ),
    "channels": lambda: fvb.ChannelCoupling(Network(1, 1), reverse=True),
    "channels_mixture": lambda: fvb.ChannelCoupling(
        bijector_fn=fvb.LogisticMixtureTransform(Network(1, 1, 3 * K + 2), K)
    ),
    "convolution": lambda: convolution(C),
    "convolutions": lambda: fvb.Invertible1x1Convolution(
        variable(3, C, C), variable(3, C), variable(C, C)
    ),
    "mixture": lambda: fvb.LogisticMixtureLogit(
        variable(C, K), variable(C, K, seed=1), variable(C, K, seed=2)
    ),
}
every_bijector = pytest.mark.parametrize("name", MAKE)


def images(*leading, event=(H, W, C), seed=0):
    return tf.constant(np.random.default_rng(seed).standard_normal([*leading, *event]))


@every_bijector
def test_every_property(name):
    check_bijector(MAKE[name](), images(3, event=(2, 2, C)), event_ndims=3)


def test_every_property_of_scales():
    flow = fvb.MultiScale([steps(4), steps(8)], image_shape=(H, W, 1))
    # XLA compiles the parts of it above, and takes long for the whole.
    check_bijector(flow, images(2, event=(H * W,)), skip=["xla"])


def test_every_property_of_the_logit():
    x = tf.constant(np.random.default_rng(0).uniform(0.01, 0.99, [5]))
    base = tfd.Uniform(tf.constant(0.0, tf.float64), 1.0)
    check_bijector(fvb.Logit(0.05), x, base=base)
    check_bijector(fvb.Logit(0.0), x, base=base)


def test_squeeze_is_that_of_tensorflow():
    x = images(2, 3, event=(4, 6, 2))
    for factor in (1, 2):
        wanted = tf.nn.space_to_depth(tf.reshape(x, [6, 4, 6, 2]), 2) if factor == 2 else x
        y = fvb.Squeeze(factor).forward(x)
        np.testing.assert_array_equal(y, tf.reshape(wanted, y.shape))
        np.testing.assert_array_equal(fvb.Squeeze(factor).inverse(tf.identity(y)), x)


def test_a_coupling_keeps_what_it_says_and_sees_no_more():
    x, other = images(seed=0), images(seed=1)
    rows, columns = np.indices([H, W])
    for reverse in (False, True):
        flow = fvb.CheckerboardCoupling(Network(C, C), reverse=reverse)
        keeps = ((rows + columns) % 2 == int(reverse))[..., np.newaxis]
        check_kept(flow, x, other, np.broadcast_to(keeps, x.shape))
        flow = fvb.ChannelCoupling(Network(1, 1), reverse=reverse)
        check_kept(flow, x, other, np.broadcast_to(np.arange(C) == int(reverse), x.shape))


def check_kept(flow, x, other, keeps):
    y = flow.forward(x)
    np.testing.assert_array_equal((y == x).numpy(), keeps)
    # What moves does not change how far the rest moves: the conditioner does not see it.
    moved = tf.where(keeps, x, other)
    np.testing.assert_array_equal(
        flow.forward_log_det_jacobian(x, 3), flow.forward_log_det_jacobian(moved, 3)
    )


def test_convolution_is_a_matrix_for_each_pixel(rounding):
    rotation, _ = np.linalg.qr(np.random.default_rng(0).standard_normal([3, 3]))
    flow = fvb.Invertible1x1Convolution.from_matrix(2.0 * rotation)
    x = images(2, event=(H, W, 3))
    wanted = np.einsum("oi,nhwi->nhwo", 2.0 * rotation, x)
    np.testing.assert_allclose(flow.forward(x), wanted, **rounding(4 * 3, wanted))
    log_det = H * W * 3 * np.log(2.0)
    np.testing.assert_allclose(
        flow.forward_log_det_jacobian(x, 3), [log_det] * 2, **rounding(H * W * 3, [log_det])
    )


def test_mixture_against_the_distribution_of_tfp(rounding):
    logits, loc, log_scale = (variable(K, seed=seed) for seed in range(3))
    mixture = tfd.MixtureSameFamily(tfd.Categorical(logits), tfd.Logistic(loc, tf.exp(log_scale)))
    x = tf.constant(np.linspace(-3.0, 3.0, 31))
    y, log_det = fvb.LogisticMixtureLogit(logits, loc, log_scale).forward_and_log_det(x)
    cdf = mixture.cdf(x)
    # log F - log (1 - F), and one eps of F is 1 / (1 - F) of its logarithm here.
    wanted = tf.math.log(cdf) - tf.math.log1p(-cdf)
    np.testing.assert_allclose(y, wanted, **rounding(20 / np.min(1.0 - cdf), wanted))
    slope = mixture.log_prob(x) - tf.math.log(cdf) - tf.math.log1p(-cdf)
    np.testing.assert_allclose(log_det, slope, **rounding(20 / np.min(1.0 - cdf), slope))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_mixture_comes_back_from_far_tails_and_narrow_components(dtype):
    log_scale = np.array([-3.0, 0.0, 2.0], dtype)
    mixture = fvb.LogisticMixtureLogit(np.zeros(3, dtype), np.array([-5.0, 0, 5], dtype), log_scale)
    y = np.concatenate([-(10.0 ** np.arange(-3, 4)), 10.0 ** np.arange(-3, 4)]).astype(dtype)
    x = mixture.inverse(y)
    back, log_slope = mixture.forward_and_log_det(tf.identity(x))
    # One eps of x times the slope, and some twenty roundings of the logarithms that make y.
    eps = np.finfo(dtype).eps
    allowed = eps * (20 * (1.0 + np.abs(y)) + 8 * (10.0 + np.abs(x)) * np.exp(log_slope))
    assert np.all(np.abs(back - y) <= allowed)


def test_mixture_of_zeros_is_the_identity(rounding):
    flow = fvb.logistic_mixture_from_raw(tf.zeros([3 * K + 2], tf.float64), K)
    x = images()
    y, log_det = fvb.forward_and_log_det(flow, x, event_ndims=0)
    np.testing.assert_allclose(y, x, **rounding(20, x))
    np.testing.assert_allclose(log_det, np.zeros(x.shape), atol=20 * EPS * (1 + np.abs(x).max()))


def test_scales_are_squeezing_splitting_and_joining(rounding):
    first, second = tfb.Scale(tf.constant(2.0, tf.float64)), tfb.Scale(tf.constant(3.0, tf.float64))
    flow = fvb.MultiScale([first, second], image_shape=(H, W, C))
    assert flow.latent_shapes == ((1, 1, 16), (2, 2, 4))
    x = images(5)
    h, out = np.split(tf.nn.space_to_depth(x, 2).numpy() / 2.0, 2, axis=-1)
    last = tf.nn.space_to_depth(h, 2).numpy() / 3.0
    z, log_det = flow.inverse_and_log_det(x)
    for got, wanted in zip(flow.split(z), (last, out), strict=True):
        np.testing.assert_allclose(got, wanted, **rounding(1, wanted))
    np.testing.assert_array_equal(flow.join(flow.split(z)), z)
    wanted = -(32 * np.log(2.0) + 16 * np.log(3.0))
    np.testing.assert_allclose(log_det, np.full(5, wanted), **rounding(32, [wanted]))


def test_a_distribution_of_images(assert_slope):
    base = tfd.MultivariateNormalDiag(tf.zeros([H * W * C], tf.float64))
    flow = fvb.MultiScale([steps(8), steps(16)], image_shape=(H, W, C))
    density = tfd.TransformedDistribution(base, flow)
    assert density.event_shape == (H, W, C)
    x = density.sample(4, seed=1)
    assert x.shape == (4, H, W, C)
    kernels = [v for v in density.trainable_variables if v.shape.rank == 3]
    assert len(density.trainable_variables) == 2 * 7
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(density.log_prob(tf.identity(x)))
    gradient, kernel = tape.gradient(loss, kernels[0]).numpy(), kernels[0].numpy()
    assert np.any(gradient != 0.0)

    def moved(step):
        kernels[0].assign(kernel + step * gradient / np.linalg.norm(gradient))
        return tf.reduce_sum(density.log_prob(tf.identity(x)))

    # A sum over 4 images of 32 numbers, each through two scales with sums over channels.
    assert_slope(np.linalg.norm(gradient), moved, 4 * 32 * 2 * 30)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fvb.Squeeze(0), "integer factor of at least 1"),
        (lambda: fvb.Squeeze().forward(tf.zeros([3, 4, 1])), "pad it to 4. Received: height=3"),
        (lambda: fvb.Squeeze().inverse(tf.zeros([2, 2, 3])), "multiple of 4. Received: channels=3"),
        (lambda: fvb.Logit(0.5), "from 0 to below 0.5. Received: alpha=0.5"),
        (lambda: fvb.CheckerboardCoupling(), "exactly one of"),
        (lambda: fvb.ChannelCoupling(Network(1, 1)).forward(tf.zeros([2, 2, 1])), "C >= 2"),
        (lambda: fvb.ChannelCoupling(Network(1, 1)).forward(tf.zeros([2])), "H, W and C known"),
        (
            lambda: fvb.ChannelCoupling(bijector_fn=lambda *_: tfb.Reshape([1])).forward(
                tf.zeros([2, 2, 2])
            ),
            "returns an elementwise bijector",
        ),
        (lambda: convolution(2).forward(tf.zeros([2, 2], tf.float64)), "takes images"),
        (lambda: convolution(2).forward(tf.zeros([2, 2, 3], tf.float64)), "D=2"),
        (lambda: fvb.logistic_mixture_from_raw(tf.zeros([4]), 1), "last dimension is 5"),
        (lambda: fvb.MultiScale([], (4, 4, 1)), "at least one scale"),
        (lambda: fvb.MultiScale([tfb.Identity()], (4, 4)), "image_shape=(H, W, C)"),
        (lambda: fvb.MultiScale([tfb.Identity()] * 3, (12, 8, 1)), "pad them to 16 x 8"),
        (lambda: fvb.MultiScale([tfb.Reshape([2, 2], [4])], (4, 4, 1)), "from images to images"),
        (
            lambda: fvb.MultiScale([tfb.Identity()], (4, 4, 1)).forward(tf.zeros([15])),
            "takes [..., 16] here",
        ),
    ],
)
def test_refuses_in_one_sentence(call, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        call()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_scale_that_is_no_bijector():
    with pytest.raises(TypeError, match=r"takes bijectors\. Received: int"):
        fvb.MultiScale([3], (4, 4, 1))


def test_the_logit_checks_its_domain_where_asked():
    with pytest.raises(tf.errors.InvalidArgumentError, match="from 0 to 1"):
        fvb.Logit(validate_args=True).forward([1.5])
