"""Labels come in the order of the images that they belong to."""

import numpy as np
import pytest
from PIL import Image

from tfp_flowvae.data import load_images, load_labels


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
