from __future__ import annotations

import numpy as np
import pytest

from tfp_flowvae.data import ImageSplits, to_unit


def splits(dtype=np.uint8, levels=256, shapes=((4, 3, 2, 1), (2, 3, 2, 1), (1, 3, 2, 1))):
    return ImageSplits("some", *(np.zeros(shape, dtype) for shape in shapes), levels)


def test_image_shape():
    assert splits().image_shape == (3, 2, 1)


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_every_level_has_its_intensity(levels):
    values = np.arange(levels, dtype=np.uint8)
    unit = to_unit(values, levels)
    assert unit.dtype == np.float32
    np.testing.assert_array_equal(unit, (np.arange(levels) / (levels - 1)).astype(np.float32))


def test_floats_are_unchanged():
    images = np.linspace(0, 1, 5, dtype=np.float32)
    assert to_unit(images, None) is images


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"dtype": np.float32}, r"Received: float32 with levels=256\."),
        ({"levels": None}, r"Received: uint8 with levels=None\."),
        ({"dtype": np.int64}, r"Received: int64 with levels=256\."),
        ({"levels": 257}, r"must be 2 to 256\. Received: 257\."),
        ({"levels": 1}, r"must be 2 to 256\. Received: 1\."),
        ({"shapes": ((4, 3, 2), (2, 3, 2), (1, 3, 2))}, r"\[N, H, W, C\].*\(4, 3, 2\)\."),
        ({"shapes": ((4, 3, 2, 1), (2, 2, 3, 1), (1, 3, 2, 1))}, r"\(3, 2, 1\) and \(2, 3, 1\)"),
    ],
)
def test_inconsistent_splits_are_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        splits(**kwargs)
