"""From standardised vectors to the data's units: mean, scale and bounds of each column."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import bijectors as tfb

from tfp_flowvae import _compat
from tfp_flowvae.errors import UserError
from tfp_flowvae.flows.amortised import amortised
from tfp_flowvae.flows.base import Flow
from tfp_flowvae.models.bounds import IntoBounds

Bound = float | Sequence[float | None] | None
Batches = Callable[[], Iterable[tuple[np.ndarray, np.ndarray]]]


@keras.saving.register_keras_serializable(package="tfp_flowvae")
class DataUnits(Flow):
    """x = g(mean + scale z): the last flow of a `FlowDensity`, whose statistics `adapt` learns.

    g maps each column into its bounds, see `IntoBounds`. Mean and scale are those of g^-1(x), so
    that z has mean 0 and variance 1 in each column. Until `adapt` is called, the mean is 0 and the
    scale 1. Nothing here is trained by gradients.

    Args:
      bounds: `(low, high)`, each a number for all columns, a sequence of D numbers or None, or
        None. None and infinities stand for no bound.
      **kwargs: See `Flow`. Error messages call the vectors by `name`.

    Raises:
      UserError: From `build`, if a bound is missing or not below the other one.

    Example:
      >>> x = np.random.default_rng(0).uniform(size=(100, 2)).astype("float32")
      >>> units = DataUnits(bounds=(0.0, 1.0), event_size=2)
      >>> units.build()
      >>> units.adapt(lambda: [(x, np.ones(100))])
      >>> z = units.bijector().inverse(x)  # mean 0 and variance 1 in each column
    """

    def __init__(self, bounds: tuple[Bound, Bound] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.bounds = bounds

    def build(self, z_shape: Any = None, context_shape: Any = None) -> None:
        """Creates the statistics."""
        super().build(z_shape, context_shape)
        self._low, self._high = _read_bounds(self.bounds, self.event_size)
        self._statistics = {
            name: self.add_weight(
                name=name,
                shape=(self.event_size,),
                initializer=initializer,
                trainable=False,
                autocast=False,
            )
            for name, initializer in (("mean", "zeros"), ("scale", "ones"), ("width", "ones"))
        }
        self._adapted = self.add_weight(
            name="adapted", shape=(), initializer="zeros", trainable=False, autocast=False
        )
        self._statistics["width"].assign(self._width(np.full(self.event_size, np.nan)))

    @property
    def adapted(self) -> bool:
        """Whether the statistics have been learned, by this layer or before it was saved."""
        return bool(self._adapted.numpy())

    def make_bijector(self, context: tf.Tensor | None) -> tfb.Bijector:
        """The map from z to x, the same for every context."""
        return amortised(context, self._map)

    def _map(self, context: tf.Tensor | None) -> tfb.Bijector:
        mean, scale, width = (_compat.live(weight) for weight in self._statistics.values())
        parts = [tfb.Shift(mean), tfb.Scale(scale)]
        if self._bounded.any():
            parts.insert(0, IntoBounds(self._low, self._high, width))
        return tfb.Chain(parts)

    def check(self, x: np.ndarray) -> None:
        """Raises `UserError` for rows `[N, D]` that no density can be fitted to."""
        wrong = ~np.isfinite(x)
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            raise UserError(
                f"Every value of {self.name} must be finite: leave such rows out, or fill them in. "
                f"Received: {x[row, column]} in row {row}, column {column} of {self.name}."
            )
        wrong = (x <= self._low) | (x >= self._high)
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            raise UserError(
                f"Column {column} of {self.name} must lie strictly between its bounds "
                f"{self._low[column]:g} and {self._high[column]:g}. "
                f"Received: {x[row, column]:g} in row {row}."
            )

    def adapt(self, batches: Batches) -> None:
        """Learns mean and scale of each column.

        Args:
          batches: A function that gives the data anew at each call: float32 rows `[N, D]` and the
            weights of the rows, `[N]`.

        Raises:
          UserError: If there are no rows, a value is not finite or out of bounds, or a column is
            constant.
        """
        mean, variance, constant = _moments(batches, self.check)
        if constant.any():
            column = int(np.argmax(constant))
            raise UserError(
                f"Column {column} of {self.name} is constant, so it has no density: leave it out. "
                f"Received: {mean[column]:g} in every row."
            )
        self._statistics["width"].assign(self._width(mean))
        if self._bounded.any():
            free = tf.function(self._free, autograph=False, reduce_retracing=True)
            mean, variance, _ = _moments(
                lambda: ((free(tf.constant(x)).numpy(), weight) for x, weight in batches())
            )
        self._statistics["mean"].assign(mean)
        self._statistics["scale"].assign(np.sqrt(variance))
        self._adapted.assign(1.0)

    @property
    def _bounded(self) -> np.ndarray:
        return np.isfinite(self._low) | np.isfinite(self._high)

    def _free(self, x: tf.Tensor) -> tf.Tensor:
        """g^-1(x)."""
        width = _compat.live(self._statistics["width"])
        return IntoBounds(self._low, self._high, width).inverse(x)

    def _width(self, mean: np.ndarray) -> np.ndarray:
        """Returns the distance between the bounds, of the mean from a single bound, or 1."""
        low, high = self._low, self._high
        one_sided = np.where(np.isfinite(low), mean - low, high - mean)
        width = np.where(np.isfinite(low) & np.isfinite(high), high - low, one_sided)
        return np.where(np.isfinite(width), width, 1.0)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        bounds = self.bounds and [
            bound if bound is None else np.asarray(bound, object).tolist() for bound in self.bounds
        ]
        return {**super().get_config(), "bounds": bounds}


def _moments(
    batches: Batches, check: Callable[[np.ndarray], None] = lambda x: None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the weighted mean and variance of each column, and whether it is constant, `[D]`.

    The moments of the batches are combined in float64 by the formula of Chan, Golub & LeVeque
    (1983), which is accurate even if the mean is much larger than the standard deviation.
    """
    total, mean, squares, least, most = 0.0, 0.0, 0.0, np.inf, -np.inf
    for x, weight in batches():
        check(x)
        x, weight = x[weight > 0].astype(np.float64), weight[weight > 0].astype(np.float64)
        if not len(x):
            continue
        least, most = np.minimum(least, x.min(axis=0)), np.maximum(most, x.max(axis=0))
        here = weight.sum()
        center = weight @ x / here
        shift, fraction = center - mean, here / (total + here)
        squares = squares + weight @ (x - center) ** 2 + shift**2 * total * fraction
        mean, total = mean + shift * fraction, total + here
    if not total:
        raise UserError("The data must have at least one row. Received: none.")
    return np.asarray(mean), np.asarray(squares) / total, np.asarray(least == most)


def _read_bounds(
    bounds: tuple[Bound, Bound] | None, event_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the bounds of each column, float32 `[D]`; infinities stand for no bound."""
    if bounds is None:
        bounds = (None, None)
    if not isinstance(bounds, Sequence) or len(bounds) != 2:
        raise UserError(
            "bounds must be (low, high), each a number, a sequence with a number or None for each "
            f"column, or None. Received: {bounds!r}."
        )
    low, high = (
        _one_bound(bound, none, event_size)
        for bound, none in zip(bounds, (-np.inf, np.inf), strict=True)
    )
    wrong = ~(low < high)
    if wrong.any():
        column = int(np.argmax(wrong))
        raise UserError(
            "Each lower bound must be below the upper one. "
            f"Received: {low[column]:g} and {high[column]:g} for column {column}."
        )
    return low, high


def _one_bound(bound: Any, none: float, event_size: int) -> np.ndarray:
    values = [bound] * event_size if bound is None or np.ndim(bound) == 0 else list(bound)
    if len(values) != event_size:
        raise UserError(
            f"A bound must be one number or one for each of the {event_size} columns. "
            f"Received: {len(values)} of them."
        )
    return np.array([none if value is None else value for value in values], np.float32)
