"""The degrees that TFP's `AutoregressiveNetwork` gives to the entries and to the hidden units.

See `networks.made` for what a degree is. Random ones come from Python's global generator, which
`keras.utils.set_random_seed` seeds.
"""

from __future__ import annotations

import random
from collections.abc import Sequence


def entry_degrees(order: str | tuple[int, ...], size: int) -> tuple[int, ...]:
    """The degrees of the D entries, 1, ..., D in some order.

    Args:
      order: "left-to-right", "right-to-left", "random", or the degrees.
      size: D.

    Raises:
      ValueError: If degrees are given and are not 1, ..., D once each.
    """
    if order == "random":
        return tuple(random.sample(range(1, size + 1), size))
    if isinstance(order, str):
        return tuple(range(1, size + 1))[:: -1 if order == "right-to-left" else 1]
    if sorted(order) != list(range(1, size + 1)):
        raise ValueError(
            f"input_order must be a word or hold 1, ..., {size} once each. "
            f"Received: input_order={order}."
        )
    return order


def unit_degrees(
    degrees: str | tuple[tuple[int, ...], ...], units: Sequence[int], size: int
) -> tuple[tuple[int, ...], ...]:
    """The degrees of the hidden units, in 0, ..., D - 1.

    Args:
      degrees: "equal", "random", or the degrees, one tuple for each layer.
      units: Sizes of the hidden layers.
      size: D.

    Raises:
      ValueError: If degrees are given and are not as many as there are units.
    """
    if not isinstance(degrees, str):
        if [len(layer) for layer in degrees] != list(units):
            raise ValueError(
                f"hidden_degrees must be a word or hold one degree for each unit of {units}. "
                f"Received: hidden_degrees={degrees}."
            )
        return degrees
    layers: list[tuple[int, ...]] = []
    lowest = min(1, size - 1)
    for count in units:
        if degrees == "random":
            layers.append(tuple(random.randint(lowest, size - 1) for _ in range(count)))
        else:
            # The boundaries between count + 1 equal parts of 0, ..., D - 1, rounded up.
            inner = (-(-k * (size - 1) // (count + 1)) for k in range(1, count + 1))
            layers.append(tuple(max(lowest, degree) for degree in inner))
        lowest = min(layers[-1])
    return tuple(layers)
