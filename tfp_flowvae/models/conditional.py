"""A model whose distributions may depend on a class or on a context."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from tfp_flowvae._typing import TensorLike
from tfp_flowvae.errors import UserError
from tfp_flowvae.models.data_units import DataUnits
from tfp_flowvae.models.labels import as_context, check_fit, checked_labels, with_unknown
from tfp_flowvae.models.rows import as_rows, batches_of
from tfp_flowvae.training.model import FastModel
from tfp_flowvae.training.noise import Noise


class ConditionalModel(FastModel):
    """A model of p(x|y) given a class y, of p(x|context) given a vector, or of p(x).

    The distributions take one vector for each example as their context, the condition: the columns
    of the context with mean 0 and variance 1, or a one-hot vector for a class, of zeros where the
    class is not known.

    Attributes:
      num_classes: K, the number of classes; None for a model without.
      label_dropout: The share of the labels that are hidden in training.
      context_size: C, the size of the context; None for a model without, and for one with classes.
      context_units: The mean and the scale of each column of the context; None without one.
      conditions: The arguments of the constructor that make it conditional, in words.
      samples_at_once: How many samples, of all images together, the importance-weighted estimates
        hold in memory.
    """

    num_classes: int | None
    label_dropout: float
    context_size: int | None
    context_units: DataUnits | None
    samples_at_once: ClassVar[int] = 5000
    conditions: ClassVar[str] = "a context_size for p(x|context), or num_classes for p(x|y)"

    def set_condition(
        self, num_classes: int | None, label_dropout: float, context_size: int | None = None
    ) -> None:
        """Sets the attributes.

        Raises:
          ValueError: For a number of classes or a share of labels that cannot be.
          UserError: For both classes and a context.
        """
        if num_classes is not None and num_classes < 1:
            raise ValueError(f"num_classes must be at least 1. Received: {num_classes=}.")
        if not 0.0 <= label_dropout < 1.0:
            raise ValueError(
                f"label_dropout must be at least 0 and below 1. Received: {label_dropout=}."
            )
        if num_classes is not None and context_size is not None:
            raise UserError(
                f"A {type(self).__name__} has classes or a context: give it num_classes or "
                f"context_size. Received: {num_classes=}, {context_size=}."
            )
        self.num_classes, self.label_dropout = num_classes, label_dropout
        self.context_size, self.context_units = context_size, None
        if context_size is not None:
            self.context_units = DataUnits(name="context")
            self.context_units.build((None, context_size))

    @property
    def condition_size(self) -> int | None:
        """The size of the condition; None for a model of p(x)."""
        return self.context_size if self.num_classes is None else self.num_classes

    def condition(
        self, label: TensorLike | None, context: TensorLike | None, count: TensorLike
    ) -> tf.Tensor | None:
        """The condition, `[count, K]` of a label or of `count` labels, `[B, C]` of a context.

        Raises:
          UserError: If a label or a context is missing, not wanted, or of another shape or range.
        """
        if self.num_classes is None and label is None:
            return self._standardized(context)
        if self.num_classes is not None and context is not None:
            raise UserError(
                f"This {type(self).__name__} has {self.num_classes} classes: give it a label in "
                "place of a context. Received: a context."
            )
        return as_context(label, self.num_classes, count)

    def condition_of_rows(
        self, label: TensorLike | None, context: TensorLike | None, rows: tf.Tensor
    ) -> tf.Tensor | None:
        """The condition of vectors `[..., B, D]`."""
        count = tf.shape(rows)[-2] if self.num_classes is not None and rows.shape.rank > 1 else 1
        condition = self.condition(label, context, count)
        if condition is None:
            return None
        # TensorFlow's graph optimizer takes [1, 1, H] + [1, H] for [1, H].
        for _ in range(rows.shape.rank - condition.shape.rank):
            condition = condition[tf.newaxis]
        return condition

    def condition_arrays(
        self, label: TensorLike | None, context: TensorLike | None, count: int
    ) -> dict[str, np.ndarray]:
        """The label, int32 `[count]`, or the context of `count` examples, by name; {} for none."""
        if label is None and context is None:
            return {}
        self.condition(label, context, count)  # checks them
        if label is not None:
            return {"label": np.broadcast_to(np.asarray(label, np.int32), [count])}
        return {"context": np.asarray(context, np.float32)}

    def adapt_context(self, x: Any, context: Any, weight: Any = None, steps: Any = None) -> None:
        """Learns the mean and scale of each column of the context; arguments as `batches_of`."""
        if self.context_units is None:
            return
        units = self.context_units

        def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
            for _, given, weights in batches_of(x, context, weight, steps):
                rows = np.asarray(self.context_rows(given))
                yield rows, np.ones(len(rows)) if weights is None else np.asarray(weights)

        units.adapt(batches)

    def check_condition(self, y: Any, count: int) -> None:
        """Checks the labels or the context that `fit` is given with `count` examples in arrays.

        Raises:
          UserError: If they are missing, not wanted, or have another shape or range.
        """
        if self.num_classes is not None:
            check_fit(y, self.num_classes, count)
            return
        rows = self.context_rows(y)
        if self.context_units is not None:
            self.context_units.check(np.asarray(rows))

    def condition_of_batch(self, y: Any, training: bool) -> dict[str, Any]:
        """The label or the context of a batch of `fit`, as arguments; training hides labels."""
        if self.num_classes is None:
            return {"context": y}
        if training:
            check_fit(y, self.num_classes)
        if y is None:
            return {}
        label = checked_labels(y, self.num_classes)
        if training:
            label = self.seen_labels(label, Noise(self.stateless_seed(None)))
        return {"label": label}

    def seen_labels(self, label: tf.Tensor, noise: Noise) -> tf.Tensor:
        """What training sees of labels `[B]`."""
        return with_unknown(label, self.label_dropout, noise) if self.label_dropout else label

    def context_rows(self, context: TensorLike | None) -> tf.Tensor | None:
        """The context in float32; raises `UserError` if it is missing or not wanted."""
        size = self.context_size
        if size is None and context is not None:
            raise UserError(
                f"This {type(self).__name__} takes no context: give its constructor "
                f"{self.conditions}. Received: a context."
            )
        if size is not None and context is None:
            raise UserError(f"The context must have shape [B, {size}]. Received: None.")
        return None if size is None else as_rows("context", context, size)

    def _standardized(self, context: TensorLike | None) -> tf.Tensor | None:
        rows = self.context_rows(context)
        if self.context_units is None or rows is None:
            return None
        # tf.identity: TFP's cache may know this tensor from before the statistics were learned.
        return self.context_units.bijector().inverse(tf.identity(rows))

    def condition_config(self) -> dict[str, Any]:
        """The arguments of the constructor that make the model conditional; none if it is not."""
        if self.num_classes is None:
            return {} if self.context_size is None else {"context_size": self.context_size}
        return {"num_classes": self.num_classes, "label_dropout": self.label_dropout}
