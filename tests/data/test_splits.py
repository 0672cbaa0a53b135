from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from tfp_flowvae.data.splits import check_fractions, fixed_permutation, plan_splits
from tfp_flowvae.errors import UserError


def numbered(count, start=0):
    """Images of one pixel, each of another value."""
    return np.arange(start, start + count, dtype=np.float32).reshape(-1, 1, 1, 1)


def split(parts):
    """The three splits of parts that arrive in pieces of 7 images."""
    plan = plan_splits({name: len(images) for name, images in parts.items()}, "x", None, None)
    into = {name: np.empty((size, 1, 1, 1), np.float32) for name, size in plan.sizes.items()}
    for name, images in parts.items():
        for first in range(0, len(images), 7):
            plan.place(name, first, images[first : first + 7], into)
    return into["train"], into["valid"], into["test"]


def test_without_a_test_split_all_images_are_shuffled():
    splits = split({"train": numbered(1797)})
    assert [len(s) for s in splits] == [1257, 180, 360]
    values = np.concatenate(splits).ravel()
    assert (values[:100] != np.arange(100)).any()
    np.testing.assert_array_equal(np.sort(values), np.arange(1797))


def test_the_shuffle_is_fixed():
    # Frozen: another shuffle would change every published figure.
    assert fixed_permutation(10, 1797).tolist() == [9, 7, 3, 6, 0, 2, 5, 1, 4, 8]
    first, second = (split({"train": numbered(50)}) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


def test_with_a_test_split_the_last_train_images_are_for_validation():
    parts = {"train": numbered(60), "test": numbered(7, 100)}
    train, valid, test = split(parts)
    np.testing.assert_array_equal(train, numbered(50))
    np.testing.assert_array_equal(valid, numbered(10, 50))
    np.testing.assert_array_equal(test, parts["test"])


def test_own_splits_are_kept():
    parts = {"train": numbered(3), "valid": numbered(1), "test": numbered(1)}
    for found, images in zip(split(parts), parts.values(), strict=True):
        np.testing.assert_array_equal(found, images)


def test_validation_without_test():
    parts = {"train": numbered(10), "valid": numbered(4, 100)}
    train, valid, test = split(parts)
    np.testing.assert_array_equal(valid, parts["valid"])
    assert (len(train), len(test)) == (8, 2)


@pytest.mark.parametrize(
    ("sizes", "fractions", "expected"),
    [
        ({"train": 60_000, "test": 10_000}, (None, None), (10_000, 0)),
        ({"train": 600_000, "test": 1}, (None, None), (10_000, 0)),
        ({"train": 2, "test": 1}, (None, None), (1, 0)),
        ({"train": 3}, (None, None), (1, 1)),
        ({"train": 100}, (0.25, 0.5), (25, 50)),
        ({"train": 100, "test": 9}, (0.07, None), (7, 0)),
        ({"train": 1, "valid": 1, "test": 1}, (None, None), (0, 0)),
    ],
)
def test_sizes(sizes, fractions, expected):
    plan = plan_splits(sizes, "x", *fractions)
    lengths = {split: high - low for split, (low, high) in plan.bounds.items()}
    assert (lengths.get("valid", 0), lengths.get("test", 0)) == expected
    assert plan.sizes == sizes | lengths


@pytest.mark.parametrize(
    ("sizes", "fractions", "message"),
    [
        ({"train": 2}, (None, None), r"x holds too few.*at least 3 are needed\. Received: 2\.$"),
        ({"train": 1, "test": 9}, (None, None), r"at least 2 are needed\. Received: 1\.$"),
        ({"train": 1, "valid": 1}, (None, None), r"at least 2 are needed\. Received: 1\.$"),
        ({"train": 9}, (0.0, None), r"valid_fraction must lie strictly.*Received: 0\.0\.$"),
        ({"train": 9}, (None, 1.0), r"test_fraction must lie strictly.*Received: 1\.0\.$"),
        ({"train": 9}, (float("nan"), None), r"valid_fraction must.*Received: nan\.$"),
        ({"train": 9}, (0.5, 0.5), r"must stay below 1.*Received: 0\.5 and 0\.5\.$"),
        ({"train": 9, "test": 1}, (None, 0.1), r"a test split of its own.*test_fraction=0\.1\.$"),
        ({"train": 9, "valid": 1}, (0.1, None), r"a valid split of its own.*_fraction=0\.1\.$"),
    ],
)
def test_wrong_arguments_are_refused(sizes, fractions, message):
    check = check_fractions if "must" in message else partial(plan_splits, sizes, "x")
    with pytest.raises(UserError, match=message):
        check(*fractions)


@pytest.mark.parametrize("total", range(3, 20))
@pytest.mark.parametrize("fractions", [(None, None), (0.5, 0.4), (0.01, 0.98), (0.98, 0.01)])
def test_three_images_are_always_enough(total, fractions):
    sizes = plan_splits({"train": total}, "x", *fractions).sizes
    assert min(sizes.values()) >= 1
    assert sum(sizes.values()) == total
