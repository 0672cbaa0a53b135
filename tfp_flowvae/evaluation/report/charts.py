"""The charts of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from tfp_flowvae.evaluation.diagnostics import ACTIVE_VARIANCE
from tfp_flowvae.evaluation.report.latents import Latents, Pair, Plane
from tfp_flowvae.evaluation.report.theme import COLOURS, OTHER, PAPER, Picture, chart

History = Mapping[str, np.ndarray]

MAP_FRAME = (0.12, 0.11, 0.86, 0.87)
"""The axes of the map, as shares of its width and height: left, bottom, width and height."""

_MAP_SIZE = (5.4, 5.4)
# Words on the map are so far apart, as a share of its width.
_APART, _ROUNDS = 0.05, 50
_BINS = 30
# With so many epochs, the first of them would flatten the rest of a curve.
_MANY_EPOCHS = 20


def curves(
    history: History,
    lines: Mapping[str, str],
    title: str,
    unit: str = "nats per image",
    sign: float = 1.0,
) -> Picture:
    """Draws columns of the history over epochs.

    Args:
      history: The history.
      lines: The label of each column that is drawn, where there is such a column.
      title: The title.
      unit: The unit of the vertical axis.
      sign: What the values are multiplied by.
    """

    def plot(axes: Axes) -> None:
        shown = []
        for (name, label), colour in zip(lines.items(), COLOURS, strict=False):
            if name in history:
                values = sign * history[name]
                shown.append(values)
                _line(axes, history, values, colour, label)
        axes.set(title=title, ylabel=unit)
        if len(shown) > 1:
            axes.legend()
        _leave_out_the_start(axes, shown)

    return chart(plot)


def histograms(values: Mapping[str, np.ndarray], title: str, unit: str) -> Picture:
    """Draws histograms over each other, which share their bins.

    Args:
      values: The values by the label of the histogram.
      title: The title.
      unit: What the values are.
    """
    both = np.concatenate(list(values.values()))
    # A few extreme values would make the bins wide.
    low, high = np.quantile(both[np.isfinite(both)], [0.002, 0.998])
    edges = np.linspace(low, high, min(_BINS, round(2.0 * np.sqrt(both.size))) + 1)

    def plot(axes: Axes) -> None:
        for (label, one), colour in zip(values.items(), COLOURS, strict=False):
            shares, _ = np.histogram(one, edges, density=True)
            axes.stairs(shares, edges, color=colour, label=label, linewidth=1.5)
        axes.set(title=title, xlabel=unit, ylabel="share per unit")
        axes.legend()

    return chart(plot)


def of_dimensions(values: Mapping[str, np.ndarray], title: str, unit: str) -> Picture:
    """Draws a value of each dimension, in the order of the values.

    Args:
      values: The values `[D]` by the label of the line.
      title: The title.
      unit: What the values are.
    """

    def plot(axes: Axes) -> None:
        for (label, one), colour in zip(values.items(), COLOURS, strict=False):
            axes.plot(np.arange(1, len(one) + 1), np.sort(one)[::-1], color=colour, label=label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylim(bottom=0.0)
        axes.set(title=title, xlabel="dimensions of z0, in the order of the value", ylabel=unit)
        axes.legend()

    return chart(plot)


def from_zero(history: History, name: str, title: str, unit: str, largest: float) -> Picture:
    """Draws a column of the history over epochs, from 0 to the largest value that it can have."""

    def plot(axes: Axes) -> None:
        _line(axes, history, history[name], COLOURS[0], title)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylim(0.0, 1.05 * largest)
        axes.set(title=title, ylabel=unit)

    return chart(plot)


def mean_and_deviation(history: History, name: str, title: str, colour: int) -> Picture:
    """Draws the mean of a log-density over epochs, in a band of one standard deviation."""

    def plot(axes: Axes) -> None:
        mean, deviation = history[name], history[f"{name}_std"]
        _line(axes, history, mean, COLOURS[colour], "mean")
        axes.fill_between(
            history["epoch"],
            mean - deviation,
            mean + deviation,
            color=COLOURS[colour],
            alpha=0.2,
            linewidth=0,
        )
        axes.set(title=title, ylabel="nats, mean ± standard deviation")
        _leave_out_the_start(axes, [mean - deviation, mean + deviation])

    return chart(plot)


def kl_over_epochs(history: History) -> Picture:
    """Draws the KL of each dimension of the base over epochs, as a heat map."""
    values = np.stack([history[name] for name in kl_columns(history)])
    order = np.argsort(-values[:, -1])

    def plot(axes: Axes) -> None:
        axes.grid(visible=False)
        first, last = history["epoch"][[0, -1]]
        image = axes.imshow(
            values[order],
            aspect="auto",
            cmap="cividis",
            vmin=0.0,
            extent=(first - 0.5, last + 0.5, len(values) - 0.5, -0.5),
            interpolation="nearest",
        )
        axes.set(title="KL of each dimension over epochs", xlabel="epoch")
        axes.set_ylabel("dimension, sorted by its last KL")
        _few_ticks(axes, [str(i) for i in order])
        bar = axes.figure.colorbar(image, ax=axes)
        bar.set_label("KL from N(0, 1), nats")
        bar.outline.set_visible(False)

    return chart(plot)


def kl_columns(history: History) -> list[str]:
    """Returns the columns with the KL of each dimension, in order."""
    names = [name for name in history if name.startswith("base_kl_")]
    return sorted(names, key=lambda name: int(name.rsplit("_", 1)[1]))


def kl_per_dimension(latents: Latents) -> Picture:
    """Draws the KL of each dimension of the base; active units and others look different."""
    active = latents.variance > ACTIVE_VARIANCE

    def plot(axes: Axes) -> None:
        places = np.arange(len(active))
        for chosen, colour, hatch, label in (
            (active, COLOURS[0], "", "active"),
            (~active, OTHER, "////", "not active"),
        ):
            if chosen.any():
                axes.bar(
                    places[chosen],
                    latents.kl[chosen],
                    color=colour if not hatch else "none",
                    edgecolor=colour,
                    hatch=hatch,
                    label=label,
                )
        axes.grid(visible=False, axis="x")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set(title="KL of each dimension at the end", xlabel="latent dimension")
        axes.set_ylabel("KL from N(0, 1), nats")
        axes.legend()

    return chart(plot)


def pair_of_dimensions(latents: Latents, pair: Pair) -> Picture:
    """Draws q(z) and p(z) in two dimensions."""
    i, j = pair.dimensions

    def plot(axes: Axes) -> None:
        for z, colour, label in (
            (latents.prior, COLOURS[1], "prior p(z)"),
            (latents.posterior, COLOURS[0], "aggregated posterior q(z)"),
        ):
            axes.scatter(z[:, i], z[:, j], s=5, alpha=0.6, color=colour, linewidths=0, label=label)
        both = np.concatenate([latents.prior, latents.posterior])[:, [i, j]]
        low, high = np.quantile(both, [0.002, 0.998], axis=0)
        margin = 0.08 * (high - low) + 1e-6
        axes.set_xlim(low[0] - margin[0], high[0] + margin[0])
        axes.set_ylim(low[1] - margin[1], high[1] + margin[1])
        axes.set(xlabel=f"latent dimension {i}", ylabel=f"latent dimension {j}")
        handles, labels = axes.get_legend_handles_labels()
        axes.figure.legend(handles, labels, loc="outside lower center", ncols=2, markerscale=2.5)

    return chart(plot, (4.2, 4.2))


def latent_map(found: Plane, groups: Sequence[tuple[str, np.ndarray, str]]) -> Picture:
    """Draws the map of test latents.

    Args:
      found: The plane.
      groups: For each colour: a name, "" for none; which of the N points have it; and the colour.
    """

    def plot(axes: Axes) -> None:
        for _, chosen, colour in groups:
            x, y = found.points[chosen].T
            axes.scatter(x, y, s=11, alpha=0.75, color=colour, linewidths=0)
        named = [(name, chosen) for name, chosen, _ in groups if name]
        medians = [np.median(found.points[chosen], axis=0) for _, chosen in named]
        for (name, _), (x, y) in zip(named, _apart(medians, found.limits), strict=True):
            axes.text(
                x,
                y,
                name,
                fontsize=13,
                fontweight="bold",
                ha="center",
                va="center",
                path_effects=[withStroke(linewidth=3.5, foreground=PAPER)],
            )
        axes.set_xlim(found.limits[0])
        axes.set_ylim(found.limits[1])
        first, second = (f"({share:.0%} of the variance)" for share in found.explained)
        axes.set_xlabel(f"first principal component of z {first}")
        axes.set_ylabel(f"second principal component of z {second}")

    return chart(plot, _MAP_SIZE, MAP_FRAME)


def _apart(places: Sequence[np.ndarray], limits: np.ndarray) -> np.ndarray:
    """Moves places `[N, 2]` of words, as little as need be, until none hides another."""
    low, size = limits[:, 0], limits[:, 1] - limits[:, 0]
    shares = (np.reshape(places, (-1, 2)) - low) / size
    for _ in range(_ROUNDS):
        between = shares[:, np.newaxis] - shares
        distance = np.linalg.norm(between, axis=-1)
        np.fill_diagonal(distance, np.inf)
        lack = np.maximum(_APART - distance, 0.0) / np.maximum(distance, 1e-9)
        shares = shares + 0.5 * np.sum(lack[..., np.newaxis] * between, axis=1)
    return low + shares * size


def _line(axes: Axes, history: History, values: np.ndarray, colour: str, label: str) -> None:
    epochs = history["epoch"]
    axes.plot(epochs, values, color=colour, label=label, marker="o" if len(epochs) < 4 else "")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch")


def _leave_out_the_start(axes: Axes, curves: Sequence[np.ndarray]) -> None:
    """Fits the vertical axis to all but the first values of curves of many epochs."""
    if not curves or len(curves[0]) < _MANY_EPOCHS:
        return
    rest = np.concatenate([values[len(values) // 20 :] for values in curves])
    rest = rest[np.isfinite(rest)]
    if rest.size:
        low, high = rest.min(), rest.max()
        margin = 0.06 * (high - low) or 1.0
        axes.set_ylim(low - margin, high + margin)


def _few_ticks(axes: Axes, names: Sequence[str]) -> None:
    """Names rows of a heat map, or every n-th of them if there are many."""
    step = -(-len(names) // 20)
    axes.set_yticks(range(0, len(names), step), names[::step])
