"""The error for a user's mistake."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable

# Lines of an error's text that do not say what went wrong: blank and indented ones, and those in
# which TensorFlow says where in a graph the error was raised.
_NO_REASON = re.compile(r"$|\s|Graph execution error:|Detected at node |<stack traces unavailable>")


class UserError(ValueError):
    """A user's mistake, in one sentence: what was received, what is allowed, what to do.

    The command line prints the sentence and exits with `status`; in Python it is a `ValueError`.

    Attributes:
      status: 2.
    """

    status = 2


class NonFiniteError(FloatingPointError):
    """Training failed: the loss, a gradient or a weight became NaN or infinite.

    The model has the weights, and its optimizer the state, from before the step that failed, unless
    that step was not found.

    Attributes:
      epoch: The epoch, counted from 1.
      step: The step of the optimizer that failed, counted from 1 over all epochs.
      what: What was the first to be not finite: "data", "output" of a layer, "log-det" of a flow's
        step, "gradient", "weight" or "loss"; None if the step could not be repeated.
      layer: The path of the layer, such as "posterior/stack/iaf/made_1"; None if it is not known.
      flow_step: Which step of the flow `layer` it was, counted from 1; None for other layers.
      parameter: The path of the layer's parameter with the largest magnitude, or None.
      magnitude: The largest magnitude in that parameter, or None.

    Example:
      >>> density = fv.FlowDensity("affine", event_size=2)
      >>> density.compile(keras.optimizers.SGD(1e30))
      >>> x = np.random.default_rng(0).normal(size=(40, 2))
      >>> try:
      ...     history = density.fit(x, batch_size=10, shuffle=False, verbose=0)
      ... except fv.NonFiniteError as error:
      ...     print(f"epoch {error.epoch}: the {error.what} of {error.layer}")
      epoch 1: the output of density/...
    """

    def __init__(
        self,
        reason: str,
        *,
        epoch: int,
        step: int,
        what: str | None = None,
        layer: str | None = None,
        flow_step: int | None = None,
        parameter: str | None = None,
        magnitude: float | None = None,
    ) -> None:
        self.epoch, self.step, self.what, self.layer = epoch, step, what, layer
        self.flow_step, self.parameter, self.magnitude = flow_step, parameter, magnitude
        self.sentence = f"training failed in epoch {epoch} at step {step}: {reason}"
        super().__init__(
            f"{self.sentence[0].upper()}{self.sentence[1:]}. "
            + self.advice("a lower learning rate", "the optimizer's global_clipnorm")
        )

    def advice(self, rate: str, steadier: str) -> str:
        """Returns a sentence that says what to try.

        Args:
          rate: A lower learning rate, in words or as an option of the command line.
          steadier: What makes the steps of the optimizer steadier.
        """
        if self.what == "data":
            return "Leave out the examples with such values, or mend them."
        if self.magnitude is not None and not math.isfinite(self.magnitude):
            return "The weight was not finite before this step: initialise or load it anew."
        return f"Try {rate}, {steadier}, or, in the flows iaf and maf, update=gated."


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns a hint such as ` Did you mean 'planar'?`, or "" if no known name is similar.

    If a known name differs only in upper and lower case, the hint is that name alone.
    """
    known = list(known)
    same = [one for one in known if one.lower() == name.lower()]
    matches = same or difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.5)
    return f" Did you mean {' or '.join(repr(m) for m in matches)}?" if matches else ""


def first_line(error: BaseException) -> str:
    """Returns the reason that an error gives, short enough to be part of a sentence.

    Args:
      error: An error of Python, or of TensorFlow, whose text may have many lines.

    Returns:
      The first line that says what went wrong, without a full stop; the name of the error's class
      if there is none.
    """
    text = getattr(error, "strerror", None) or getattr(error, "message", None) or str(error)
    lines = (line for line in text.splitlines() if not _NO_REASON.match(line))
    return next(lines, type(error).__name__)[:1000].rstrip(" .")
