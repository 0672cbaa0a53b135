"""What the card of a model tells of its run, without importing TensorFlow."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class Figure:
    """A figure of a model.

    Attributes:
      type: Its name in the header, such as "free_energy"; "" for a figure of the text alone.
      label: What it is, in words.
      value: Its value.
      how: How it was measured, unit included.
      shown: Its value as text, if not with three decimals.
      split: The split of the data, or "".
    """

    type: str
    label: str
    value: float
    how: str
    shown: str = ""
    split: str = ""


@dataclasses.dataclass(frozen=True)
class Facts:
    """What a card tells besides the model.

    Attributes:
      name: The name of the model.
      dataset: The name of the data set, or "" if it is not known.
      data: What is known of the data, by label.
      settings: The settings of the run, by name.
      figures: The figures.
      license: The model's license, by Hugging Face's name for it; "" to keep that of a card that is
        there already.
    """

    name: str = ""
    dataset: str = ""
    data: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    figures: Sequence[Figure] = ()
    license: str = ""
