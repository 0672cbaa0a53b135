"""Labels come in the order of the images that they belong to."""

import numpy as np
import pytest
from PIL import Image

from tfp_flowvae.data import load_classes, load_images, load_labels
from tfp_flowvae.data.batches import evaluation_batches, training_batches
from tfp_flowvae.errors import UserError


def test_digits_keep_their_labels_through_the_shuffle():
    from sklearn.datasets import load_digits

    original = load_digits()
    known = {
        image.astype(np.uint8).tobytes(): str(label)
        for image, label in zip(original.images, original.target, strict=True)
    }
    splits = load_images("digits")
    for split in ("train", "valid", "test"):
        labels = load_labels("digits", split=split)
        assert [known[image.tobytes()] for image in getattr(splits, split)] == labels.tolist()


def test_a_tfds_data_set_has_the_names_of_its_labels(tiny_dir):
    splits = load_images("tiny_pictures", str(tiny_dir))
    labels = load_labels("tiny_pictures", str(tiny_dir))
    assert len(labels) == len(splits.test) == 5
    assert set(labels.tolist()) <= {"0", "1"}


@pytest.mark.parametrize(
    "keys",
    [
        ("x_train", "x_test", "y_train", "y_test"),
        ("train_images", "test_images", "train_labels", "test_labels"),
    ],
)
def test_npz_with_labels(keys, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (30, 4, 4), np.uint8)
    labels = np.arange(30)
    arrays = (images[:20], images[20:], labels[:20], labels[20:])
    np.savez(tmp_path / "a.npz", **dict(zip(keys, arrays, strict=True)))
    found = load_labels(str(tmp_path / "a.npz"))
    assert found.tolist() == [str(i) for i in range(20, 30)]
    valid = load_labels(str(tmp_path / "a.npz"), split="valid")
    assert valid.tolist() == ["17", "18", "19"]


@pytest.mark.parametrize(
    "labels", [{}, {"labels": np.zeros((30, 2), int)}, {"labels": np.zeros(7, int)}]
)
def test_arrays_that_are_no_labels_of_the_images(labels, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (30, 4, 4), np.uint8)
    np.savez(tmp_path / "a.npz", images=images, **labels)
    assert load_labels(str(tmp_path / "a.npz")) is None
    np.save(tmp_path / "a.npy", images)
    assert load_labels(str(tmp_path / "a.npy")) is None


def test_folders_in_a_folder_are_labels(tmp_path):
    for i in range(12):
        folder = tmp_path / "train" / ("cats" if i % 2 else "dogs")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 4), 100 + (i % 2), np.uint8)).save(folder / f"{i}.png")
    splits = load_images(str(tmp_path))
    labels = load_labels(str(tmp_path))
    assert [("dogs", "cats")[image[0, 0, 0] - 100] for image in splits.test] == labels.tolist()
    (tmp_path / "train" / "cats" / "1.png").rename(tmp_path / "train" / "1.png")
    assert load_labels(str(tmp_path)) is None


@pytest.fixture
def save_npz(tmp_path):
    """`save_npz(labels)`: the path of a file of 30 images, whose first value is their place."""

    def save(labels, **others):
        images = np.zeros((30, 4, 4), np.uint8)
        images[:, 0, 0] = np.arange(30) + 50
        np.savez(tmp_path / "a.npz", images=images, **others, **({} if labels is None else labels))
        return str(tmp_path / "a.npz")

    return save


def test_classes_are_places_in_the_sorted_names(save_npz):
    labels = np.array([10, 2, 1] * 10)
    labels[::5] = -1
    path = save_npz({"labels": labels})
    classes, splits = load_classes(path), load_images(path)
    assert classes.names == ("1", "2", "10")
    for split in ("train", "valid", "test"):
        found = getattr(classes, split)
        assert found.dtype == np.int32
        own = labels[getattr(splits, split)[:, 0, 0, 0] - 50]
        assert [-1 if label == -1 else int(classes.names.index(str(label))) for label in own] == (
            found.tolist()
        )


def test_classes_of_the_digits_and_of_tfds(tiny_dir):
    digits = load_classes("digits")
    assert digits.names == tuple(map(str, range(10)))
    assert [str(i) for i in digits.test] == load_labels("digits").tolist()
    tiny = load_classes("tiny_pictures", str(tiny_dir))
    assert tiny.names == ("0", "1")
    assert [len(part) for part in (tiny.train, tiny.valid, tiny.test)] == [13, 4, 5]


def test_names_of_folders_are_classes(tmp_path):
    for i in range(20):
        folder = tmp_path / ("cats" if i % 2 else "dogs")
        folder.mkdir(exist_ok=True)
        Image.fromarray(np.full((4, 4), 100 + (i % 2), np.uint8)).save(folder / f"{i}.png")
    classes, splits = load_classes(str(tmp_path)), load_images(str(tmp_path))
    assert classes.names == ("cats", "dogs")
    np.testing.assert_array_equal(classes.train, 101 - splits.train[:, 0, 0, 0])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (None, "has no labels of its train images"),
        ({"labels": np.zeros(7, int)}, "Received: 7 labels for 30 images"),
        ({"labels": np.full(30, -1)}, "a label for some training images. Received: none but -1"),
        ({"labels": np.arange(30)}, "must have a training image of every class"),
        ({"labels": np.zeros((30, 2), int)}, "has no labels"),
    ],
)
def test_labels_that_give_no_classes(labels, message, save_npz):
    with pytest.raises(UserError, match=message) as caught:
        load_classes(save_npz(labels))
    assert str(caught.value).startswith("'")


@pytest.mark.parametrize("mapped", [False, True])
def test_batches_keep_images_and_labels_together(mapped, tmp_path):
    images = np.zeros((25, 3, 3, 1), np.uint8)
    images[:, 0, 0, 0] = np.arange(25)
    labels = (np.arange(25) * 7 % 25).astype(np.int32)
    if mapped:
        np.save(tmp_path / "images.npy", images)
        images = np.load(tmp_path / "images.npy", mmap_mode="r")
    how = {"levels": 256, "batch_size": 10, "seed": 1, "binarization": "none"}
    plain = training_batches(images, **how).take(6)
    pairs = training_batches(images, labels=labels, **how).take(6)
    for alone, (x, y) in zip(plain, pairs, strict=True):
        np.testing.assert_array_equal(alone, x)
        places = np.round(x[:, 0, 0, 0].numpy() * 255).astype(int)
        np.testing.assert_array_equal(y, labels[places])
    parts = list(evaluation_batches(images, 10, levels=256, labels=labels))
    np.testing.assert_array_equal(np.concatenate([y for _, y in parts]), labels)
