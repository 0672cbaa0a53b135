from __future__ import annotations

import numpy as np
import pytest

from tfp_flowvae.data.splits import fixed_permutation, split_images, split_sizes
from tfp_flowvae.errors import UserError


def numbered(count, start=0):
    """Images that are told apart by their one value."""
    return np.arange(start, start + count, dtype=np.float32).reshape(-1, 1, 1, 1)


def test_without_a_test_split_all_are_shuffled_and_none_is_lost():
    splits = split_images({"train": numbered(1797)}, "x", None, None)
    assert [len(s) for s in splits] == [1257, 180, 360]
    values = np.concatenate(splits).ravel()
    assert (values[:100] != np.arange(100)).any()
    np.testing.assert_array_equal(np.sort(values), np.arange(1797))


def test_the_shuffle_is_fixed():
    # Frozen: a change of these numbers changes every figure that anyone has published.
    assert fixed_permutation(10, 1797).tolist() == [9, 7, 3, 6, 0, 2, 5, 1, 4, 8]
    first, second = (split_images({"train": numbered(50)}, "x", None, None) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


def test_with_a_test_split_the_last_of_train_validate():
    parts = {"train": numbered(60), "test": numbered(7, 100)}
    train, valid, test = split_images(parts, "x", None, None)
    np.testing.assert_array_equal(train, numbered(50))
    np.testing.assert_array_equal(valid, numbered(10, 50))
    assert test is parts["test"]


def test_own_splits_are_kept():
    parts = {"train": numbered(3), "valid": numbered(1), "test": numbered(1)}
    assert split_images(parts, "x", None, None) == tuple(parts.values())


def test_validation_without_test():
    parts = {"train": numbered(10), "valid": numbered(4, 100)}
    train, valid, test = split_images(parts, "x", None, None)
    assert valid is parts["valid"]
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
    assert split_sizes(sizes, "x", *fractions) == expected


@pytest.mark.parametrize(
    ("sizes", "fractions", "message"),
    [
        ({"train": 2}, (None, None), r"x holds too few.*at least 3 are needed\. Received: 2\.$"),
        ({"train": 1, "test": 9}, (None, None), r"at least 2 are needed\. Received: 1\.$"),
        ({"train": 1, "valid": 1}, (None, None), r"at least 2 are needed\. Received: 1\.$"),
        ({"train": 9}, (0.0, None), r"valid_fraction must lie strictly.*Received: 0\.0\.$"),
        ({"train": 9}, (None, 1.0), r"test_fraction must lie strictly.*Received: 1\.0\.$"),
        ({"train": 9}, (float("nan"), None), r"valid_fraction.*Received: nan\.$"),
        ({"train": 9}, (0.5, 0.5), r"together must stay below 1.*Received: 0\.5 and 0\.5\.$"),
        ({"train": 9, "test": 1}, (None, 0.1), r"a test split of its own.*test_fraction=0\.1\.$"),
        ({"train": 9, "valid": 1}, (0.1, None), r"a valid split of its own.*_fraction=0\.1\.$"),
    ],
)
def test_refusals(sizes, fractions, message):
    with pytest.raises(UserError, match=message):
        split_sizes(sizes, "x", *fractions)


@pytest.mark.parametrize("total", range(3, 20))
@pytest.mark.parametrize("fractions", [(None, None), (0.5, 0.4), (0.01, 0.98), (0.98, 0.01)])
def test_three_images_always_suffice(total, fractions):
    valid, test = split_sizes({"train": total}, "x", *fractions)
    assert min(valid, test, total - valid - test) >= 1
