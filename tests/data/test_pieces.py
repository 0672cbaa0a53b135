from __future__ import annotations

import re

import numpy as np
import pytest

from tfp_flowvae.data.layouts import check_layout
from tfp_flowvae.data.pieces import Part, cut
from tfp_flowvae.data.values import grey_levels
from tfp_flowvae.errors import UserError

WHERE = "'a.npy'"


def as_images(array, levels=None, image_shape=None):
    """What is kept of an array that arrives in one piece."""
    shape = check_layout(array.shape, array.dtype, WHERE, image_shape)
    (images,) = Part(WHERE, shape, array.dtype, lambda: cut(array)).images(levels)
    return images


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
    assert as_images(np.zeros(shape, np.uint8)).shape == expected


@pytest.mark.parametrize(
    "dtype", [bool, np.uint8, np.int8, np.uint16, np.int64, np.uint64, ">i4", np.int32]
)
def test_integers_become_uint8_with_their_values(dtype):
    array = np.array([[[0, 1], [1, 0]]]).astype(dtype)
    images = as_images(array)
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images[..., 0], [[[0, 1], [1, 0]]])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f8"])
def test_floats_stay_floats(dtype):
    array = np.array([[[0.0, 0.1], [0.75, 1.0]]]).astype(dtype)
    images = as_images(array)
    assert images.dtype == np.float32
    assert images.dtype.isnative
    np.testing.assert_array_equal(images[..., 0], array.astype(np.float32))


def test_floats_a_rounding_error_outside_are_clipped():
    images = as_images(np.array([[[-1e-7, 0.5, 1 + 1e-7]]]))
    np.testing.assert_array_equal(images.ravel(), np.float32([0, 0.5, 1]))


def test_images_in_any_memory_order():
    array = np.asfortranarray(np.random.default_rng(0).integers(0, 255, (4, 5, 6), np.uint8))
    images = as_images(array[::2])
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
def test_wrong_layouts_are_refused(array, message):
    with pytest.raises(UserError, match=message) as caught:
        check_layout(np.shape(array), array.dtype, WHERE)
    assert WHERE in str(caught.value)
    with pytest.raises(UserError, match=message):
        as_images(np.asarray(array))


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
def test_wrong_values_are_refused(value, dtype, levels, message):
    array = np.zeros((2, 2, 2), dtype)
    array[1, 0, 1] = value
    with pytest.raises(UserError, match=message) as caught:
        as_images(array, levels)
    assert WHERE in str(caught.value)


@pytest.mark.parametrize(
    ("brightest", "declared", "levels", "warning"),
    [
        (255, None, 256, None),
        (64, None, 256, None),
        (16, None, 256, r"^holds images that are nearly black: .* 16 of 255; .*'levels'"),
        (0, None, 256, r"^holds images that are nearly black: .* 0 of 255"),
        (1, None, 2, r"^holds no value but 0 and 1, so .* black and white; .*'levels'"),
        (1, 17, 17, None),
        (1.0, None, None, None),
        (1 / 16, None, None, None),
        (0.0624, None, None, r"^holds images that are nearly black: .* 0\.0624 of 1"),
        (1 / 255, None, None, r"^holds images that are nearly black: .* 0\.00392 of 1; .*twice"),
    ],
)
def test_levels_and_warning_follow_from_the_brightest_value(brightest, declared, levels, warning):
    dtype = np.dtype(np.float32 if isinstance(brightest, float) else np.uint8)
    found, said = grey_levels(dtype, brightest, WHERE, declared)
    assert found == levels
    assert re.search(warning, said) if warning else said is None


def test_float_images_have_no_levels():
    with pytest.raises(UserError, match=r"^'a.npy' .*drop 'levels'.*levels=4 with float images\.$"):
        grey_levels(np.dtype(np.float32), 0.5, WHERE, 4)


@pytest.mark.parametrize("high", [256, 300, 1023, 4095, 50_000, 65_535])
def test_the_advice_for_deep_integers_makes_images_of_them(high):
    images = np.linspace(0, high, 8).astype(np.uint16).reshape(2, 2, 2)
    with pytest.raises(UserError) as caught:
        as_images(images)
    expression = re.search(r"\(images >> .*\('uint8'\)", str(caught.value)).group()
    assert 127 < as_images(eval(expression)).max() <= 255


@pytest.mark.parametrize("shape", [(4, 6, 1), (8, 1, 3), (2, 4, 3)])
@pytest.mark.parametrize("dtype", [np.uint8, bool, np.float64])
def test_flattened_images(shape, dtype):
    images = np.random.default_rng(0).integers(0, 2, (5, *shape)).astype(dtype)
    for array in (images.reshape(5, -1), np.asfortranarray(images.reshape(5, -1)), images):
        np.testing.assert_array_equal(as_images(array, image_shape=shape), images)
    if shape[-1] == 1:
        read = as_images(images[..., 0], image_shape=shape)
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
def test_other_shapes_than_the_image_shape_are_refused(shape, message):
    with pytest.raises(UserError, match=message):
        as_images(np.zeros(shape, np.uint8), image_shape=(28, 28, 1))
