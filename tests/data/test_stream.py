"""`stream_images` gives the images of `load_images`, bit for bit, and its errors."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tfp_flowvae.data import binarize, binarize_fixed, load_images, pieces, stream_images
from tfp_flowvae.errors import UserError

pytestmark = pytest.mark.usefixtures("small_pieces")
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (60, 4, 5), np.uint8)
SPLITS = ("train", "valid", "test")
FILES = (
    *("uint8.npy", "fortran.npy", "bool.npy", "int64.npy", "float64.npy"),
    *("levels.npz", "splits.npz", "fortran.npz"),
)


@pytest.mark.parametrize("name", FILES)
def test_files(name, image_file, tmp_path, assert_same):
    path = image_file(tmp_path / name)
    streamed = stream_images(str(path), cache=tmp_path / "cache")
    assert_same(streamed, load_images(str(path)))


@pytest.mark.parametrize("name", ["flat.npy", "flat_fortran.npy", "flat.npz"])
def test_flattened_images(name, tmp_path, assert_same):
    path, rows = tmp_path / name, IMAGES.reshape(60, -1)
    if path.suffix == ".npz":
        np.savez_compressed(path, x_train=rows, x_test=IMAGES[:9])
    else:
        np.save(path, np.asfortranarray(rows) if "fortran" in name else rows)
    for shape in ((4, 5, 1), (5, 4, 1)) if path.suffix == ".npy" else ((4, 5, 1),):
        streamed = stream_images(str(path), cache=tmp_path / "cache", image_shape=shape)
        assert streamed.image_shape == shape
        assert_same(streamed, load_images(str(path), image_shape=shape))


@pytest.mark.parametrize("coloured", [(), (20,)], ids=["grey", "coloured"])
def test_pictures_of_16_bits(pictures, coloured, tmp_path, assert_same):
    path = pictures(tmp_path / "pictures", coloured=coloured)
    deep = RNG.integers(0, 2**16, (4, 5), np.uint16)
    Image.fromarray(deep).save(path / "010.png")
    with pytest.warns(UserWarning, match="the upper 8 are taken") as caught:
        resident = load_images(str(path))
    messages = {str(warning.message) for warning in caught}
    assert [warning.filename for warning in caught] == [__file__]
    for _ in range(2):  # The second time from the cache.
        with pytest.warns(UserWarning, match="the upper 8 are taken") as caught:
            streamed = stream_images(str(path), cache=tmp_path / "cache")
        assert {str(warning.message) for warning in caught} == messages
        assert [warning.filename for warning in caught] == [__file__]
        assert_same(streamed, resident)


@pytest.mark.parametrize("coloured", [(), (0,), (19,)], ids=["grey", "first", "late"])
def test_folder(pictures, coloured, tmp_path, assert_same):
    path = pictures(tmp_path / "pictures", coloured=coloured)
    streamed = stream_images(str(path), cache=tmp_path / "cache")
    assert streamed.image_shape == (4, 5, 3 if coloured else 1)
    assert_same(streamed, load_images(str(path)))


def test_folder_with_colour_in_one_split(pictures, tmp_path, assert_same):
    path = pictures(tmp_path / "pictures" / "train").parent
    pictures(path / "test", count=9, coloured=(8,))
    streamed = stream_images(str(path), cache=tmp_path / "cache")
    assert_same(streamed, load_images(str(path)))


def test_digits(tmp_path, assert_same):
    assert_same(stream_images("digits", cache=tmp_path), load_images("digits"))


@pytest.mark.parametrize("fractions", [(None, None), (0.3, 0.3), (0.9, 0.05)])
def test_fractions(fractions, tmp_path, assert_same):
    np.save(tmp_path / "a.npy", IMAGES)
    valid, test = fractions
    kwargs = {"valid_fraction": valid, "test_fraction": test}
    streamed = stream_images(str(tmp_path / "a.npy"), cache=tmp_path / "cache", **kwargs)
    assert_same(streamed, load_images(str(tmp_path / "a.npy"), **kwargs))


def test_tfds(tiny_dir, tmp_path, assert_same):
    streamed = stream_images("tiny_pictures", str(tiny_dir), tmp_path)
    assert_same(streamed, load_images("tiny_pictures", str(tiny_dir)))


@pytest.mark.slow
def test_mnist(mnist_dir, tmp_path, monkeypatch, assert_same):
    monkeypatch.setattr(pieces, "PIECE_BYTES", 1 << 20)
    monkeypatch.setattr(binarize, "_CHUNK", 1 << 20)
    streamed, resident = (
        stream_images("mnist", mnist_dir, tmp_path),
        load_images("mnist", mnist_dir),
    )
    assert_same(streamed, resident)
    for split in SPLITS:
        images = [getattr(splits, split) for splits in (streamed, resident)]
        one, two = (binarize_fixed(i, 256, "static", split)[0] for i in images)
        assert isinstance(one, np.memmap)
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize(
    "array",
    [
        IMAGES.astype(np.int32) * 3,
        IMAGES.astype(np.int8),
        IMAGES / 100,
        np.where(IMAGES > 250, np.nan, IMAGES / 255),
        np.where(IMAGES[40, 1, 1] == IMAGES, -np.inf, IMAGES / 255),
        np.where(IMAGES[3, 1, 1] == IMAGES, -0.1, IMAGES / 255),
        IMAGES.reshape(60, -1),
        IMAGES[:2],
        IMAGES.astype(complex),
    ],
)
@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_wrong_arrays_give_the_errors_of_load_images(array, suffix, tmp_path):
    path = tmp_path / f"a.{suffix}"
    np.save(path, array) if suffix == "npy" else np.savez(path, images=array)
    assert refusal(stream_images, path, cache=tmp_path / "cache") == refusal(load_images, path)
    left = list((tmp_path / "cache").iterdir()) if (tmp_path / "cache").exists() else []
    assert not [file for file in left if file.is_dir()]


def refusal(function, path, **kwargs):
    with pytest.raises(UserError) as caught:
        function(str(path), **kwargs)
    return str(caught.value)


@pytest.mark.parametrize(
    "picture",
    [
        Image.fromarray(IMAGES[0][:3]),
        Image.fromarray(np.full((4, 5, 4), 99, np.uint8)),
        None,
    ],
    ids=["size", "transparent", "damaged"],
)
def test_wrong_pictures_give_the_errors_of_load_images(pictures, picture, tmp_path):
    path = pictures(tmp_path / "pictures")
    if picture is None:
        (path / "020.png").write_bytes((path / "020.png").read_bytes()[:50])
    else:
        picture.save(path / "020.png")
    assert refusal(stream_images, path, cache=tmp_path / "cache") == refusal(load_images, path)


def test_splits_that_differ_give_the_error_of_load_images(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, x_train=IMAGES, x_test=IMAGES[:, :3])
    assert refusal(stream_images, path, cache=tmp_path / "cache") == refusal(load_images, path)


@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_a_file_that_is_cut_short_or_overwritten(suffix, tmp_path):
    path = tmp_path / f"a.{suffix}"
    np.save(path, IMAGES) if suffix == "npy" else np.savez_compressed(path, images=IMAGES)
    content = bytearray(path.read_bytes())
    if suffix == "npy":
        content = content[:-1]
    else:
        content[len(content) // 2] ^= 1
    path.write_bytes(content)
    message = refusal(stream_images, path, cache=tmp_path / "cache")
    assert f"{str(path)!r} must be " in message
    assert "that can be read; check the file" in message


def test_a_header_that_promises_too_much(tmp_path):
    with (tmp_path / "a.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "|u1", "fortran_order": False, "shape": (1 << 40, 1 << 20, 2)}
        )
    message = refusal(stream_images, tmp_path / "a.npy", cache=tmp_path / "cache")
    assert "cut short" in message


@pytest.mark.parametrize("images", [IMAGES % 17, IMAGES // 128, IMAGES / 255**2, 0 * IMAGES])
def test_every_call_warns_about_odd_values(images, tmp_path, assert_same):
    np.save(tmp_path / "a.npy", images)
    with pytest.warns(UserWarning, match="black") as caught:
        resident = load_images(str(tmp_path / "a.npy"))
    message = str(caught[0].message)
    for _ in range(2):
        with pytest.warns(UserWarning, match="black") as caught:
            streamed = stream_images(str(tmp_path / "a.npy"), cache=tmp_path / "cache")
        assert caught[0].filename == __file__
        assert str(caught[0].message) == message
        assert_same(streamed, resident)
