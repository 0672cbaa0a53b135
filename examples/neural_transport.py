# %% [markdown]
# # Hamiltonian Monte Carlo through a flow

# %% [markdown]
"""Neural transport Monte Carlo on Neal's funnel, after Hoffman et al. (2019).

Hamiltonian Monte Carlo (HMC) has one step size for all of space, so it is poor where the scale of a
target differs from place to place. The funnel (Neal 2003) is made to be such a target:

    v ~ N(0, 3^2),     x | v ~ N(0, exp(v / 2)^2).

At v = -6 its neck is 0.05 wide, at v = 6 its mouth is 20 wide. Neural transport samples the target
through a flow x = f(z) instead,

    log p(z) = log p(f(z)) + log |det df/dz|,

where f is trained beforehand to minimise KL(f(N(0, I)) || p). If f were perfect, p(z) would be N(0,
I), the easiest target there is. It need not be perfect: the chain in z is exact for any bijector,
so f(z) has the law of the funnel whatever the errors of f. A better f only mixes faster.

What to see in the picture: without a flow no chain enters the neck. The histogram ends at v = -5
and P(v < -5) is estimated as 0; the effective sample size (ESS) does not show it, because it
compares the draws only with one another. The planar steps turn the funnel into a blob (second row)
with ragged edges, where q is wrong: the chains reach the neck and the histogram is right, but at
the edges they move slowly, and R-hat is still above 1. With the couplings p(z) is round where its
mass is, and the draws are as good as independent.

    python examples/neural_transport.py --output neural_transport.png

  * Matthew Hoffman et al. NeuTra-lizing Bad Geometry in Hamiltonian Monte Carlo Using Neural
    Transport. 2019. https://arxiv.org/abs/1903.03704
"""

# %%
from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from _common import Conditioner, grid, new_figure, run, show_density
from tensorflow_probability import bijectors as tfb
from tensorflow_probability import distributions as tfd

from tfp_flowvae import bijectors as fvb

# %%
LEAPFROG = 5
CHAINS = 32
TRAINED = ("planar", "couplings")
NECK = -5.0
EXACT = {"mean": 0.0, "sd": 3.0, "neck": 0.5 * math.erfc(-NECK / 3.0 / math.sqrt(2.0))}


class Summary(NamedTuple):
    """What a run of chains says of v."""

    ess: float
    r_hat: float
    mean: float
    sd: float
    neck: float  # P(v < NECK)


# %% [markdown]
# ## The target


# %%
def funnel(point: tf.Tensor) -> tf.Tensor:
    """The log-density `[...]` of (x, v) `[..., 2]`."""
    x, v = point[..., 0], point[..., 1]
    return tfd.Normal(0.0, 3.0).log_prob(v) + tfd.Normal(0.0, tf.exp(0.5 * v)).log_prob(x)


# %% [markdown]
# ## Two flows
#
# An affine map, followed by 32 planar steps or by 4 affine couplings. A coupling can scale x by a
# function of v, which is exactly what the funnel needs.


# %%
def build(name: str, seed: int) -> tfb.Bijector:
    """A trainable bijector from N(0, I): an affine map, and then planar steps or couplings."""
    rng = np.random.default_rng(seed)
    scale = tfp.util.TransformedVariable(tf.ones([2]), tfb.Softplus())
    affine = tfb.Chain([tfb.Shift(tf.Variable(tf.zeros([2]))), tfb.Scale(scale)])
    if name == "planar":

        def normal(*shape: int, scale: float = 1.0) -> tf.Variable:
            return tf.Variable(scale * rng.standard_normal(shape), dtype=tf.float32)

        flow = fvb.PlanarFlow(u=normal(32, 2, scale=0.1), w=normal(32, 2), b=normal(32))
        return tfb.Chain([flow, affine])
    # The last to act, first in the chain, keeps v, the last entry, and moves x given v.
    keep_x = fvb.alternating_mask(2)
    couplings = [
        fvb.Coupling(keep_x if i % 2 else ~keep_x, Conditioner(1, 1, (32,), rng)) for i in range(4)
    ]
    return tfb.Chain([*couplings, affine])


def train(flow: tfb.Bijector, steps: int, seed: int) -> None:
    """Minimises KL(f(N(0, I)) || funnel) in place."""
    q = tfd.TransformedDistribution(tfd.MultivariateNormalDiag(tf.zeros([2])), flow)
    rate = keras.optimizers.schedules.CosineDecay(1e-2, steps, alpha=0.02)
    tfp.vi.fit_surrogate_posterior(
        funnel,
        q,
        keras.optimizers.Adam(rate),
        steps,
        sample_size=256,
        jit_compile=steps > 500,  # compiling takes as long as some hundreds of steps
        seed=(seed, 1),
    )


# %% [markdown]
# ## HMC in z
#
# `tfp.mcmc.TransformedTransitionKernel` is all that it takes. Three runs of 32 chains have the
# same budget: 5 leapfrog steps for each draw, the same number of draws, step sizes adapted to one
# acceptance rate. A step through a flow costs more than one without. Here, where p costs nothing,
# the flow takes most of the time; in a model with data it takes almost none.


# %%
def sample(flow: tfb.Bijector, draws: int, seed: int) -> np.ndarray:
    """HMC in z with `draws` / 2 steps of warm-up: points (x, v), `[draws, CHAINS, 2]`."""
    warm_up = draws // 2

    @tf.function(autograph=False, jit_compile=True)
    def chains() -> tf.Tensor:
        # The inner kernel is given the funnel itself; the transformed one replaces it by p(z).
        hmc = tfp.mcmc.HamiltonianMonteCarlo(funnel, step_size=0.2, num_leapfrog_steps=LEAPFROG)
        kernel = tfp.mcmc.DualAveragingStepSizeAdaptation(
            tfp.mcmc.TransformedTransitionKernel(hmc, flow),
            num_adaptation_steps=int(0.8 * warm_up),
            target_accept_prob=0.8,
        )
        start = flow.forward(tf.random.stateless_normal([CHAINS, 2], (seed, 2)))
        return tfp.mcmc.sample_chain(
            draws, start, kernel=kernel, num_burnin_steps=warm_up, trace_fn=None, seed=(seed, 3)
        )

    return chains().numpy()


def summarize(points: np.ndarray) -> Summary:
    """What the chains `[draws, CHAINS, 2]` say of v."""
    v = points[..., 1]
    ess = tfp.mcmc.effective_sample_size(v, cross_chain_dims=1)
    r_hat = tfp.mcmc.potential_scale_reduction(v, split_chains=True)
    return Summary(float(ess), float(r_hat), v.mean(), v.std(), (v < NECK).mean())


# %% [markdown]
# ## Compare
#
# Printed for v: the ESS of all chains together (at most the number of draws), R-hat (1 if the
# chains agree), and mean, standard deviation and P(v < -5) with their exact values.


# %%
def main(output: Path, steps: int = 2000, seed: int = 0, draws: int = 1000) -> dict[str, Summary]:
    """Trains the flows, runs the chains, draws, and returns the summaries by name."""
    flows = {"no flow": tfb.Identity(), **{name: build(name, seed) for name in TRAINED}}
    print(f"{CHAINS} chains of {draws} draws; of v:")
    print(f"{'':10}{'ESS':>8}{'R-hat':>8}{'mean':>8}{'sd':>8}{'P(v<-5)':>9}")
    print(f"{'exact':10}{'':16}" + "{mean:8.3f}{sd:8.3f}{neck:9.4f}".format(**EXACT))
    points, summaries = {}, {}
    for name, flow in flows.items():
        if name in TRAINED:
            train(flow, steps, seed)
        points[name] = sample(flow, draws, seed)
        s = summaries[name] = summarize(points[name])
        print(
            f"{name:10}{s.ess:8.0f}{s.r_hat:8.3f}{s.mean:8.3f}{s.sd:8.3f}{s.neck:9.4f}", flush=True
        )
    draw(output, flows, points, summaries)
    return summaries


def draw(
    output: Path,
    flows: dict[str, tfb.Bijector],
    points: dict[str, np.ndarray],
    summaries: dict[str, Summary],
) -> None:
    """A column for each chain: its draws, the target in its own z, the histogram of v."""
    figure, axes = new_figure(12.0, 11.0, 3, len(flows))
    v_axis = np.linspace(-11.0, 11.0, 400)
    normal = np.exp(-0.5 * (v_axis / 3.0) ** 2) / (3.0 * math.sqrt(2.0 * math.pi))
    for (top, middle, bottom), (name, flow) in zip(axes.T, flows.items(), strict=True):
        s = summaries[name]
        top.set_title(f"{name}: ESS {s.ess:.0f}, R-hat {s.r_hat:.2f}", fontsize=12)
        rows = points[name].reshape(-1, 2)[:: max(1, points[name].size // 8000)]
        top.scatter(*rows.T, s=2, color="black", alpha=0.6, linewidths=0)
        for width in (1.0, 2.0):
            for side in (-1.0, 1.0):
                top.plot(side * width * np.exp(0.5 * v_axis), v_axis, color="tab:red", lw=0.7)
        top.set(xlim=(-30, 30), ylim=(-11, 11), xlabel="x", ylabel="v")
        limits = (-10.0, 10.0, -10.0, 10.0) if name == "no flow" else (-4.0, 4.0, -4.0, 4.0)
        z = tf.constant(grid(limits, 200))
        p = tf.exp(funnel(flow.forward(z)) + flow.forward_log_det_jacobian(z, event_ndims=1))
        # The neck's density has no bound: the square root and a quantile keep the rest in sight.
        shown = np.sqrt(p.numpy())
        show_density(middle, shown, limits, peak=np.quantile(shown, 0.995))
        middle.set(xlabel="z1", ylabel="z2", aspect="equal", title="target in z (root of density)")
        bottom.hist(points[name][..., 1].ravel(), v_axis[::8], density=True, color="0.7")
        bottom.plot(v_axis, normal, color="tab:red", label="exact, N(0, 3^2)")
        bottom.set(xlabel="v", ylabel="density", ylim=(0, 0.2))
        bottom.legend(loc="upper right", frameon=False)
    figure.suptitle("Neal's funnel by HMC; red above: x at 1 and 2 conditional standard deviations")
    figure.savefig(output, dpi=100)


# %%
if __name__ == "__main__":
    run(main, __doc__, default="neural_transport.png", steps=2000)
