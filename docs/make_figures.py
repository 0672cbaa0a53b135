"""Draws the pictures of the pages on a flow posterior and on densities.

    python docs/make_figures.py

It takes a minute, and writes docs/figures/posterior.png and docs/figures/density.png.
"""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import tfp_flowvae as fv

FOLDER = Path(__file__).parent / "figures"
LIMITS = (-3.0, 3.0, -3.5, 2.5)  # left, right, bottom, top
FAMILIES = {"a normal": "affine", "planar:4": "planar:4", "planar:16": "planar:16"}


def log_joint(z: tf.Tensor) -> tf.Tensor:
    """log p(x, z) in nats, for z `[..., 2]` and one x: a bent posterior."""
    prior = -0.5 * tf.reduce_sum(z**2, axis=-1) - np.log(2 * np.pi)
    residual = (z[..., 1] + z[..., 0] ** 2 - 1.0) / 0.3
    return prior - 0.5 * residual**2 - np.log(0.3 * np.sqrt(2 * np.pi))


def cells(size: int) -> np.ndarray:
    """The centres of the cells of a grid over `LIMITS`, `[size, size, 2]`."""
    left, right, bottom, top = LIMITS
    centres = (np.arange(size) + 0.5) / size
    x, y = np.meshgrid(left + (right - left) * centres, bottom + (top - bottom) * centres)
    return np.stack([x, y], axis=-1).astype(np.float32)


def fitted(spec: str, steps: int) -> fv.FlowDistribution:
    """The member of a family that has the largest ELBO."""
    keras.utils.set_random_seed(0)
    q = fv.FlowDistribution(spec, event_size=2)
    q.build()
    optimizer = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.02, steps))
    optimizer.build(q.trainable_variables)

    @tf.function(autograph=False)
    def step(seed: tf.Tensor) -> None:
        with tf.GradientTape() as tape:
            z, log_prob = q.sample_and_log_prob(256, seed=seed)
            loss = tf.reduce_mean(log_prob - log_joint(z))
        gradients = tape.gradient(loss, q.trainable_variables)
        optimizer.apply_gradients(zip(gradients, q.trainable_variables, strict=True))

    for i in range(steps):
        step(tf.constant([0, i]))
    return q


def draw_posterior(path: Path, steps: int) -> dict[str, float]:
    """Contours of a posterior and of the best approximation in each family.

    Returns:
      KL(q || p(z|x)) of each family, in nats.
    """
    grid = cells(300)
    left, right, bottom, top = LIMITS
    area = (right - left) * (top - bottom) / grid[..., 0].size
    log_target = log_joint(grid).numpy()
    log_evidence = np.log(np.sum(np.exp(log_target)) * area)
    figure = Figure(figsize=(10.0, 3.6), layout="constrained")
    found = {}
    for axes, (name, spec) in zip(
        figure.subplots(1, 3, sharey=True), FAMILIES.items(), strict=True
    ):
        q = fitted(spec, steps)
        z, log_prob = q.sample_and_log_prob(20_000, seed=1)
        found[name] = float(log_evidence + np.mean(log_prob - log_joint(z)))
        density = np.exp(q.log_prob(grid.reshape(-1, 2)).numpy().reshape(log_target.shape))
        axes.contourf(*np.moveaxis(grid, -1, 0), np.exp(log_target - log_evidence), 8, cmap="Greys")
        levels = density.max() * np.linspace(0.1, 0.9, 5)
        axes.contour(*np.moveaxis(grid, -1, 0), density, levels, colors="C1", linewidths=1.2)
        axes.set(title=f"{name}\nKL {found[name]:.2f} nats", xlabel="z1")
    figure.axes[0].set_ylabel("z2")
    save(figure, path)
    return found


def draw_density(path: Path, epochs: int) -> None:
    """The data of the page on densities, and as many samples of two models."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    a = rng.normal(size=2000)
    x = 100.0 + 20.0 * np.stack([a, a**2 + 0.3 * rng.normal(size=2000)], axis=1)
    x = x.astype("float32")
    figure = Figure(figsize=(10.0, 3.6), layout="constrained")
    first, *others = figure.subplots(1, 3, sharex=True, sharey=True)
    scatter(first, x, "data", "0.3")
    for axes, spec, rate in zip(others, ("lu", "maf:3,hidden=32"), (1e-2, 5e-3), strict=True):
        density = fv.FlowDensity(spec, event_size=2)
        density.compile(keras.optimizers.Adam(rate))
        density.fit(x, batch_size=100, epochs=epochs, verbose=0)
        title = "a normal (lu)" if spec == "lu" else "a flow (maf:3)"
        scatter(axes, density.sample(len(x), seed=0).numpy(), title, "C1")
    first.set(xlim=(20, 180), ylim=(20, 260), ylabel="x2")
    save(figure, path)


def scatter(axes: Axes, points: np.ndarray, title: str, colour: str) -> None:
    """Draws points `[N, 2]`."""
    axes.scatter(*points.T, s=4, color=colour, lw=0, alpha=0.6)
    axes.set(title=title, xlabel="x1")


def save(figure: Figure, path: Path) -> None:
    """Writes a picture; its folder is made if need be."""
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    for name, divergence in draw_posterior(FOLDER / "posterior.png", steps=3000).items():
        print(f"{name:10} KL {divergence:.3f} nats")
    draw_density(FOLDER / "density.png", epochs=40)
