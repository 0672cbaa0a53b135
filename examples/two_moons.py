# %% [markdown]
# # Two moons

# %% [markdown]
"""Density estimation in the plane: RealNVP is trained by gradients, RBIG is fitted without.

A flow x = f(z) with z ~ N(0, I) has a density that can be evaluated,

    log p(x) = log N(f^-1(x); 0, I) + log |det df^-1/dx|,

so it can be fitted to data by maximum likelihood. The two flows of this example do it in opposite
ways:

  * RealNVP (Dinh et al. 2017) is a stack of affine couplings. Adam trains all of them together.
  * RBIG (Laparra et al. 2011) builds f^-1 layer by layer: it makes each marginal normal by its
    empirical distribution function, rotates, and repeats. There is no gradient and no network.

Both are compared by the mean log-likelihood of points that they have not seen. A Gaussian with the
mean and covariance of the data is the lower mark. The density that `make_moons` draws from is the
upper mark: no model is better, except by chance.

What to see in the picture: both flows find the two crescents. The crescents of RealNVP are smooth,
but a thin line of density joins them, because a continuous map cannot divide the one mode of the
normal distribution. The crescents of RBIG are rough, and some of its samples lie between them: this
is the price of a greedy fit. On 10000 points in the plane a kernel density estimate is better than
both. In high dimension it is not.

    python examples/two_moons.py --output two_moons.png
"""

# %%
from __future__ import annotations

import math
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from _common import Conditioner, grid, new_figure, run, show_density
from sklearn.datasets import make_moons
from sklearn.neighbors import KernelDensity
from tensorflow_probability import bijectors as tfb
from tensorflow_probability import distributions as tfd

from tfp_flowvae.bijectors import fit_rbig

# %%
NOISE = 0.1
LIMITS = (-1.7, 2.7, -1.2, 1.7)


# %% [markdown]
# ## The data, and its exact density
#
# `make_moons` puts points on two half circles and adds normal noise. Its density is therefore the
# average over the arcs of N(. ; point on the arc, noise^2 I).


# %%
def moons(count: int, seed: int) -> np.ndarray:
    """Points `[count, 2]` of the two moons."""
    return make_moons(count, noise=NOISE, random_state=seed)[0].astype(np.float32)


def true_log_prob(x: np.ndarray) -> np.ndarray:
    """The log-density that `moons` draws from, `[N]`, at x `[N, 2]`, by a sum over the arcs."""
    angle = np.linspace(0.0, math.pi, 400)
    outer = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    arcs = tf.constant(np.concatenate([outer, [1.0, 0.5] - outer]), tf.float32)
    noisy = tfd.MultivariateNormalDiag(arcs, scale_diag=[NOISE, NOISE])
    mixture = tfd.MixtureSameFamily(tfd.Categorical(logits=tf.zeros(len(arcs))), noisy)
    return np.concatenate([mixture.log_prob(part).numpy() for part in np.array_split(x, 20)])


# %% [markdown]
# ## Two models that are no flows
#
# The Gaussian of maximum likelihood, and a kernel density estimate whose bandwidth is chosen on a
# validation set.


# %%
def standard_normal() -> tfd.Distribution:
    """The base of both flows."""
    return tfd.MultivariateNormalDiag(tf.zeros([2]))


def fit_gaussian(x: np.ndarray) -> tfd.Distribution:
    """The Gaussian of maximum likelihood."""
    covariance = np.cov(x, rowvar=False, bias=True)
    return tfd.MultivariateNormalTriL(
        x.mean(axis=0), tf.linalg.cholesky(tf.cast(covariance, tf.float32))
    )


def fit_kde(train: np.ndarray, valid: np.ndarray) -> KernelDensity:
    """The kernel density estimate whose bandwidth suits `valid` best."""
    candidates = (KernelDensity(bandwidth=b).fit(train) for b in (0.03, 0.05, 0.07, 0.1, 0.15))
    return max(candidates, key=lambda kde: kde.score(valid))


# %% [markdown]
# ## RealNVP
#
# Each coupling scales and shifts one coordinate by functions of the other,
#
#     y_2 = x_2 exp(s(x_1)) + m(x_1),
#
# where a network computes s and m. `tfp.math.minimize` trains it: a flow of `tfp.bijectors` needs
# no Keras model.


# %%
def fit_real_nvp(x: np.ndarray, steps: int, seed: int, couplings: int = 8) -> tfd.Distribution:
    """RealNVP by maximum likelihood on batches of 256."""
    rng = np.random.default_rng(seed)
    # A fraction of 0.5 keeps the first coordinate, one of -0.5 the last: the halves take turns.
    parts = [
        tfb.RealNVP(
            fraction_masked=0.5 * (-1) ** i,
            shift_and_log_scale_fn=Conditioner(1, 1, (32, 32), rng, bound=1.5),
        )
        for i in range(couplings)
    ]
    model = tfd.TransformedDistribution(standard_normal(), tfb.Chain(parts))
    data = tf.constant(x)

    def loss(seed: tf.Tensor) -> tf.Tensor:
        rows = tf.random.stateless_uniform([256], seed, maxval=len(x), dtype=tf.int32)
        return -tf.reduce_mean(model.log_prob(tf.gather(data, rows)))

    rate = keras.optimizers.schedules.CosineDecay(5e-3, steps, alpha=0.01)
    tfp.math.minimize(
        loss,
        steps,
        keras.optimizers.Adam(rate),
        jit_compile=steps > 500,  # compiling takes as long as some hundreds of steps
        seed=(seed, 1),
        trainable_variables=model.trainable_variables,
    )
    return model


# %% [markdown]
# ## Fit and compare
#
# `fit_rbig(x, layers)` is the whole of RBIG. Both flows become a `tfd.TransformedDistribution`,
# which has `log_prob` and `sample`.


# %%
def main(
    output: Path, steps: int = 4000, seed: int = 0, count: int = 10_000, layers: int = 40
) -> dict[str, float]:
    """Fits to `count` points, draws, and returns the held-out mean log-likelihood by name, nats."""
    train, valid, test = (moons(n, seed + i) for i, n in enumerate((count, 2000, 10_000)))
    kde = fit_kde(train, valid)
    real_nvp = fit_real_nvp(train, steps, seed)
    rbig = tfd.TransformedDistribution(
        standard_normal(), fit_rbig(train, layers, num_knots=64, seed=seed)
    )
    log_probs = {
        "Gaussian": fit_gaussian(train).log_prob,
        "KDE": kde.score_samples,
        "RBIG": tf.function(rbig.log_prob),
        "RealNVP": tf.function(real_nvp.log_prob),
        "truth": true_log_prob,
    }
    scores = {name: float(np.mean(log_prob(test))) for name, log_prob in log_probs.items()}
    print(f"mean log p(x) of {len(test)} held-out points, in nats")
    for name, score in scores.items():
        print(f"{name:10} {score:8.3f}")
    size = 300
    cells = grid(LIMITS, size).reshape(-1, 2)
    samples = {
        "truth": test[:1500],
        "RealNVP": real_nvp.sample(1500, seed=(seed, 2)).numpy(),
        "RBIG": rbig.sample(1500, seed=(seed, 3)).numpy(),
    }
    densities = {name: np.exp(log_probs[name](cells)).reshape(size, size) for name in samples}
    draw(output, densities, samples, scores)
    return scores


# %% [markdown]
# ## The picture


# %%
def draw(
    output: Path,
    densities: dict[str, np.ndarray],
    samples: dict[str, np.ndarray],
    scores: dict[str, float],
) -> None:
    """Densities over samples, a column for each of `samples`."""
    figure, axes = new_figure(12.0, 5.8, 2, len(samples))
    for (above, below), (name, points) in zip(axes.T, samples.items(), strict=True):
        above.set_title(f"{name}: {scores[name]:.3f} nats", fontsize=12)
        show_density(above, densities[name], LIMITS, peak=densities["truth"].max())
        below.scatter(*points.T, s=2, color="black", alpha=0.5, linewidths=0)
        below.set(xlim=LIMITS[:2], ylim=LIMITS[2:])
        for panel in (above, below):
            panel.set(aspect="equal", xticks=[-1, 0, 1, 2], yticks=[-1, 0, 1])
            panel.label_outer()
    axes[0, 0].set_ylabel("density p(x)")
    axes[1, 0].set_ylabel("1500 samples")
    figure.suptitle("Two moons; mean log-likelihood of held-out points")
    figure.savefig(output, dpi=110)


# %%
if __name__ == "__main__":
    run(main, __doc__, default="two_moons.png", steps=4000)
