"""Train, validation and test: what a source does not come with is split off its train images.

- A source with a test split gives the last `min(10000, N // 6)` of its N train images for
  validation (MNIST: 50,000, 10,000 and 10,000).
- A source without one is shuffled, always in the same way, and split by fractions: a tenth for
  validation and a fifth for testing (digits: 1257, 180 and 360).

Neither depends on a run's seed, so runs with different seeds are tested on the same images.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from tfp_flowvae.errors import UserError

SPLIT_SEED = 1797
"""The seed of the fixed shuffle."""

VALID_FRACTION, TEST_FRACTION = 0.1, 0.2
_MOST_VALID = 10_000

Places: TypeAlias = Callable[[int, int], dict[str, tuple[np.ndarray, np.ndarray]]]


def check_fractions(valid_fraction: float | None, test_fraction: float | None) -> None:
    """Checks that fractions lie strictly between 0 and 1 and leave something for training.

    Raises:
        UserError: If they do not.
    """
    for name, value in (("valid_fraction", valid_fraction), ("test_fraction", test_fraction)):
        if value is not None and not 0.0 < value < 1.0:
            raise UserError(f"{name} must lie strictly between 0 and 1. Received: {value}.")
    valid, test = valid_fraction or VALID_FRACTION, test_fraction or TEST_FRACTION
    if valid + test >= 1.0:
        raise UserError(
            "valid_fraction and test_fraction together must stay below 1, or nothing is left to "
            f"train on. Received: {valid} and {test}."
        )


def split_sizes(
    sizes: dict[str, int], where: str, valid_fraction: float | None, test_fraction: float | None
) -> tuple[int, int]:
    """How many train images become validation and test images.

    Args:
        sizes: The number of images per split of the source: "train", and perhaps "valid", "test".
        where: The source, for messages.
        valid_fraction: The part of train for validation; None for the default.
        test_fraction: The part of train for testing; None for the default.

    Returns:
        The two numbers; 0 where the source has that split.

    Raises:
        UserError: If there are too few images, or a fraction is given for a split that the
            source has.
    """
    check_fractions(valid_fraction, test_fraction)
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
    return valid, test


def split_images(
    parts: dict[str, np.ndarray],
    where: str,
    valid_fraction: float | None,
    test_fraction: float | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Completes a source's splits.

    Args:
        parts: `[N, H, W, C]` images per split: "train", and perhaps "valid", "test".
        where: The source, for messages.
        valid_fraction: The part of train for validation; None for the default.
        test_fraction: The part of train for testing; None for the default.

    Returns:
        Train, validation and test images.

    Raises:
        UserError: As `split_sizes` does.
    """
    sizes = {split: len(images) for split, images in parts.items()}
    num_valid, num_test = split_sizes(sizes, where, valid_fraction, test_fraction)
    train = parts["train"]
    if num_test:
        order = fixed_permutation(len(train), SPLIT_SEED)
        cut = len(train) - num_test
        train, test = train[order[:cut]], train[order[cut:]]
    else:
        test = parts["test"]
    if num_valid:
        cut = len(train) - num_valid
        train, valid = train[:cut], train[cut:]
    else:
        valid = parts["valid"]
    return train, valid, test


def split_places(
    sizes: dict[str, int], where: str, valid_fraction: float | None, test_fraction: float | None
) -> tuple[dict[str, int], dict[str, Places]]:
    """Where `split_images` puts each image, without the images.

    Args:
        sizes: The number of images per split of the source: "train", and perhaps "valid", "test".
        where: The source, for messages.
        valid_fraction: The part of train for validation; None for the default.
        test_fraction: The part of train for testing; None for the default.

    Returns:
        The number of images of train, valid and test; and for each split of the source a function
        that tells of the images `first .. last - 1` of it, for each split they go to, which of them
        do (indices that start from 0 at `first`) and where to (indices of that split).

    Raises:
        UserError: As `split_sizes` does.
    """
    num_valid, num_test = split_sizes(sizes, where, valid_fraction, test_fraction)
    total = sizes["train"]
    bounds = {"train": (0, total - num_valid - num_test)}
    if num_valid:
        bounds["valid"] = (total - num_valid - num_test, total - num_test)
    if num_test:
        bounds["test"] = (total - num_test, total)
    rank: np.ndarray | None = None
    if num_test:
        rank = np.empty(total, np.int64)
        rank[fixed_permutation(total, SPLIT_SEED)] = np.arange(total)

    def of_train(first: int, last: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        places = np.arange(first, last) if rank is None else rank[first:last]
        chosen = {
            split: np.flatnonzero((low <= places) & (places < high))
            for split, (low, high) in bounds.items()
        }
        return {split: (own, places[own] - bounds[split][0]) for split, own in chosen.items()}

    def of_own(split: str) -> Places:
        return lambda first, last: {split: (np.arange(last - first), np.arange(first, last))}

    places = {split: of_own(split) for split in sizes if split != "train"} | {"train": of_train}
    own = {split: size for split, size in sizes.items() if split != "train"}
    return own | {split: high - low for split, (low, high) in bounds.items()}, places


def fixed_permutation(size: int, seed: int) -> np.ndarray:
    """A permutation of `0 .. size - 1` that is the same on every machine and NumPy release.

    NumPy promises a stable stream for its bit generators' raw output alone, so the permutation
    sorts that (two equal 64-bit keys would merely keep their order).

    Args:
        size: How many indices.
        seed: Which permutation.

    Returns:
        int64 `[size]`.
    """
    return np.argsort(np.random.PCG64(seed).random_raw(size), kind="stable")


def _part(fraction: float, total: int) -> int:
    # Rounded up, so that no split is empty; 0.1 * 30 is a little more than 3 and still means 3.
    return math.ceil(fraction * total - 1e-9)
