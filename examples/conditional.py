# %% [markdown]
# # Simulation-based inference

# %% [markdown]
"""The posterior p(theta|data) of a simulator, learned from its runs.

A damped oscillation is measured 20 times with noise,

    y_i = exp(-g t_i) cos(w t_i + phase) + 0.2 e_i,        e_i ~ N(0, 1).

The parameters theta = (g, w) are uniform in a box. The phase is unknown, uniform, and of no
interest. The simulator draws theta, phase and y. `FlowDensity`, a flow over theta given y, is
fitted to such pairs by `fit(theta, y)`. Where its likelihood is maximal it is the posterior for
every y at once (Papamakarios & Murray 2016, https://arxiv.org/abs/1605.06376), and the phase is
integrated out, because it is no part of the pairs.

What to see in the picture: the draws (points) follow the exact posterior (grey) on the left; curves
of posterior draws pass through the measurement; and the histograms of ranks stay within the grey
band, which holds 95 % of the bars if the ranks are uniform.

    python examples/conditional.py --output conditional.png
"""

# %%
from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
from _common import grid, new_figure, run
from scipy import stats
from scipy.special import logsumexp

import tfp_flowvae as fv

# %%
NAMES = ("damping g", "frequency w")
LOW, HIGH = np.array([0.1, 1.0]), np.array([1.0, 4.0])
THETA = np.array([0.4, 2.3])  # of the measurement whose posterior is shown
TIMES = np.linspace(0.0, 5.0, 20, dtype=np.float32)
NOISE = 0.2


# %% [markdown]
# ## The simulator


# %%
def curves(theta: np.ndarray, phase: np.ndarray) -> np.ndarray:
    """The oscillation at `TIMES`, `[..., 20]`, for theta `[..., 2]` and a phase `[...]`."""
    g, w = theta[..., :1], theta[..., 1:]
    return np.exp(-g * TIMES) * np.cos(w * TIMES + phase[..., np.newaxis])


def prior(count: int, seed: int) -> np.ndarray:
    """Draws of theta, `[N, 2]`."""
    return np.random.default_rng(seed).uniform(LOW, HIGH, (count, 2)).astype(np.float32)


def simulate(theta: np.ndarray, seed: int) -> np.ndarray:
    """A measurement y `[N, 20]` for each theta `[N, 2]`."""
    rng, count = np.random.default_rng([seed, 1]), len(theta)
    y = curves(theta, rng.uniform(0, 2 * np.pi, count)) + NOISE * rng.normal(size=(count, 20))
    return y.astype(np.float32)


# %% [markdown]
# ## The exact posterior
#
# For one measurement it can be computed on a grid of theta, with a sum over the phase.


# %%
def exact_posterior(y: np.ndarray, size: int = 150) -> np.ndarray:
    """p(theta|y) for one y `[20]`, on the cells of a grid over the box, `[size, size]`."""
    cells = grid((LOW[0], HIGH[0], LOW[1], HIGH[1]), size)
    phases = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    squares = np.stack(
        [np.sum((y - curves(cells, np.full(cells.shape[:-1], p))) ** 2, axis=-1) for p in phases]
    )
    log_likelihood = logsumexp(-0.5 * squares / NOISE**2, axis=0)
    density = np.exp(log_likelihood - log_likelihood.max())
    return density / density.sum() / np.prod((HIGH - LOW) / size)


# %% [markdown]
# ## Fit
#
# The bounds of the box are given to the model: its density is 0 outside.


# %%
def fit(steps: int, seed: int) -> fv.FlowDensity:
    """p(theta|y), from 100000 simulations."""
    keras.utils.set_random_seed(seed)
    density = fv.FlowDensity(
        "spline:4,hidden=128x128", event_size=2, context_size=20, bounds=(LOW, HIGH), seed=seed
    )
    batch_size, theta = 250, prior(100_000, seed)
    y = simulate(theta, seed)
    epochs = max(1, steps * batch_size // len(theta))
    rate = keras.optimizers.schedules.CosineDecay(2e-3, epochs * len(theta) // batch_size)
    density.compile(keras.optimizers.Adam(rate))
    density.fit(theta, y, batch_size=batch_size, epochs=epochs, verbose=0)
    return density


# %% [markdown]
# ## Simulation-based calibration
#
# For many simulations, the rank of the true theta among draws from its posterior must be uniform
# (Talts et al. 2018, https://arxiv.org/abs/1804.06788). Intervals of 90 % then hold the true value
# 9 times out of 10.


# %%
def ranks(density: fv.FlowDensity, count: int, draws: int, seed: int) -> np.ndarray:
    """Of each true theta among draws from its posterior, in [0, draws], `[count, 2]`."""
    theta = prior(count, seed)
    y = simulate(theta, seed)
    return np.sum(density.sample(draws, y, seed=seed).numpy() < theta, axis=0)


# %% [markdown]
# ## Check


# %%
def main(output: Path, steps: int, seed: int = 0, checks: int = 1000) -> dict[str, float]:
    """Fits, checks, and draws the picture.

    Returns:
      For one measurement KL(exact || flow) in nats and the entropy that the prior loses; and the
      shares of intervals of 50 and 90 % that hold the true value.
    """
    density, draws = fit(steps, seed), 199
    y = simulate(THETA[np.newaxis], seed + 1)[0]
    exact = exact_posterior(y)
    cells = grid((LOW[0], HIGH[0], LOW[1], HIGH[1]), len(exact)).reshape(-1, 2)
    log_prob = density.log_prob(cells, np.tile(y, (len(cells), 1))).numpy().reshape(exact.shape)
    mass, log_exact = exact / exact.sum(), np.log(np.maximum(exact, 1e-30))
    log_prior = -np.log(np.prod(HIGH - LOW))
    found = {
        "KL(exact || flow)": float(np.sum(mass * (log_exact - log_prob))),
        "KL(exact || prior)": float(np.sum(mass * (log_exact - log_prior))),
    }
    rank = ranks(density, checks, draws, seed + 2)
    for share in (0.5, 0.9):
        tail = 0.5 * (1 - share) * (draws + 1)
        inside = (rank >= tail) & (rank < draws + 1 - tail)
        for i, name in enumerate(NAMES):
            found[f"{share:.0%} intervals, {name}"] = float(inside[:, i].mean())
    for name, value in found.items():
        print(f"{name:30} {value:6.3f}")
    draw(output, density, y, exact, rank, draws)
    return found


# %% [markdown]
# ## The picture


# %%
def draw(
    output: Path,
    density: fv.FlowDensity,
    y: np.ndarray,
    exact: np.ndarray,
    rank: np.ndarray,
    draws: int,
) -> None:
    """The posterior of one measurement, its curves, and the ranks of many."""
    figure, ((posterior, curve), histograms) = new_figure(10.0, 7.5, 2, 2)
    samples = density.sample(500, y[np.newaxis], seed=0)[:, 0].numpy()
    limits = (LOW[0], HIGH[0], LOW[1], HIGH[1])
    posterior.imshow(exact, origin="lower", extent=limits, cmap="Greys", aspect="auto")
    posterior.scatter(*samples.T, s=6, color="C1", lw=0, alpha=0.7, label="draws from the flow")
    posterior.scatter(*THETA, marker="x", s=80, color="C0", label="the truth")
    posterior.set(xlabel=NAMES[0], ylabel=NAMES[1], title="exact posterior (grey) and draws")
    posterior.set(xlim=(LOW[0], HIGH[0]))
    posterior.set(ylim=(samples[:, 1].min() - 0.2, samples[:, 1].max() + 0.2))
    posterior.legend(loc="best")
    phases = np.linspace(0, 2 * np.pi, 100, endpoint=False)
    for one in samples[:40]:
        each = curves(np.tile(one, (100, 1)), phases)
        best = each[np.argmin(np.sum((each - y) ** 2, axis=-1))]
        curve.plot(TIMES, best, color="C1", alpha=0.25, lw=1)
    curve.errorbar(TIMES, y, NOISE, fmt="o", color="black", ms=4)
    curve.set(xlabel="t", ylabel="y", title="the measurement, and curves of 40 draws")
    bins = 20
    band = stats.binom.ppf([0.025, 0.975], len(rank), 1 / bins)
    for panel, values, name in zip(histograms, rank.T, NAMES, strict=True):
        panel.hist(values, np.linspace(0, draws + 1, bins + 1), color="C1", alpha=0.8)
        panel.axhspan(*band, color="0.8", zorder=0)
        panel.set(xlabel=f"rank of the true {name}", ylabel="simulations", ylim=(0, 2 * band[1]))
    figure.savefig(output, dpi=90)


# %%
if __name__ == "__main__":
    run(main, __doc__, "conditional.png", steps=3200)
