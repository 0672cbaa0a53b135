# %% [markdown]
# # Planar and radial flows on four energies

# %% [markdown]
"""Planar and radial flows fitted to four 2-D energies, after Rezende & Mohamed (2015), figure 3.

A density known up to its constant, p(z) = exp(-U(z)) / Z, is approximated by a flow q that
minimises

    KL(q || p) = E_q[log q(z) + U(z)] + log Z,

where the expectation is over samples of q, and the gradient goes through the flow.
`tfp.vi.fit_surrogate_posterior` does this for any `tfd.Distribution` that has variables.

What to see in the picture: with K = 2 planar steps a fit is a bent blob; with K = 32 it has the
shape and the branches of the truth. A radial step moves points along rays from a centre. Radial
flows make a ring at once, and waves only with difficulty: at equal K they fit worse, except on U1
at K = 2.

    python examples/energies.py --output energies.png
"""

# %%
from __future__ import annotations

import math
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from _common import grid, new_figure, run, show_density
from tensorflow_probability import bijectors as tfb
from tensorflow_probability import distributions as tfd

from tfp_flowvae import bijectors as fvb

# %%
NAMES = ("U1", "U2", "U3", "U4")
FAMILIES = ("planar", "radial")
LIMITS = (-5.2, 5.2, -5.2, 5.2)
_FINE = (-6.0, 6.0, -6.0, 6.0)  # holds all but 1e-6 of every mass


# %% [markdown]
# ## The energies
#
# With w1 = sin(pi z1 / 2), w2 = 3 exp(-((z1 - 1) / 0.6)^2 / 2), w3 = 3 sigmoid((z1 - 1) / 0.3) and
# G(a, b) = exp(-(a / b)^2 / 2), table 1 of the paper reads
#
#     U1 = ((||z|| - 2) / 0.4)^2 / 2 - log(G(z1 - 2, 0.6) + G(z1 + 2, 0.6))
#     U2 = ((z2 - w1) / 0.4)^2 / 2
#     U3 = -log(G(z2 - w1, 0.35) + G(z2 - w1 + w2, 0.35))
#     U4 = -log(G(z2 - w1, 0.40) + G(z2 - w1 + w3, 0.35)).
#
# U2, U3 and U4 do not grow along z1, so they have no Z. The figure of the paper shows [-4, 4]; here
# all four energies get a soft wall, ((|z1| - 4) / 0.2)^2 / 2 beyond |z1| = 4, and Z is a sum over a
# fine grid.


# %%
def energies(z: tf.Tensor) -> tf.Tensor:
    """U1 to U4 with the wall, `[..., 4]`, of z `[..., 4, 2]`: one energy for each batch member."""
    z1, z2 = z[..., 0], z[..., 1]
    z1_of, z2_of = tf.unstack(z1, axis=-1), tf.unstack(z2, axis=-1)

    def log_g(a: tf.Tensor, b: float) -> tf.Tensor:
        return -0.5 * tf.square(a / b)

    def offset(i: int) -> tf.Tensor:
        return z2_of[i] - tf.sin(0.5 * math.pi * z1_of[i])

    ring = -log_g(tf.norm(z[..., 0, :], axis=-1) - 2.0, 0.4)
    u1 = ring - tf.reduce_logsumexp([log_g(z1_of[0] - 2, 0.6), log_g(z1_of[0] + 2, 0.6)], axis=0)
    u2 = -log_g(offset(1), 0.4)
    w2 = 3.0 * tf.exp(log_g(z1_of[2] - 1.0, 0.6))
    u3 = -tf.reduce_logsumexp([log_g(offset(2), 0.35), log_g(offset(2) + w2, 0.35)], axis=0)
    w3 = 3.0 * tf.sigmoid((z1_of[3] - 1.0) / 0.3)
    u4 = -tf.reduce_logsumexp([log_g(offset(3), 0.4), log_g(offset(3) + w3, 0.35)], axis=0)
    wall = -log_g(tf.nn.relu(tf.abs(z1) - 4.0), 0.2)
    return tf.stack([u1, u2, u3, u4], axis=-1) + wall


def on_grid(limits: tuple[float, float, float, float], size: int) -> tf.Tensor:
    """The grid's points for each of the four batch members, `[size, size, 4, 2]`."""
    points = grid(limits, size)[:, :, np.newaxis]
    return tf.constant(np.broadcast_to(points, (size, size, 4, 2)))


def log_normalizers() -> np.ndarray:
    """log Z of the four energies, `[4]`, by the midpoint rule."""
    size = 600
    cell = (_FINE[1] - _FINE[0]) * (_FINE[3] - _FINE[2]) / size**2
    mass = tf.reduce_logsumexp(-energies(on_grid(_FINE, size)), axis=[0, 1])
    return mass.numpy() + math.log(cell)


# %% [markdown]
# ## Four flows as one distribution
#
# The four energies are four members of a batch: parameters are `[4, K, D]`, samples `[S, 4, D]`,
# and one run of one optimizer fits all of them.


# %%
def build(family: str, k: int, seed: int) -> tfd.TransformedDistribution:
    """Four flows of K steps as one distribution with batch `[4]`, all parameters trainable."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int, scale: float = 1.0) -> tf.Variable:
        return tf.Variable(scale * rng.standard_normal((4, *shape)), dtype=tf.float32)

    if family == "planar":
        flow = fvb.PlanarFlow(u=normal(k, 2, scale=0.1), w=normal(k, 2), b=normal(k))
    else:
        alpha = tfp.util.TransformedVariable(tf.ones([4, k]), tfb.Softplus())
        flow = fvb.RadialFlow(center=normal(k, 2), alpha=alpha, beta=normal(k, scale=0.1))
    scale = tfp.util.TransformedVariable(tf.ones([4, 2]), tfb.Softplus())
    base = tfd.MultivariateNormalDiag(loc=tf.Variable(tf.zeros([4, 2])), scale_diag=scale)
    return tfd.TransformedDistribution(base, flow)


# %% [markdown]
# ## Fit
#
# As in the paper, the energy is annealed: beta U, with beta from 0.01 to 1. KL(q || p) prefers to
# cover one mode well, and without annealing 32 planar steps end at 0.2 nats on U4 instead of 0.02.


# %%
def fit(q: tfd.TransformedDistribution, steps: int, seed: int) -> np.ndarray:
    """Minimises the annealed KL in place; returns the losses, `[steps, 4]`, in nats."""
    # TFP documents tf_keras optimizers here; those of Keras 3 take tf.Variables as well.
    rate = keras.optimizers.schedules.CosineDecay(2e-2, steps, alpha=0.02)
    optimizer = keras.optimizers.Adam(rate)

    def annealed(z: tf.Tensor) -> tf.Tensor:
        progress = tf.cast(optimizer.iterations.value, tf.float32) / (0.6 * steps)
        return -tf.minimum(1.0, 0.01 + progress) * energies(z)

    # Compiling takes as long as some hundreds of steps: a trial run goes without.
    losses = tfp.vi.fit_surrogate_posterior(
        annealed, q, optimizer, steps, sample_size=128, jit_compile=steps > 500, seed=(seed, 1)
    )
    return losses.numpy()


def divergence(q: tfd.TransformedDistribution, log_z: np.ndarray, seed: int) -> np.ndarray:
    """KL(q || p), `[4]`, in nats, from 20000 samples, to about 0.01 where q is poor."""
    z, log_q = q.experimental_sample_and_log_prob(20_000, seed=(seed, 2))
    return tf.reduce_mean(log_q + energies(z), axis=0).numpy() + log_z


# %% [markdown]
# ## Compare
#
# The panels show q at every pixel, by the inverse of the flow, and not a cloud of samples.


# %%
def main(
    output: Path, steps: int = 2000, seed: int = 0, sizes: tuple[int, ...] = (2, 8, 32)
) -> dict[tuple[str, int], np.ndarray]:
    """Fits and draws all; returns KL(q || p) of the four energies, `[4]`, by family and K.

    The key ("base", 0) holds the divergence of the untrained planar flow, for comparison.
    """
    log_z = log_normalizers()
    points = on_grid(LIMITS, 200)
    truth = np.exp(-energies(points).numpy() - log_z)
    panels: list[tuple[str, np.ndarray, np.ndarray | None]] = [("truth", truth, None)]
    untrained = divergence(build("planar", sizes[0], seed), log_z, seed)
    divergences = {("base", 0): untrained}
    print("KL(q || p) in nats    " + "".join(f"{name:>8}" for name in NAMES))
    print(f"{'untrained':22}" + "".join(f"{value:8.3f}" for value in untrained))
    for family in FAMILIES:
        for k in sizes:
            q = build(family, k, seed)
            fit(q, steps, seed)
            kl = divergences[family, k] = divergence(q, log_z, seed)
            density = tf.function(q.prob)(points).numpy()
            panels.append((f"{family}, K = {k}", density, kl))
            print(f"{family + f', K = {k}':22}" + "".join(f"{v:8.3f}" for v in kl), flush=True)
    draw(output, panels)
    return divergences


def draw(output: Path, panels: list[tuple[str, np.ndarray, np.ndarray | None]]) -> None:
    """A row for each energy, a column for each `(title, density [H, W, 4], KL [4] or None)`."""
    figure, axes = new_figure(2.0 * len(panels), 8.4, len(NAMES), len(panels))
    for column, (title, density, kl) in enumerate(panels):
        axes[0, column].set_title(title, fontsize=12)
        for row, name in enumerate(NAMES):
            here = axes[row, column]
            show_density(here, density[..., row], LIMITS, peak=panels[0][1][..., row].max())
            here.set(xticks=[-4, 0, 4], yticks=[-4, 0, 4], aspect="equal")
            here.label_outer()
            if column == 0:
                here.set_ylabel(name, rotation=0, labelpad=12, fontsize=12)
            if kl is not None:
                here.text(-4.8, 4.2, f"KL {kl[row]:.3f}", fontsize=9)
    figure.suptitle(
        "p(z) = exp(-U(z)) / Z and its fits q(z), one colour scale a row; KL(q || p) in nats"
    )
    figure.savefig(output, dpi=110)


# %%
if __name__ == "__main__":
    run(main, __doc__, default="energies.png", steps=2000)
