"""What the examples share: a neural conditioner, the picture of a 2-D density, a command line."""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


class Conditioner(tf.Module):
    """A tanh network `[..., inputs] -> (shift, log_scale)`, each `[..., outputs]`.

    A callable `tf.Module`, not a closure: a coupling then finds its variables, and
    `distribution.trainable_variables` is complete. The last layer starts at zero, so that the
    coupling starts as the identity, and log_scale is bounded by `bound` for stability.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        hidden: Sequence[int],
        rng: np.random.Generator,
        bound: float = 3.0,
    ) -> None:
        super().__init__()
        sizes = (inputs, *hidden, 2 * outputs)
        self._bound = bound
        self._layers: list[tuple[tf.Variable, tf.Variable]] = []
        for fan_in, fan_out in itertools.pairwise(sizes):
            last = len(self._layers) == len(hidden)
            kernel = rng.normal(scale=0.0 if last else fan_in**-0.5, size=(fan_in, fan_out))
            self._layers.append(
                (tf.Variable(kernel, dtype=tf.float32), tf.Variable(tf.zeros([fan_out])))
            )

    def __call__(self, x: tf.Tensor, output_units: int) -> tuple[tf.Tensor, tf.Tensor]:
        """Answers as `tfb.RealNVP` and `Coupling` ask their `shift_and_log_scale_fn`."""
        for kernel, bias in self._layers[:-1]:
            x = tf.tanh(x @ kernel + bias)
        kernel, bias = self._layers[-1]
        shift, raw = tf.split(x @ kernel + bias, [output_units, output_units], axis=-1)
        return shift, self._bound * tf.tanh(raw / self._bound)


def grid(limits: tuple[float, float, float, float], size: int) -> np.ndarray:
    """The centres of `size` x `size` cells over (left, right, bottom, top): `[size, size, 2]`."""
    left, right, bottom, top = limits
    centres = (np.arange(size) + 0.5) / size
    x, y = np.meshgrid(left + (right - left) * centres, bottom + (top - bottom) * centres)
    return np.stack([x, y], axis=-1).astype(np.float32)


def show_density(
    axes: Axes, density: np.ndarray, limits: tuple[float, float, float, float], peak: float
) -> None:
    """Draws `density[y, x]` on the grid over `limits`; `peak` and above is darkest."""
    axes.imshow(
        density, origin="lower", extent=limits, cmap="magma_r", vmin=0.0, vmax=peak, aspect="auto"
    )


def new_figure(width: float, height: float, rows: int, columns: int) -> tuple[Figure, np.ndarray]:
    """A figure without pyplot's global state, and its axes `[rows, columns]`."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False)


def run(main: Callable[..., object], description: str | None, default: str, steps: int) -> None:
    """The command line of an example: `--output`, `--steps`, `--seed`, or none in a notebook."""
    notebook = "ipykernel" in sys.modules
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path(default), help="the picture, a PNG")
    parser.add_argument("--steps", type=int, default=steps, help="optimizer steps (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    # The arguments of a notebook's process are those of its kernel.
    arguments = parser.parse_args([] if notebook else None)
    main(arguments.output, steps=arguments.steps, seed=arguments.seed)
    print(f"picture: {arguments.output}")
    if notebook:
        from IPython.display import Image, display

        display(Image(arguments.output))
