from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tfp_flowvae.data import check_dataset, load_images, stream_images
from tfp_flowvae.errors import UserError

IMAGES = np.random.default_rng(0).integers(0, 256, (60, 4, 5), np.uint8)


def test_digits():
    splits = load_images("digits")
    assert splits.name == "digits"
    assert splits.levels == 17
    assert splits.image_shape == (8, 8, 1)
    assert [len(s) for s in (splits.train, splits.valid, splits.test)] == [1257, 180, 360]
    together = np.concatenate([splits.train, splits.valid, splits.test])
    assert together.dtype == np.uint8
    assert (together.min(), together.max()) == (0, 16)

    from sklearn.datasets import load_digits

    original = load_digits().data.astype(np.uint8)
    rows = together.reshape(-1, 64)
    np.testing.assert_array_equal(rows[np.lexsort(rows.T)], original[np.lexsort(original.T)])


def test_fractions():
    splits = load_images("digits", valid_fraction=0.5, test_fraction=0.25)
    assert [len(s) for s in (splits.train, splits.valid, splits.test)] == [448, 899, 450]


def test_npz_with_a_test_split(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, x_train=IMAGES, x_test=IMAGES[:9], y_train=np.arange(60))
    check_dataset(str(path))
    splits = load_images(str(path))
    assert splits.levels == 256
    np.testing.assert_array_equal(splits.train[..., 0], IMAGES[:50])
    np.testing.assert_array_equal(splits.valid[..., 0], IMAGES[50:])
    np.testing.assert_array_equal(splits.test[..., 0], IMAGES[:9])


def test_npy_of_floats(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, IMAGES[..., None].repeat(3, axis=-1) / 255)
    check_dataset(str(path))
    splits = load_images(str(path))
    assert splits.levels is None
    assert splits.train.dtype == np.float32
    assert splits.image_shape == (4, 5, 3)
    assert [len(s) for s in (splits.train, splits.valid, splits.test)] == [42, 6, 12]


def test_declared_levels(tmp_path):
    np.savez(tmp_path / "a.npz", images=IMAGES % 17, levels=17)
    assert load_images(str(tmp_path / "a.npz")).levels == 17


def test_binary_images_have_two_levels(tmp_path):
    np.save(tmp_path / "a.npy", IMAGES > 99)
    splits = load_images(str(tmp_path / "a.npy"))
    assert splits.levels == 2
    assert splits.train.dtype == np.uint8


def test_folder(tmp_path, monkeypatch):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(10):
        Image.fromarray(IMAGES[i]).save(folder / f"{i}.png")
    monkeypatch.chdir(tmp_path)
    for name in (str(folder), "pictures", "./pictures", "pictures/"):
        check_dataset(name)
        splits = load_images(name)
        assert (splits.image_shape, splits.levels) == ((4, 5, 1), 256)
        assert [len(s) for s in (splits.train, splits.valid, splits.test)] == [7, 1, 2]


def test_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    np.save(tmp_path / "a.npy", IMAGES)
    check_dataset("~/a.npy")
    assert len(load_images("~/a.npy").train) == 42


def test_tfds(tiny_dir, tmp_path, monkeypatch):
    for name in ("tiny_pictures", "tfds:tiny_pictures"):
        check_dataset(name, str(tiny_dir))
        splits = load_images(name, str(tiny_dir))
        assert [len(s) for s in (splits.train, splits.valid, splits.test)] == [13, 4, 5]
        assert (splits.image_shape, splits.levels) == ((3, 5, 3), 256)
    # The data set is meant even if there is a folder of its name; ./ means the folder.
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny_pictures").mkdir()
    assert len(load_images("tiny_pictures", str(tiny_dir)).test) == 5
    with pytest.raises(UserError, match="must hold pictures"):
        load_images("./tiny_pictures", str(tiny_dir))


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ("", r"a name or a path\. Received: ''\.$"),
        ("digit", r"Received: 'digit'\. Did you mean 'digits'"),
        ("DIGITS", r"Received: 'DIGITS'\. Did you mean 'digits'\?$"),
        ("Mnist", r"Received: 'Mnist'\. Did you mean 'mnist'\?$"),
        ("minst", r"must be digits, mnist, .*Received: 'minst'\. Did you mean 'mnist'"),
        ("tfds:minst", r"TensorFlow Datasets knows.*Did you mean 'mnist'"),
        ("zzzzqqqq", r"Received: 'zzzzqqqq'\.$"),
        ("missing.npz", r"path must exist.*Received: 'missing\.npz'\.$"),
        ("missing/folder", r"path must exist.*Received: 'missing/folder'\.$"),
        ("./missing", r"path must exist.*Received: '\./missing'\.$"),
        ("~no_such_user/missing", r"path must exist"),
        ("table.csv", r"\.npz file, an \.npy file or a folder.*Received: 'table\.csv'\.$"),
        ("few.npy", r"'few\.npy' holds too few images.*at least 3 are needed\. Received: 2\.$"),
        ("flat.npy", r"^Labels or flattened images.*'flat\.npy'.*--image-shape"),
        ("empty_folder", r"'empty_folder' must hold pictures"),
    ],
)
def test_wrong_data_sets_are_refused_by_check_and_load(dataset, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "table.csv").write_text("1,2")
    (tmp_path / "empty_folder").mkdir()
    np.save(tmp_path / "few.npy", IMAGES[:2])
    np.save(tmp_path / "flat.npy", IMAGES.reshape(60, -1))
    for function in (check_dataset, load_images):
        with pytest.raises(UserError, match=message) as caught:
            function(dataset, str(tmp_path))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dataset", ["digits", "mnist", "a.npy"])
def test_a_data_dir_that_does_not_exist_is_refused(dataset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save(tmp_path / "a.npy", IMAGES)
    for function in (check_dataset, load_images, stream_images):
        for wrong, received in (("none/here", "none/here'"), ("a.npy", "a.npy', which is a file")):
            with pytest.raises(UserError, match=rf"must be a folder that exists.*'{received}\.$"):
                function(dataset, wrong)


def test_flattened_images(tmp_path):
    np.save(tmp_path / "flat.npy", IMAGES.reshape(60, -1))
    np.save(tmp_path / "images.npy", IMAGES)
    check_dataset(str(tmp_path / "flat.npy"), image_shape=(4, 5, 1))
    flat = load_images(str(tmp_path / "flat.npy"), image_shape=(4, 5, 1))
    images = load_images(str(tmp_path / "images.npy"))
    for split in ("train", "valid", "test"):
        np.testing.assert_array_equal(getattr(flat, split), getattr(images, split))


@pytest.mark.parametrize(
    ("dataset", "image_shape", "message"),
    [
        ("flat.npy", (4, 4, 1), r"'flat\.npy' .* 4 x 4 x 1 of --image-shape.*\(60, 20\)\.$"),
        ("flat.npy", (4, 5), r"1 or 3 channels, such as 28 28 1\. Received: 4 5\.$"),
        ("flat.npy", (4, 1, 5), r"1 or 3 channels, such as 28 28 1\. Received: 4 1 5\.$"),
        ("flat.npy", (-4, -5, 1), r"such as 28 28 1\. Received: -4 -5 1\.$"),
        (
            "digits",
            (8, 8, 1),
            r"\.npz or \.npy file; leave it out\. Received: 8 8 1 .* 'digits'\.$",
        ),
        ("folder", (8, 8, 1), r"leave it out\. Received: 8 8 1 with the data set 'folder'\.$"),
    ],
)
def test_wrong_image_shapes_are_refused(dataset, image_shape, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save(tmp_path / "flat.npy", IMAGES.reshape(60, -1))
    (tmp_path / "folder").mkdir()
    for function in (check_dataset, load_images, stream_images):
        with pytest.raises(UserError, match=message):
            function(dataset, image_shape=image_shape)


def test_wrong_fractions_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", x_train=IMAGES, x_test=IMAGES)
    for function in (check_dataset, load_images):
        with pytest.raises(UserError, match=r"test split of its own"):
            function(str(tmp_path / "a.npz"), test_fraction=0.2)
        with pytest.raises(UserError, match=r"valid_fraction must lie strictly"):
            function("digits", valid_fraction=1.5)


@pytest.mark.parametrize(
    ("test", "message"),
    [
        (IMAGES[:, :3], r"^The splits in '.*a\.npz' .*one shape.*\(3, 5, 1\) and .*\(4, 5, 1\)\.$"),
        (IMAGES / 255, r"all integers or all floats.*Received: float32 of .* and uint8 of .*\.$"),
    ],
    ids=["shape", "kind"],
)
def test_splits_must_be_alike(test, message, tmp_path):
    np.savez(tmp_path / "a.npz", x_train=IMAGES, x_test=test)
    with pytest.raises(UserError, match=message):
        load_images(str(tmp_path / "a.npz"))


def test_one_bright_image_in_any_split_is_enough(tmp_path, recwarn):
    np.savez(tmp_path / "a.npz", x_train=IMAGES % 17, x_test=IMAGES % 65)
    assert load_images(str(tmp_path / "a.npz")).levels == 256
    assert not recwarn


def test_images_that_do_not_fit_in_memory(tmp_path, monkeypatch):
    np.lib.format.open_memmap(tmp_path / "a.npy", "w+", np.uint8, (3, 2, 2)).flush()

    def empty(shape, dtype):
        raise MemoryError("Unable to allocate 9 TiB")

    monkeypatch.setattr(np, "empty", empty)
    with pytest.raises(
        UserError, match=r"must fit in memory.*--stream.*Unable to allocate 9 TiB\.$"
    ):
        load_images(str(tmp_path / "a.npy"))


def test_the_warning_about_dark_images_names_the_caller(tmp_path):
    np.save(tmp_path / "a.npy", IMAGES % 17)
    with pytest.warns(UserWarning, match="nearly black") as caught:
        load_images(str(tmp_path / "a.npy"))
    assert caught[0].filename == __file__


def test_mnist(mnist_dir):
    splits = load_images("mnist", mnist_dir)
    assert [len(s) for s in (splits.train, splits.valid, splits.test)] == [50_000, 10_000, 10_000]
    assert (splits.image_shape, splits.levels, splits.train.dtype) == ((28, 28, 1), 256, np.uint8)
    # The sums of all pixels of the published files.
    assert sum(s.sum(dtype=np.int64) for s in (splits.train, splits.valid)) == 1_567_298_545
    assert splits.test.sum(dtype=np.int64) == 264_923_200
