from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tfp_flowvae.data.folder import list_folder, open_folder
from tfp_flowvae.errors import UserError

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (4, 6, 5), np.uint8)
COLOUR = RNG.integers(0, 256, (4, 6, 5, 3), np.uint8)


def read(path):
    """The images of each split, and the warnings."""
    parts = open_folder(path, list_folder(path))
    images = {split: np.concatenate(list(part.images(None))) for split, part in parts.items()}
    return images, {warning for part in parts.values() for warning in part.warnings}


def read_folder(path):
    images, warnings = read(path)
    assert not warnings
    return images


def save(path, array, mode=None, **kwargs):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(array)
    (picture.convert(mode) if mode else picture).save(path, **kwargs)


@pytest.mark.parametrize("suffix", ["png", "bmp", "gif", "PNG"])
def test_grey(tmp_path, suffix):
    for i in (2, 0, 1):
        save(tmp_path / f"{i}.{suffix}", GREY[i])
    (tmp_path / "notes.txt").write_text("not a picture")
    (tmp_path / ".hidden.png").write_text("not a picture")
    np.testing.assert_array_equal(read_folder(tmp_path)["train"], GREY[:3, ..., None])


@pytest.mark.parametrize("suffix", ["png", "bmp"])
def test_colour(tmp_path, suffix):
    for i in range(4):
        save(tmp_path / f"{i}.{suffix}", COLOUR[i])
    np.testing.assert_array_equal(read_folder(tmp_path)["train"], COLOUR)


def test_jpeg(tmp_path):
    save(tmp_path / "a.jpg", np.full((8, 8, 3), (200, 100, 50), np.uint8), quality=95)
    save(tmp_path / "b.jpeg", np.full((8, 8, 3), (200, 100, 50), np.uint8), mode="CMYK")
    images = read_folder(tmp_path)["train"].astype(int)
    assert images.shape == (2, 8, 8, 3)
    # JPEG stores a flat picture as the means of its channels, in steps of 2 / 8 at quality 95 and
    # of 8 / 8 at 75. Y and Cb err by half a step and half a level each, blue is Y + 1.77 Cb and is
    # rounded by half a level; in CMYK two channels err by half a step, and half a level.
    assert np.abs(images - (200, 100, 50)).max() <= 2


def test_grey_among_colour_gets_three_channels(tmp_path):
    save(tmp_path / "a.png", GREY[0])
    save(tmp_path / "b.png", COLOUR[0])
    images = read_folder(tmp_path)["train"]
    np.testing.assert_array_equal(images[0], np.repeat(GREY[0][..., None], 3, axis=-1))
    np.testing.assert_array_equal(images[1], COLOUR[0])


@pytest.mark.parametrize(("value", "channels"), [((7, 7, 7), 1), ((7, 8, 9), 3)])
def test_palette(tmp_path, value, channels):
    picture = Image.fromarray(np.full((3, 3, 3), value, np.uint8)).quantize()
    assert picture.mode == "P"
    picture.save(tmp_path / "a.png")
    images = read_folder(tmp_path)["train"]
    assert images.shape == (1, 3, 3, channels)
    assert (images[0, 0, 0] == value[:channels]).all()


def test_black_and_white(tmp_path):
    save(tmp_path / "a.png", np.array([[0, 255]], np.uint8), mode="1")
    assert read_folder(tmp_path)["train"].ravel().tolist() == [0, 255]


def test_opaque_alpha_is_dropped(tmp_path):
    save(tmp_path / "a.png", COLOUR[0], mode="RGBA")
    np.testing.assert_array_equal(read_folder(tmp_path)["train"][0], COLOUR[0])
    (tmp_path / "a.png").unlink()
    save(tmp_path / "a.png", GREY[0], mode="LA")
    np.testing.assert_array_equal(read_folder(tmp_path)["train"][0, ..., 0], GREY[0])


def test_16_bit_pictures_keep_their_upper_8_bits(tmp_path):
    deep = RNG.integers(0, 2**16, (3, 6, 5), np.uint16)
    for i, array in enumerate(deep):
        save(tmp_path / f"{i}.png", array)
    save(tmp_path / "3.png", GREY[0])
    parts, (warning,) = read(tmp_path)
    images = parts["train"]
    assert "grey pictures of 16 bits, of which the upper 8 are" in warning
    np.testing.assert_array_equal(images[..., 0], [*(deep // 256).astype(np.uint8), GREY[0]])
    # A picture made from 8 bits keeps its values.
    save(tmp_path / "0.png", GREY[1].astype(np.uint16) * 257)
    save(tmp_path / "1.png", COLOUR[0])
    parts, (warning,) = read(tmp_path)
    images = parts["train"]
    np.testing.assert_array_equal(images[0], np.repeat(GREY[1][..., None], 3, axis=-1))
    np.testing.assert_array_equal(images[1], COLOUR[0])


def test_first_frame_of_an_animation(tmp_path):
    frames = [Image.fromarray(GREY[i]) for i in range(3)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(read_folder(tmp_path)["train"], GREY[:1, ..., None])


def test_the_orientation_in_exif_is_followed(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # Show it a quarter turn clockwise.
    save(tmp_path / "a.png", GREY[0], exif=exif)
    np.testing.assert_array_equal(read_folder(tmp_path)["train"][0, ..., 0], np.rot90(GREY[0], -1))


def test_subfolders_are_read_in_order(tmp_path):
    save(tmp_path / "cats" / "1.png", GREY[0])
    save(tmp_path / "dogs" / "0.png", GREY[1])
    save(tmp_path / ".cache" / "0.png", GREY[2])
    np.testing.assert_array_equal(read_folder(tmp_path)["train"], GREY[:2, ..., None])


def test_splits(tmp_path):
    for i, split in enumerate(("train", "val", "test")):
        save(tmp_path / split / "class" / "0.png", GREY[i])
    parts = read_folder(tmp_path)
    assert list(parts) == ["train", "valid", "test"]
    for i, images in enumerate(parts.values()):
        np.testing.assert_array_equal(images, GREY[i : i + 1, ..., None])
    assert {split: len(files) for split, files in list_folder(tmp_path).items()} == {
        "train": 1,
        "valid": 1,
        "test": 1,
    }


def test_no_pictures(tmp_path):
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(UserError, match=r"must hold pictures \(\.png, .*\)\. Received: none\.$"):
        read_folder(tmp_path)
    (tmp_path / "test").mkdir()
    save(tmp_path / "train" / "0.png", GREY[0])
    with pytest.raises(UserError, match=r"test' must hold pictures"):
        read_folder(tmp_path)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (COLOUR[0][:5], r"one size: a\.png is 5 x 6 pixels;.*b\.png with 5 x 5\.$"),
        (np.full((6, 5, 4), 99, np.uint8), r"opaque; flatten.*30 pixels with transparency"),
        (np.full((6, 5, 2), 99, np.uint8), r"opaque; flatten.*30 pixels with transparency"),
    ],
)
def test_wrong_pictures_are_refused(tmp_path, array, message):
    save(tmp_path / "a.png", GREY[0])
    save(tmp_path / "b.png", array)
    with pytest.raises(UserError, match=message) as caught:
        read_folder(tmp_path)
    assert "b.png" in str(caught.value)


@pytest.mark.parametrize("keep", [0, 30, 60, -40])
def test_damaged(tmp_path, keep):
    save(tmp_path / "a.png", GREY[0])
    content = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(content[:keep])
    with pytest.raises(UserError, match=r"a\.png' cannot be read; replace or remove it\. Received"):
        read_folder(tmp_path)


@pytest.mark.parametrize("seed", range(40))
def test_a_flipped_bit_raises_only_user_errors(tmp_path, seed):
    rng = np.random.default_rng(seed)
    suffix = ("png", "gif", "jpg", "bmp")[seed % 4]
    save(tmp_path / f"a.{suffix}", GREY[0])
    content = bytearray((tmp_path / f"a.{suffix}").read_bytes())
    content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
    (tmp_path / f"a.{suffix}").write_bytes(content)
    try:
        images = read_folder(tmp_path)["train"]
    except UserError as error:
        assert f"a.{suffix}" in str(error)  # noqa: PT017
    else:
        assert images.dtype == np.uint8
