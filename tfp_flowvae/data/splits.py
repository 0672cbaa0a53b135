"""Train, validation and test images; a source's train images give the splits that it lacks.

- If a source has a test split, the last `min(10000, N // 6)` of its N train images are for
  validation (MNIST: 50,000, 10,000 and 10,000).
- If it has none, its train images are shuffled, always in the same way, and split by fractions: a
  tenth for validation and a fifth for testing (digits: 1257, 180 and 360).

The splits do not depend on a run's seed: all seeds are tested on the same images.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tfp_flowvae.errors import UserError

SPLIT_NAMES = {"train": ("train",), "valid": ("valid", "val", "validation"), "test": ("test",)}
"""The names of each split in data sets of others."""

SPLIT_SEED = 1797
"""The seed of the fixed shuffle."""

VALID_FRACTION, TEST_FRACTION = 0.1, 0.2
_MOST_VALID = 10_000


def check_fractions(valid_fraction: float | None, test_fraction: float | None) -> None:
    """Raises `UserError` unless fractions lie between 0 and 1 and leave images for training."""
    for name, value in (("valid_fraction", valid_fraction), ("test_fraction", test_fraction)):
        if value is not None and not 0.0 < value < 1.0:
            raise UserError(f"{name} must lie strictly between 0 and 1. Received: {value}.")
    valid, test = valid_fraction or VALID_FRACTION, test_fraction or TEST_FRACTION
    if valid + test >= 1.0:
        raise UserError(
            "valid_fraction and test_fraction together must stay below 1, or nothing is left to "
            f"train on. Received: {valid} and {test}."
        )


@dataclass(frozen=True)
class Plan:
    """Which images of a source become train, validation and test images.

    Attributes:
      sizes: The number of images of "train", "valid" and "test".
      bounds: For each split that is taken from the source's train images, its first place among
        them and the place after its last.
      shuffled: Whether the train images are shuffled first.
    """

    sizes: dict[str, int]
    bounds: dict[str, tuple[int, int]]
    shuffled: bool

    @cached_property
    def _ranks(self) -> np.ndarray:
        """int64 `[N]`: the places of the N train images after the shuffle."""
        size = max(last for _, last in self.bounds.values())
        if not self.shuffled:
            return np.arange(size)
        return np.argsort(fixed_permutation(size, SPLIT_SEED))  # The inverse permutation.

    def place(
        self, split: str, first: int, images: np.ndarray, into: Mapping[str, np.ndarray]
    ) -> None:
        """Writes images of the source to their places.

        Args:
          split: The split of the source that they come from.
          first: The index of the first image in that split.
          images: The images `[n, ...]`, which follow each other in that split.
          into: The arrays `[N, ...]` of "train", "valid" and "test".
        """
        last = first + len(images)
        if split != "train":
            into[split][first:last] = images
            return
        places = self._ranks[first:last]
        for target, (low, high) in self.bounds.items():
            own = (low <= places) & (places < high)
            into[target][places[own] - low] = images[own]


def plan_splits(
    sizes: dict[str, int], where: str, valid_fraction: float | None, test_fraction: float | None
) -> Plan:
    """Plans from which images of a source each split is made.

    Args:
      sizes: The number of images of the source's splits: "train", and perhaps "valid", "test".
      where: The source, for messages.
      valid_fraction: The fraction of the train images for validation; None for the default.
      test_fraction: The fraction of the train images for testing; None for the default.

    Returns:
      The plan. If the source has no test split, its train images are shuffled. The first of them
      are for training, the next for validation and the last for testing.

    Raises:
      UserError: If there are too few images, or a fraction is given for a split that the source
        has.
    """
    for split, value in (("valid", valid_fraction), ("test", test_fraction)):
        if split in sizes and value is not None:
            raise UserError(
                f"{where} has a {split} split of its own: leave {split}_fraction out. "
                f"Received: {split}_fraction={value}."
            )
    total = sizes["train"]
    lacking = [split for split in ("valid", "test") if split not in sizes]
    if total <= len(lacking):
        raise UserError(
            f"{where} holds too few images to split: at least {len(lacking) + 1} are needed. "
            f"Received: {total}."
        )
    valid = test = 0
    if "test" in lacking:
        test = min(_part(test_fraction or TEST_FRACTION, total), total - len(lacking))
    if "valid" in lacking:
        if test or valid_fraction is not None:
            valid = _part(valid_fraction or VALID_FRACTION, total)
        else:
            valid = max(1, min(_MOST_VALID, total // 6))
        valid = min(valid, total - test - 1)
    train = total - valid - test
    places = {"valid": (train, train + valid), "test": (train + valid, total)}
    bounds = {"train": (0, train)} | {split: places[split] for split in lacking}
    sizes = sizes | {split: high - low for split, (low, high) in bounds.items()}
    return Plan(sizes, bounds, shuffled="test" in lacking)


def fixed_permutation(size: int, seed: int) -> np.ndarray:
    """Returns a permutation of `0 .. size - 1` that is the same with every NumPy release.

    It sorts the raw output of a bit generator, the only output that NumPy promises not to change.

    Args:
      size: The number of indices.
      seed: The seed of the generator.

    Returns:
      int64 `[size]`.
    """
    return np.argsort(np.random.PCG64(seed).random_raw(size), kind="stable")


def _part(fraction: float, total: int) -> int:
    # Rounded up, so that no split is empty. 0.1 * 30 is slightly above 3 and must give 3.
    return math.ceil(fraction * total - 1e-9)
