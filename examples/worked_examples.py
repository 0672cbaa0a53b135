# %% [markdown]
# # The change of variables on the line

# %% [markdown]
"""Flows in one dimension, by hand, whose densities are known in closed form.

A flow is an increasing, differentiable map x = f(u) of a random number u with a known density. The
mass between u and u + du moves to between x and x + f'(u) du. Therefore

    p_x(x) = p_u(u) / f'(u),     u = f^-1(x),     log p_x(x) = log p_u(u) - log f'(u).

Everything in this package is this line in D dimensions, with |det| of the Jacobian in place of f'.

What to see in the picture: the dashed line, the density by change of variables, lies on the solid
line, the closed form, and both follow the histogram of samples f(u). The last panel has no closed
form: its solid line is the mixture that its 2000 points were drawn from, and the fitted flow
follows it as well as 2000 points allow.

    python examples/worked_examples.py --output worked_examples.png
"""

# %%
from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from _common import new_figure, run
from scipy import stats
from tensorflow_probability import bijectors as tfb
from tensorflow_probability import distributions as tfd

from tfp_flowvae.bijectors import fit_marginals

# %%
FITTED = "inverse of an F fitted to 2000 points"


class Example(NamedTuple):
    """A flow on the line, events `[]` or `[1]`, the density it should have, and where to look."""

    title: str
    flow: tfd.Distribution
    exact: Any  # scipy's, not TFP's, whose log-normal is a TransformedDistribution itself
    limits: tuple[float, float]


class Mixture:
    """0.3 N(-2, 0.5^2) + 0.7 N(1, 0.8^2), with scipy's names."""

    def pdf(self, x: np.ndarray) -> np.ndarray:
        """The density."""
        return 0.3 * stats.norm.pdf(x, -2.0, 0.5) + 0.7 * stats.norm.pdf(x, 1.0, 0.8)

    def cdf(self, x: np.ndarray) -> np.ndarray:
        """The distribution function."""
        return 0.3 * stats.norm.cdf(x, -2.0, 0.5) + 0.7 * stats.norm.cdf(x, 1.0, 0.8)

    def rvs(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Samples `[count]`."""
        left, right = rng.normal(-2.0, 0.5, count), rng.normal(1.0, 0.8, count)
        return np.where(rng.uniform(size=count) < 0.3, left, right).astype(np.float32)


# %% [markdown]
# ## Four flows
#
# 1. u ~ N(0, 1) and f = exp. Then f'(u) = exp(u) = x and f^-1(x) = log x, so that
#
#         p_x(x) = N(log x; 0, 1) / x,
#
#     which is the log-normal density. Above u = 0 the map stretches, and the density falls; below 0
#     the map compresses, and the density rises. The mode moves from u = 0, which is x = 1, to
#     x = exp(-1).
#
# 2. u ~ U(0, 1) and f = F^-1, the inverse of any increasing distribution function F. The derivative
#     of an inverse is f'(u) = 1 / F'(x), so that
#
#         p_x(x) = 1 / f'(u) = F'(x) :
#
#     the flow has exactly the density that belongs to F. This is inverse-CDF sampling. It is why a
#     flow can have any density on the line. With the logistic F(x) = 1 / (1 + exp(-x)) the flow is
#     the logit.
#
# 3. With the exponential F(x) = 1 - exp(-x) it is f(u) = -log(1 - u).
#
# 4. F may be estimated from data. `fit_marginals` smooths the empirical distribution function into
#     F^-1(Phi(z)). Its base is normal, since Phi(z) is uniform if z is.


# %%
def examples(seed: int) -> list[Example]:
    """Three flows with a closed form and one fitted to data."""
    transformed = tfd.TransformedDistribution
    normal, uniform = tfd.Normal(0.0, 1.0), tfd.Uniform(0.0, 1.0)
    # tfb.Sigmoid is the logistic F, and tfb.Invert makes it F^-1; -log(1 - u) is put together.
    logit = tfb.Invert(tfb.Sigmoid())
    minus_log = tfb.Chain([tfb.Scale(-1.0), tfb.Log(), tfb.Shift(1.0), tfb.Scale(-1.0)])
    # Half the usual bandwidth, which is meant for one mode and would fill the gap between two.
    data = Mixture().rvs(2000, np.random.default_rng(seed))
    fitted = fit_marginals(data[:, np.newaxis], smoothing=0.5)
    base = tfd.MultivariateNormalDiag(tf.zeros([1]))
    return [
        Example(
            "exp of N(0, 1) is log-normal",
            transformed(normal, tfb.Exp()),
            stats.lognorm(s=1.0),
            (0.01, 6.0),
        ),
        Example(
            "logit of U(0, 1) is logistic",
            transformed(uniform, logit),
            stats.logistic(),
            (-7.0, 7.0),
        ),
        Example(
            "-log(1 - u) of U(0, 1) is exponential",
            transformed(uniform, minus_log),
            stats.expon(),
            (0.01, 6.0),
        ),
        Example(FITTED, transformed(base, fitted), Mixture(), (-4.5, 4.5)),
    ]


# %% [markdown]
# ## Density and picture
#
# `tfd.TransformedDistribution` computes the density from f^-1 and log f' alone. It is compared with
# the closed form, which comes from scipy.


# %%
def density(flow: tfd.Distribution, x: np.ndarray) -> np.ndarray:
    """p(x) of a flow on the line, `[N]`, at x `[N]`."""
    return flow.prob(tf.reshape(x, [-1, *flow.event_shape])).numpy()


def main(output: Path, steps: int = 20_000, seed: int = 0) -> dict[str, tuple[float, float]]:
    """Draws the four panels.

    Args:
      output: Where the picture goes.
      steps: The number of samples in each histogram; nothing is trained.
      seed: For the samples and the data.

    Returns:
      For each example, by title: max |p(x) - exact p(x)| over the panel, and the Kolmogorov-Smirnov
      distance of the samples, max |empirical F - F|, for an exact flow about 1 / sqrt(samples).
    """
    figure, axes = new_figure(11.0, 7.6, 2, 2)
    results = {}
    print(f"{'':40}{'max |error of p|':>18}{'KS distance':>13}")
    for panel, example in zip(axes.ravel(), examples(seed), strict=True):
        x = np.linspace(*example.limits, 400, dtype=np.float32)
        p, exact = density(example.flow, x), example.exact.pdf(x)
        samples = np.sort(example.flow.sample(steps, seed=(seed, 2)).numpy().ravel())
        rank = (np.arange(steps) + 0.5) / steps
        distance = np.abs(example.exact.cdf(samples) - rank).max()
        error = np.abs(p - exact).max()
        results[example.title] = (float(error), float(distance))
        print(f"{example.title:40}{error:18.2g}{distance:13.4f}")
        bins = np.linspace(*example.limits, 61)
        # Weights, not density=True: what falls outside the panel counts as well.
        weights = np.full(steps, 1.0 / (steps * (bins[1] - bins[0])))
        label = "the points' own density" if example.title == FITTED else "closed form"
        panel.hist(samples, bins, weights=weights, color="0.85", label=f"{steps} samples f(u)")
        panel.plot(x, exact, color="tab:orange", lw=3, label=label)
        panel.plot(x, p, "k--", lw=1.2, label="change of variables")
        panel.set(title=example.title, xlim=example.limits, xlabel="x", ylabel="p(x)")
        panel.legend(frameon=False)
    figure.savefig(output, dpi=110)
    return results


# %%
if __name__ == "__main__":
    run(main, __doc__, default="worked_examples.png", steps=20_000)
