"""Our bijectors inside TFP's own machinery, where an expert would put them."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from tensorflow_probability import bijectors as tfb
from tensorflow_probability import distributions as tfd

from tfp_flowvae import bijectors as fvb

D, K = 3, 2
# A number is rounded in sums of D terms and in ten operations, in each of K steps, there and back.
ROUNDINGS = 2 * K * (D + 10)


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
def test_blockwise(make, assert_same, assert_round_trip):
    blocks = tfb.Blockwise([make(), tfb.Exp()], block_sizes=[D, 2])
    x = draw(5, D + 2)

    def by_hand(x):
        y, log_det = make().forward_and_log_det(x[:, :D])
        return tf.concat([y, tf.exp(x[:, D:])], axis=-1), log_det + tf.reduce_sum(x[:, D:], 1)

    assert_same(lambda x: fvb.forward_and_log_det(blocks, x), by_hand, x, ROUNDINGS)
    assert_round_trip(lambda _: blocks, (), x, ROUNDINGS)


@every_flow
def test_joint_distribution(make, assert_same):
    joint = tfd.JointDistributionNamedAutoBatched(
        {
            "z": tfd.TransformedDistribution(normal(), make()),
            "x": lambda z: tfd.Normal(tf.reduce_sum(z), tf.constant(1.0, tf.float64)),
        }
    )
    draws = joint.sample(4, seed=[1, 2])
    z, x = (tf.constant(draws[key].numpy()) for key in ("z", "x"))
    prior = tfd.TransformedDistribution(normal(), make())

    def by_hand(given):
        z, x = given
        return prior.log_prob(z) + tfd.Normal(tf.reduce_sum(z, -1), np.float64(1.0)).log_prob(x)

    joint_log_prob = lambda given: joint.log_prob(z=given[0], x=given[1])  # noqa: E731
    assert_same(joint_log_prob, by_hand, (z, x), ROUNDINGS)


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
    noise = noise.numpy().reshape(states.shape)
    assert np.mean(accepted) > 0.8
    # The chains are independent, what one visits is not: five standard errors over the chains.
    squares = noise[..., :, np.newaxis] * noise[..., np.newaxis, :] - np.eye(D)
    for moment in (np.mean(noise, axis=0), np.mean(squares, axis=0)):
        error = np.std(moment, axis=0) / np.sqrt(len(moment))
        assert np.all(np.abs(np.mean(moment, axis=0)) <= 5 * error)


def test_a_chain_of_contractive_residuals(assert_log_dets, assert_round_trip):
    rng = np.random.default_rng(0)

    def layers(*shapes):
        return [tf.Variable(rng.normal(size=shape)) for shape in shapes]

    steps = [fvb.ContractiveResidual(layers((3, 5), (5, 3)), layers(5, 3)) for _ in range(2)]
    chain = tfb.Chain(steps)
    assert len(chain.trainable_variables) == 8
    x = tf.constant(rng.normal(size=(4, 3)))
    # Sums of 3 and 5 terms in each of two steps, and the last move that ends the iteration of the
    # inverse at L = 0.9.
    n = 2 * (3 + 5 + 10) / (1 - 0.9)
    assert_round_trip(lambda _: chain, (), x, n)
    assert_log_dets(chain, x, n)
