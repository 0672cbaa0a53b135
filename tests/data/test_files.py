from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest

from tfp_flowvae.data.files import open_file
from tfp_flowvae.errors import UserError

IMAGES = np.random.default_rng(0).integers(0, 256, (7, 4, 5), np.uint8)
LABELS = np.arange(7)


def read(path, image_shape=None):
    """The images of each split, and the declared number of levels."""
    parts, levels = open_file(path, image_shape)
    return {split: np.concatenate(list(p.images(levels))) for split, p in parts.items()}, levels


def sizes(path, image_shape=None):
    return {split: len(images) for split, images in read(path, image_shape)[0].items()}


def npz(path, **arrays):
    np.savez(path / "a.npz", **arrays)
    return path / "a.npz"


def npy(path, array):
    np.save(path / "a.npy", array)
    return path / "a.npy"


def refused(path, message, *, from_header=True):
    """Opening or, if `from_header` is false, reading fails in one sentence that names the file."""
    if not from_header:
        open_file(path)
    with pytest.raises(UserError, match=message) as caught:
        open_file(path) if from_header else read(path)
    assert repr(str(path)) in str(caught.value)
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("array", [IMAGES, IMAGES[..., None], IMAGES / 255])
def test_npy(tmp_path, array):
    path = npy(tmp_path, array)
    parts, levels = read(path)
    assert (list(parts), levels) == (["train"], None)
    np.testing.assert_array_equal(
        parts["train"], array.reshape(7, 4, 5, 1).astype(parts["train"].dtype)
    )
    assert sizes(path) == {"train": 7}


@pytest.mark.parametrize(
    "keys",
    [
        ("x_train", "x_valid", "x_test"),
        ("train", "valid", "test"),
        ("train_images", "val_images", "test_images"),
        ("x_train", "x_val", "x_test"),
    ],
)
def test_npz_with_splits_and_labels(tmp_path, keys):
    pieces = {"train": IMAGES[:4], "valid": IMAGES[4:6], "test": IMAGES[6:]}
    arrays = dict(zip(keys, pieces.values(), strict=True))
    path = npz(tmp_path, **arrays, y_train=LABELS[:4], y_test=LABELS[6:], train_labels=LABELS)
    parts, _ = read(path)
    assert list(parts) == list(pieces)
    for split, piece in pieces.items():
        np.testing.assert_array_equal(parts[split][..., 0], piece)
    assert sizes(path) == {"train": 4, "valid": 2, "test": 1}


@pytest.mark.parametrize(
    "arrays",
    [
        {"images": IMAGES},
        {"arr_0": IMAGES, "y": LABELS},
        {"faces": IMAGES, "labels": LABELS, "target": LABELS},
        {"imgs": IMAGES, "latents": LABELS},
    ],
)
def test_npz_with_one_array(tmp_path, arrays):
    path = npz(tmp_path, **arrays)
    np.testing.assert_array_equal(read(path)[0]["train"][..., 0], IMAGES)
    assert sizes(path) == {"train": 7}


def test_compressed_and_upper_case(tmp_path):
    with (tmp_path / "A.NPZ").open("wb") as file:
        np.savez_compressed(file, images=IMAGES)
    np.testing.assert_array_equal(read(tmp_path / "A.NPZ")[0]["train"][..., 0], IMAGES)


def test_labels_with_objects_are_ignored(tmp_path):
    path = npz(tmp_path, images=IMAGES, labels=np.array([{}] * 7, object))
    assert len(read(path)[0]["train"]) == 7


def test_booleans_declare_two_levels(tmp_path):
    for path in (npy(tmp_path, IMAGES > 99), npz(tmp_path, train=IMAGES > 99, test=IMAGES > 9)):
        assert read(path)[1] == 2
    assert read(npz(tmp_path, images=IMAGES > 99, levels=256))[1] == 256
    assert read(npz(tmp_path, train=IMAGES > 99, test=IMAGES))[1] is None


def test_flattened_images(tmp_path):
    rows = IMAGES.reshape(7, -1)
    for path in (npy(tmp_path, rows), npz(tmp_path, train=rows, test=IMAGES, y_train=LABELS)):
        for images in read(path, (4, 5, 1))[0].values():
            np.testing.assert_array_equal(images[..., 0], IMAGES)
        assert sizes(path, (4, 5, 1))["train"] == 7
        with pytest.raises(UserError, match=r"4 x 4 x 1 of --image-shape.*\(7, 20\)\.$"):
            open_file(path, (4, 4, 1))


def test_declared_levels(tmp_path):
    assert read(npz(tmp_path, images=IMAGES % 17, levels=17))[1] == 17
    refused(
        npz(tmp_path, images=IMAGES % 18, levels=17), r"0\.\.16.*from 0 to 17", from_header=False
    )


@pytest.mark.parametrize("levels", [1, 257, 2.5, "17", [17]])
def test_declared_levels_must_be_a_number_of_levels(tmp_path, levels):
    path = npz(tmp_path, images=IMAGES, levels=levels)
    refused(path, r"'levels' in .* must be one integer.*Received: ")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"y_train": LABELS, "y_test": LABELS}, r"^Labels were received.*'y_train', 'y_test'\.$"),
        ({"x_train": LABELS}, r"^Labels were received.*array 'x_train'.*shape \(7,\)\.$"),
        ({"x_train": IMAGES, "x_test": IMAGES.reshape(7, -1)}, r"'x_test'.*shape \(7, 20\)\.$"),
        ({"x_test": IMAGES}, r"must hold arrays 'x_train'.*Received: 'x_test'\.$"),
        ({"a": IMAGES, "b": IMAGES}, r"or one array 'images'\. Received: 'a', 'b'\.$"),
        ({"train": IMAGES, "x_train": IMAGES}, r"one array of train images.*'train', 'x_train'"),
        ({}, r"Received: no arrays\.$"),
        ({"images": IMAGES.astype(complex)}, r"array 'images'.*dtype complex128\.$"),
        ({"images": IMAGES.astype("U3")}, r"array 'images'.*dtype <U3\.$"),
        ({"images": IMAGES[:0]}, r"holds no images.*shape \(0, 4, 5\)\.$"),
    ],
)
def test_wrong_archives_are_refused(tmp_path, arrays, message):
    refused(npz(tmp_path, **arrays), message)


def test_objects_are_never_unpickled(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("unpickled",))

    array = np.array([Bomb()], object)
    refused(npy(tmp_path, array), r"Python objects|dtype object")
    refused(npz(tmp_path, images=array), r"Python objects|dtype object")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.npy", b""),
        ("a.npz", b""),
        ("a.npy", b"no numbers in here"),
        ("a.npz", b"no numbers in here"),
        ("a.npy", b"\x80\x04}."),
        ("a.npz", b"\x80\x04}."),
        ("a.npy", b"\x93NUMPY\x01\x00\x10\x00{broken header!!"),
    ],
)
def test_files_of_another_format_are_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, r"must be (a NumPy array|an \.npz archive) that can be read.*Received")


def test_an_array_named_npz_is_refused(tmp_path):
    npy(tmp_path, IMAGES).rename(tmp_path / "a.npz")
    refused(tmp_path / "a.npz", r"belongs into a \.npy file")


def test_an_archive_named_npy_is_refused(tmp_path):
    npz(tmp_path, images=IMAGES).rename(tmp_path / "a.npy")
    refused(tmp_path / "a.npy", r"must be a NumPy array that can be read")


def test_truncated(tmp_path):
    path = npy(tmp_path, IMAGES)
    path.write_bytes(path.read_bytes()[:-10])
    refused(path, r"must be a NumPy array that can be read.*Received: .* cut short\.$")


def test_a_header_that_promises_too_much(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (1 << 40, 1 << 20, 2)}
    )
    (tmp_path / "a.npy").write_bytes(header.getvalue())
    refused(tmp_path / "a.npy", r"that can be read.* cut short\.$")


def test_encrypted(tmp_path):
    path = npz(tmp_path, images=IMAGES)
    content = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + offset] |= 1
    path.write_bytes(content)
    refused(path, r"encrypted")


@pytest.mark.parametrize("seed", range(60))
def test_a_flipped_bit_is_refused_or_harmless(tmp_path, seed):
    """Damage anywhere in the archive raises `UserError` alone."""
    path = npz(tmp_path, x_train=IMAGES, x_test=IMAGES[:2])
    content = bytearray(path.read_bytes())
    rng = np.random.default_rng(seed)
    content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
    path.write_bytes(content)
    try:
        parts, _ = read(path)
    except UserError as error:
        assert str(path) in str(error)  # noqa: PT017
    else:
        np.testing.assert_array_equal(parts["train"][..., 0], IMAGES)


def test_opening_reads_no_image(tmp_path):
    path = npz(tmp_path, images=np.tile(IMAGES, (1000, 1, 1)))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    refused(path, r"must be an \.npz archive that can be read.*Bad CRC-32", from_header=False)


def test_archive_members_that_are_not_arrays_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("images", b"text")
    refused(tmp_path / "a.npz", r"that can be read")
