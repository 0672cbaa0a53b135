"""Our bijectors inside TFP's own machinery, where an expert would put them."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from numpy.testing import assert_allclose
from tensorflow_probability import bijectors as tfb
from tensorflow_probability import distributions as tfd

from tfp_flowvae import bijectors as fvb

D, K = 3, 2


def draw(*shape, seed=0):
    return tf.constant(np.random.default_rng([seed, *shape]).normal(size=shape), tf.float64)


FLOWS = {
    "planar": lambda: fvb.PlanarFlow(draw(K, D), draw(K, D, seed=1), draw(K)),
    "radial": lambda: fvb.RadialFlow(draw(K, D), tf.exp(draw(K)), draw(K, seed=1)),
    "householder": lambda: fvb.HouseholderFlow(draw(K, D)),
    "sylvester": lambda: fvb.OrthogonalSylvester(
        draw(D, 2), draw(2, 2), draw(2, 2, seed=1), draw(2)
    ),
    "lu_linear": lambda: fvb.LULinear(draw(D, D), draw(D), draw(D, D, seed=1)),
}
every_flow = pytest.mark.parametrize("make", FLOWS.values(), ids=FLOWS.keys())
one_flow_quickly = pytest.mark.parametrize(
    "make",
    [
        pytest.param(make, marks=[] if name == "planar" else pytest.mark.slow, id=name)
        for name, make in FLOWS.items()
    ],
)


def normal(size=D):
    return tfd.MultivariateNormalDiag(tf.zeros(size, tf.float64), tf.ones(size, tf.float64))


@every_flow
def test_blockwise(make):
    blocks = tfb.Blockwise([make(), tfb.Exp()], block_sizes=[D, 2])
    x = draw(5, D + 2)
    y = blocks.forward(x)
    assert_allclose(y[:, :D], make().forward(tf.identity(x[:, :D])))
    assert_allclose(blocks.inverse(tf.constant(y.numpy())), x, atol=1e-9)
    expected = make().forward_log_det_jacobian(tf.identity(x[:, :D]), 1) + tf.reduce_sum(
        x[:, D:], 1
    )
    assert_allclose(blocks.forward_log_det_jacobian(tf.identity(x), 1), expected)


@every_flow
def test_joint_distribution(make):
    joint = tfd.JointDistributionNamedAutoBatched(
        {
            "z": tfd.TransformedDistribution(normal(), make()),
            "x": lambda z: tfd.Normal(tf.reduce_sum(z), tf.constant(1.0, tf.float64)),
        }
    )
    draws = joint.sample(4, seed=[1, 2])
    z, x = (tf.constant(draws[key].numpy()) for key in ("z", "x"))
    prior = tfd.TransformedDistribution(normal(), make())
    wanted = prior.log_prob(z) + tfd.Normal(tf.reduce_sum(z, -1), np.float64(1.0)).log_prob(x)
    assert_allclose(joint.log_prob(z=z, x=x), wanted)


@one_flow_quickly
def test_transformed_transition_kernel_samples_the_target(make):
    """With an exact transport map the chain is HMC on a standard normal: its moments show."""
    target = tfd.TransformedDistribution(normal(), make())
    kernel = tfp.mcmc.TransformedTransitionKernel(
        tfp.mcmc.HamiltonianMonteCarlo(
            target.log_prob, step_size=np.float64(0.5), num_leapfrog_steps=3
        ),
        bijector=make(),
    )

    @tf.function(autograph=False)
    def run():
        return tfp.mcmc.sample_chain(
            40, tf.identity(target.sample(64, seed=[3, 4])), kernel=kernel, seed=[5, 6],
            trace_fn=lambda _, results: results.inner_results.is_accepted,
        )  # fmt: skip

    states, accepted = run()
    noise = make().inverse(tf.constant(states.numpy().reshape(-1, D)))
    assert np.mean(accepted) > 0.8
    assert_allclose(np.mean(noise, axis=0), 0.0, atol=0.15)
    assert_allclose(np.cov(noise, rowvar=False), np.eye(D), atol=0.2)


def test_a_chain_of_contractive_residuals():
    rng = np.random.default_rng(0)

    def layers(*shapes):
        return [tf.Variable(rng.normal(size=shape)) for shape in shapes]

    steps = [fvb.ContractiveResidual(layers((3, 5), (5, 3)), layers(5, 3)) for _ in range(2)]
    chain = tfb.Chain(steps)
    assert len(chain.trainable_variables) == 8
    x = tf.constant(rng.normal(size=(4, 3)))
    y, log_det = fvb.forward_and_log_det(chain, x)
    back, inverse_log_det = fvb.inverse_and_log_det(chain, tf.identity(y))
    np.testing.assert_allclose(back, x, atol=1e-12)
    np.testing.assert_allclose(inverse_log_det, -log_det, atol=1e-12)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = chain.forward(tf.identity(x))
    np.testing.assert_allclose(log_det, np.linalg.slogdet(tape.batch_jacobian(y, x))[1], atol=1e-12)
