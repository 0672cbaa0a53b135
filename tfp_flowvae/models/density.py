"""The density of vectors, p(x) or p(x|context): a flow over a base, trained by `fit`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_flowvae import models
from tfp_flowvae._endpoints import Endpoint
from tfp_flowvae._typing import TensorLike
from tfp_flowvae.distributions.base import Base
from tfp_flowvae.distributions.flow_distribution import FlowDistribution, as_distribution
from tfp_flowvae.errors import UserError
from tfp_flowvae.flows.base import Flow
from tfp_flowvae.flows.stack import Stack
from tfp_flowvae.models.card import write_card
from tfp_flowvae.models.card_subjects import density_subject
from tfp_flowvae.models.conditional import ConditionalModel
from tfp_flowvae.models.data_units import Bound, DataUnits
from tfp_flowvae.models.directions import check_density_flows
from tfp_flowvae.models.endpoints import density_endpoints
from tfp_flowvae.models.facts import Facts
from tfp_flowvae.models.rows import as_rows, batches_of, is_array, training_rows
from tfp_flowvae.training.steps import DEFAULT_BATCH


@keras.saving.register_keras_serializable(package="tfp_flowvae")
class FlowDensity(ConditionalModel):
    """A density p(x), p(x|context) or p(x|y), that is fitted to data by maximum likelihood.

        x = g(mean + scale f(z0)),  z0 from the base,  f the flow
        loss = -log p(x), in nats per example

    `fit(x)` fits p(x), and `fit(x, context)` fits p(x|context): the context takes the place of
    Keras's `y`. `x` is `[N, D]`, `context` `[N, C]`; a `tf.data.Dataset` has batches of x, of
    (x, context) or of (x, context, sample_weight). `loss` and `log_likelihood` are logged.

    The first `fit` learns `mean` and `scale` of each column from the training data, unless `adapt`
    has been called, and the log-det of the map counts: densities are in the data's units. The
    columns of the context are standardised, too. g is the identity, or maps each column into its
    bounds. A spline flow moves points within its box, 4 standard deviations around the mean by
    default (`bound`), and is the identity outside, where the density has the base's tails.

    With `num_classes` it is p(x|y) of classes y: `fit(x, labels)`, `log_prob(x, label=y)`,
    `sample(n, label=3)`. The class is a one-hot vector in place of the context. A label of -1, or
    none, is a vector of zeros: p(x) is the density of an example whose class is not known, as in a
    `FlowVAE`.

    With `event_shape=(H, W, C)` in place of `event_size` it is an `ImageDensity`, of images of
    whole numbers: `fv.FlowDensity("glow:levels=2,steps=8", event_shape=(28, 28, 1))`.

    Args:
      flow: The name or spec string of a flow whose density is one pass, such as `"maf:5"`, with a
        base before it if it is not the normal, such as `"mixture:20+maf:5"`; a `Flow`; a
        `FlowDistribution`; or a `tfb.Bijector` of your own. Couplings need D of at least 2.
      event_size: D. It may be left out where the flow knows it.
      context_size: C, or None for a density without a context.
      base: What the flow acts on: the name of a base in `BASES`, a `Base`, or a `tfd.Distribution`
        of your own.
      standardize: Whether the first `fit` learns mean and scale.
      bounds: `(low, high)`, between which every column lies, strictly: each a number, a sequence of
        D numbers or None, or None. None and infinities stand for no bound. No sample is outside,
        and the density there is 0.
      num_classes: K, the number of classes, whose labels are 0 to K - 1; None for none. It takes
        the place of `context_size`.
      label_dropout: The share of the labels that are hidden in training.
      seed: Of the samples that are drawn without a seed. `keras.utils.set_random_seed` decides the
        initial weights and the order of the data.
      **kwargs: See `keras.Model`.

    Raises:
      UserError: If a spec does not parse, the flow's density is not one pass, or a size or a bound
        does not fit.

    Example:
      >>> x = np.random.default_rng(0).normal(size=(40, 2))  # [N, D]
      >>> density = fv.FlowDensity("maf:2,hidden=16", event_size=2)
      >>> density.compile("adam")
      >>> history = density.fit(x, batch_size=20, epochs=1, verbose=0)
      >>> density.log_prob(x[:3]).shape  # in nats
      TensorShape([3])
      >>> density.sample(5, seed=0).shape
      TensorShape([5, 2])
    """

    metric_names = ("log_likelihood",)

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Makes an `ImageDensity` where there is an event_shape."""
        of_images = cls is FlowDensity and "event_shape" in kwargs
        return super().__new__(models.ImageDensity if of_images else cls, *args, **kwargs)

    def __init__(
        self,
        flow: Any = "maf:5",
        *,
        event_size: int | None = None,
        context_size: int | None = None,
        base: Any = "normal",
        standardize: bool = True,
        bounds: tuple[Bound, Bound] | None = None,
        num_classes: int | None = None,
        label_dropout: float = 0.1,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(seed=seed, **kwargs)
        self.set_condition(num_classes, label_dropout, context_size)
        plain = isinstance(base, str) and base == "normal"
        parts = as_distribution(flow) if plain else FlowDistribution(flow, base)
        known = (event_size, parts.event_size, *(one.event_size for one in parts.flow.flows))
        event_size = next((size for size in known if size is not None), None)
        if event_size is None:
            raise UserError(
                "FlowDensity does not know the size of its vectors: give it event_size. "
                "Received: event_size=None."
            )
        self.standardize = standardize
        self._assemble(parts, DataUnits(bounds, name="x"), event_size)

    def _assemble(self, parts: FlowDistribution, units: Flow, event_size: int) -> None:
        """Creates all variables.

        Args:
          parts: The base and the flows of standardised vectors.
          units: From there to the data.
          event_size: D.
        """
        check_density_flows([parts.flow], event_size)
        self.layer = FlowDistribution(
            Stack([parts.flow, units]),
            parts.base,
            event_size=event_size,
            context_size=self.condition_size,
            name="density",
        )
        has_weights = parts.base.built
        size = self.condition_size
        self.layer.build((None, event_size), None if size is None else (None, size))
        if size is not None and not has_weights:
            _start_alike(parts.base, 0.01 if self.num_classes is None else 0.0)
        self._programs = {
            name: tf.function(getattr(self.layer, name), autograph=False, reduce_retracing=True)
            for name in ("sample", "sample_and_log_prob")
        }
        self.built = True

    @property
    def event_size(self) -> int:
        """D."""
        return self.layer.event_size

    @property
    def _units(self) -> DataUnits:
        return self.layer.flow.flows[-1]

    def distribution(
        self, context: TensorLike | None = None, label: TensorLike | None = None
    ) -> tfd.TransformedDistribution:
        """p(x), its variables live: event `[D]`, batch `[]`.

        Args:
          context: `[B, C]`, which gives p(x|context) with batch `[B]`; or None.
          label: With classes, B labels give p(x|y) with batch `[B]`; an integer, or None for an
            unknown class, has B = 1.
        """
        count = 1 if label is None else tf.size(label)
        return self.layer.distribution(self.condition(label, context, count))

    def log_prob(
        self,
        x: TensorLike,
        context: TensorLike | None = None,
        *,
        label: TensorLike | None = None,
    ) -> tf.Tensor:
        """log p(x), in nats, `[...]`.

        Args:
          x: `[..., D]`, with a context or classes `[..., B, D]`.
          context: `[B, C]`, or None.
          label: The label, or the labels `[B]`, of a density with classes; None for log p(x).
        """
        x = as_rows("x", x, self.event_size)
        return self.layer.log_prob(x, self.condition_of_rows(label, context, x))

    def sample(
        self,
        n: TensorLike,
        context: TensorLike | None = None,
        seed: TensorLike | None = None,
        temperature: TensorLike | None = None,
        label: TensorLike | None = None,
    ) -> tf.Tensor:
        """n draws from p(x), `[n, D]`, or `[n, B, D]` from p(x|context).

        Args:
          n: How many.
          context: `[B, C]`, or None.
          seed: An int, an integer scalar or a stateless seed `[2]`; None draws a fresh one.
          temperature: T, which scales the draws of the base about their mean, before the flow; see
            `FlowDistribution.sample`. None for 1, the density itself.
          label: With classes, the label of all draws, or the label of each, `[n]`.

        Raises:
          UserError: If there is a temperature and the base is a distribution without a mean.
        """
        if temperature is not None:
            temperature = tf.cast(temperature, tf.float32)
        return self._draw("sample", n, context, label, seed, temperature)

    def sample_and_log_prob(
        self,
        n: TensorLike,
        context: TensorLike | None = None,
        seed: TensorLike | None = None,
        label: TensorLike | None = None,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The draws of `sample`, and their log-densities in nats, `[n]` or `[n, B]`."""
        return self._draw("sample_and_log_prob", n, context, label, seed)

    def call(
        self,
        x: TensorLike,
        context: TensorLike | None = None,
        label: TensorLike | None = None,
    ) -> tf.Tensor:
        """log p(x), in nats; see `log_prob`."""
        return self.log_prob(x, context, label=label)

    def example_terms(
        self, x: Any, y: Any = None, training: bool = False
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """-log p(x|y) and log p(x|y) of each example, `[B]`, in nats."""
        log_prob = self(x, **self.condition_of_batch(y, training))
        return -log_prob, {"log_likelihood": log_prob}

    def adapt(
        self, x: Any, context: Any = None, sample_weight: Any = None, steps: int | None = None
    ) -> None:
        """Learns the mean and scale of each column of the data.

        Args:
          x: As for `fit`.
          context: As for `fit`; labels play no part in it.
          sample_weight: `[N]`, or None.
          steps: How many batches of a dataset to take; None for all.

        Raises:
          UserError: If a column is constant, a value is not finite or out of bounds, or a size is
            wrong.
        """

        def batches() -> Any:
            for rows, given, weight in batches_of(x, context, sample_weight, steps):
                if self.num_classes is None:
                    self.context_rows(given)  # checks it
                rows = as_rows("x", rows, self.event_size).numpy()
                yield rows, np.ones(len(rows)) if weight is None else np.asarray(weight)

        self._units.adapt(batches)
        self.adapt_context(x, context, sample_weight, steps)

    def prepare_fit(self, arguments: Mapping[str, Any]) -> None:
        """Checks arrays, and learns mean and scale from the training data if need be."""
        x, context, weight = (arguments.get(name) for name in ("x", "y", "sample_weight"))
        if x is not None and is_array(x):
            self._units.check(as_rows("x", x, self.event_size).numpy())
            self.check_condition(context, len(x))
            count = training_rows(arguments)
            batch_size = arguments.get("batch_size") or DEFAULT_BATCH
            if count < batch_size:
                raise UserError(
                    f"fit needs at least one whole batch of {batch_size} rows to train on: give a "
                    f"smaller batch_size. Received: {count} rows."
                )
            x, context, weight = (
                array if array is None else array[:count] for array in (x, context, weight)
            )
        if self.standardize and not self._units.adapted:
            self.adapt(x, context, weight, arguments.get("steps_per_epoch"))

    def endpoints(self) -> dict[str, Endpoint]:
        """The functions of the exported SavedModel; see `tfp_flowvae.export`."""
        return density_endpoints(self)

    def write_card(self, folder: Path, facts: Facts | None = None) -> None:
        """Writes README.md into an export's folder; see `FastModel.write_card`."""
        write_card(folder, density_subject(self), facts or Facts())

    def _draw(
        self,
        method: str,
        n: TensorLike,
        context: TensorLike | None,
        label: TensorLike | None,
        seed: TensorLike | None,
        *more: Any,
    ) -> Any:
        given, seed = self.condition(label, context, n), self.stateless_seed(seed)
        if self.num_classes is not None:
            n = 1  # each of the n labels has one draw
        if tf.inside_function():
            draw = getattr(self.layer, method)
        else:
            # Eagerly the D passes of an autoregressive flow would take minutes for D = 1000.
            draw, n = self._programs[method], tf.cast(n, tf.int32)
        found = draw(n, given, seed, *more)
        return found if self.num_classes is None else tf.nest.map_structure(lambda a: a[0], found)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, flow and base serialised."""
        parts = {"flow": self.layer.flow.flows[0], "base": self.layer.base}
        return {
            **super().get_config(),
            **keras.saving.serialize_keras_object(parts),
            "event_size": self.event_size,
            "context_size": self.context_size,
            "standardize": self.standardize,
            "bounds": self._units.get_config()["bounds"],
            "seed": self.seed,
            **self.condition_config(),
        }


def _start_alike(base: Base, share: float) -> None:
    """Makes a conditional base start almost alike for every context, as the flows do.

    Means and scales that are random functions of the context are far from the data at first, and
    some hundred steps are lost.

    Args:
      base: The base.
      share: What stays of the effect of the context.
    """
    for weight in base.trainable_weights:
        if weight.path.endswith("/kernel"):
            weight.assign(share * weight)
