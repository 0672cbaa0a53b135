from __future__ import annotations

import re

import numpy as np
import pytest

from tfp_flowvae.data.arrays import as_images, check_layout, grey_levels
from tfp_flowvae.errors import UserError

WHERE = "'a.npy'"


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((5, 4, 3), (5, 4, 3, 1)),
        ((5, 4, 3, 1), (5, 4, 3, 1)),
        ((5, 4, 7, 3), (5, 4, 7, 3)),
        ((1, 1, 1), (1, 1, 1, 1)),
    ],
)
def test_shapes(shape, expected):
    assert as_images(np.zeros(shape, np.uint8), WHERE).shape == expected


@pytest.mark.parametrize(
    "dtype", [bool, np.uint8, np.int8, np.uint16, np.int64, np.uint64, ">i4", np.int32]
)
def test_integers_become_uint8_with_their_values(dtype):
    array = np.array([[[0, 1], [1, 0]]]).astype(dtype)
    images = as_images(array, WHERE)
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images[..., 0], [[[0, 1], [1, 0]]])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f8"])
def test_floats_stay_floats(dtype):
    array = np.array([[[0.0, 0.1], [0.75, 1.0]]]).astype(dtype)
    images = as_images(array, WHERE)
    assert images.dtype == np.float32
    assert images.dtype.isnative
    np.testing.assert_array_equal(images[..., 0], array.astype(np.float32))


def test_floats_a_rounding_error_outside_are_clipped():
    images = as_images(np.array([[[-1e-7, 0.5, 1 + 1e-7]]]), WHERE)
    np.testing.assert_array_equal(images.ravel(), np.float32([0, 0.5, 1]))


def test_result_is_contiguous():
    array = np.asfortranarray(np.random.default_rng(0).integers(0, 255, (4, 5, 6), np.uint8))
    images = as_images(array[::2], WHERE)
    assert images.flags.c_contiguous
    np.testing.assert_array_equal(images[..., 0], array[::2])


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(7, np.int64), r"^Labels were received where images were expected: .*\(7,\)\.$"),
        (np.int64(3), r"^Labels were received.*shape \(\)\.$"),
        (np.zeros((7, 1), np.int64), r"^Labels or flattened images.*--image-shape.*\(7, 1\)\.$"),
        (np.zeros((7, 784), np.uint8), r"^Labels or .*--image-shape H W C.*\(7, 784\)\.$"),
        (np.zeros((2, 1, 8, 8), np.uint8), r"moveaxis.*Received: shape \(2, 1, 8, 8\)\.$"),
        (np.zeros((2, 8, 8, 4), np.uint8), r"\[N, H, W, 3\]\. Received: shape \(2, 8, 8, 4\)\.$"),
        (np.zeros((2, 8, 8, 1, 1), np.uint8), r"Received: shape \(2, 8, 8, 1, 1\)\.$"),
        (np.zeros((0, 8, 8), np.uint8), r"holds no images.*shape \(0, 8, 8\)\.$"),
        (np.zeros((2, 0, 8), np.uint8), r"holds no images.*shape \(2, 0, 8\)\.$"),
        (np.zeros((2, 8, 8), complex), r"booleans, integers 0..255 or floats.*dtype complex128\.$"),
        (np.full((2, 8, 8), "a"), r"convert them.*dtype <U1\.$"),
        (np.full((2, 8, 8), b"a"), r"dtype \|S1\.$"),
        (np.full((2, 8, 8), None), r"dtype object\.$"),
        (np.zeros((2, 8, 8), "M8[s]"), r"dtype datetime64\[s\]\.$"),
        (np.zeros((2, 8, 8), [("r", "u1")]), r"dtype \[\('r', 'u1'\)\]\.$"),
    ],
)
def test_layouts_refused(array, message):
    with pytest.raises(UserError, match=message) as caught:
        check_layout(np.shape(array), array.dtype, WHERE)
    assert WHERE in str(caught.value)
    with pytest.raises(UserError, match=message):
        as_images(np.asarray(array), WHERE)


@pytest.mark.parametrize(
    ("value", "dtype", "levels", "message"),
    [
        (256, np.int64, None, r"lie in 0\.\.255; take their upper 8.*values from 0 to 256\.$"),
        (65_535, np.uint16, None, r"\(images >> 8\)\.astype\('uint8'\), or save floats.*65535\.$"),
        (65_536, np.uint32, None, r"lie in 0\.\.255; rescale.*values from 0 to 65536\.$"),
        (-1, np.int8, None, r"lie in 0\.\.255.*values from -1 to 0\.$"),
        (2**64 - 1, np.uint64, None, r"values from 0 to 18446744073709551615\.$"),
        (17, np.uint8, 17, r"lie in 0\.\.16.*values from 0 to 17\.$"),
        (255.0, np.float32, None, r"lie in \[0, 1\]; divide them by 255.*from 0 to 255\.$"),
        (-0.5, np.float64, None, r"lie in \[0, 1\]; rescale them.*from -0\.5 to 0\.$"),
        (1e300, np.float64, None, r"rescale them.*from 0 to 1e\+300\.$"),
        (np.nan, np.float32, None, r"finite floats.*Received: NaN \(1 of 8 values"),
        (np.inf, np.float64, None, r"Received: infinite values \(1 of 8 values"),
        (-np.inf, np.float16, None, r"Received: infinite values \(1 of 8 values"),
    ],
)
def test_values_refused(value, dtype, levels, message):
    array = np.zeros((2, 2, 2), dtype)
    array[1, 0, 1] = value
    with pytest.raises(UserError, match=message) as caught:
        as_images(array, WHERE, levels)
    assert WHERE in str(caught.value)


def parts(**splits):
    return {split: as_images(np.asarray(array), WHERE) for split, array in splits.items()}


@pytest.mark.parametrize(
    ("array", "levels"),
    [
        (np.array([[[0, 255]]]), 256),
        (np.array([[[0.0, 1.0]]]), None),
    ],
)
def test_levels_follow_from_the_values(array, levels):
    assert grey_levels(parts(train=array), WHERE, None) == levels


def test_declared_levels_win():
    assert grey_levels(parts(train=[[[0, 1]]]), WHERE, 17) == 17


@pytest.mark.parametrize(
    ("brightest", "message", "levels"),
    [
        (0, r"^'a.npy' holds images that are nearly black: .* 0 of 255", 256),
        (1, r"^'a.npy' holds no value but 0 and 1, so .* black and white; .*'levels'", 2),
        (16, r"^'a.npy' holds images that are nearly black: .* 16 of 255; .*'levels'", 256),
        (1 / 255, r"^'a.npy' holds images that are nearly black: .* 0\.00392 of 1; .*twice", None),
        (0.0624, r"^'a.npy' holds images that are nearly black: .* 0\.0624 of 1", None),
    ],
)
def test_nearly_black_images_are_pointed_out(brightest, message, levels):
    with pytest.warns(UserWarning, match=message):
        assert grey_levels(parts(train=[[[0 * brightest, brightest]]]), WHERE, None) == levels


@pytest.mark.parametrize("brightest", [64, 255, 1 / 16, 1.0])
def test_images_that_one_can_see_are_no_matter(brightest, recwarn):
    # One bright image is enough, in whichever split.
    dark = np.full((3, 1, 2), 0 * brightest)
    assert grey_levels(parts(train=dark, test=[[[0 * brightest, brightest]]]), WHERE, None) in (
        256,
        None,
    )
    assert not recwarn


@pytest.mark.parametrize("high", [256, 300, 1023, 4095, 50_000, 65_535])
def test_the_advice_for_deep_integers_makes_images_of_them(high):
    images = np.linspace(0, high, 8).astype(np.uint16).reshape(2, 2, 2)
    with pytest.raises(UserError) as caught:
        as_images(images, WHERE)
    expression = re.search(r"\(images >> .*\('uint8'\)", str(caught.value)).group()
    assert 127 < as_images(eval(expression), WHERE).max() <= 255


@pytest.mark.parametrize("shape", [(4, 6, 1), (8, 1, 3), (2, 4, 3)])
@pytest.mark.parametrize("dtype", [np.uint8, bool, np.float64])
def test_flattened_images(shape, dtype):
    images = np.random.default_rng(0).integers(0, 2, (5, *shape)).astype(dtype)
    for array in (images.reshape(5, -1), np.asfortranarray(images.reshape(5, -1)), images):
        np.testing.assert_array_equal(as_images(array, WHERE, image_shape=shape), images)
    if shape[-1] == 1:
        read = as_images(images[..., 0], WHERE, image_shape=shape)
        np.testing.assert_array_equal(read, images)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((7, 785), r"28 x 28 x 1 of --image-shape.* 784 values each.*shape \(7, 785\)\.$"),
        ((7, 28, 27), r"28 x 28 x 1 of --image-shape.*shape \(7, 28, 27\)\.$"),
        ((7, 28, 28, 3), r"28 x 28 x 1 of --image-shape.*shape \(7, 28, 28, 3\)\.$"),
        ((7, 784, 1), r"28 x 28 x 1 of --image-shape.*shape \(7, 784, 1\)\.$"),
        ((0, 784), r"holds no images.*shape \(0, 784\)\.$"),
    ],
)
def test_what_has_not_the_image_shape_is_refused(shape, message):
    with pytest.raises(UserError, match=message):
        as_images(np.zeros(shape, np.uint8), WHERE, image_shape=(28, 28, 1))


@pytest.mark.parametrize(
    "test", [np.zeros((1, 2, 2), np.uint8), np.zeros((1, 1, 2), float)], ids=["shape", "kind"]
)
def test_splits_must_be_alike(test):
    with pytest.raises(UserError, match=r"one shape, all integers or all floats.*Received: .* and"):
        grey_levels(parts(train=[[[0, 255]]], test=test), WHERE, None)


def test_floats_have_no_levels():
    with pytest.raises(UserError, match=r"drop 'levels'.*levels=4 with float images\.$"):
        grey_levels(parts(train=[[[0.0, 0.5]]]), WHERE, 4)
