"""Fixtures of the data tests: MNIST, a small TFDS data set, and images on disk."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tfp_flowvae.data import binarize, pieces

_BESIDE_THE_REPOSITORY = Path(__file__).parents[3] / "shared" / "data" / "tfds"


@pytest.fixture(scope="session")
def mnist_dir():
    """The folder that holds TFDS's prepared MNIST."""
    for folder in (os.environ.get("TFDS_DATA_DIR"), _BESIDE_THE_REPOSITORY):
        if folder and any(Path(folder).glob("mnist/*/dataset_info.json")):
            return str(folder)
    pytest.skip("no prepared MNIST: set TFDS_DATA_DIR to a folder that holds TFDS's mnist")


@pytest.fixture(scope="session")
def tiny_builder():
    """A builder of small colour images with labels, which TFDS does not know by name."""
    import tensorflow_datasets as tfds

    class TinyPictures(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")
        SIZES = {"train": 13, "validation": 4, "test": 5}  # noqa: RUF012

        def _info(self):
            image = tfds.features.Image(shape=(3, 5, 3), encoding_format="png")
            features = {"image": image, "label": tfds.features.ClassLabel(num_classes=2)}
            return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(n) for split, n in self.SIZES.items()}

        def _generate_examples(self, count):
            for i in range(count):
                yield i, {"image": np.full((3, 5, 3), 10 * i + 60, np.uint8), "label": i % 2}

    return TinyPictures


@pytest.fixture(scope="session")
def tiny_dir(tiny_builder, tmp_path_factory):
    """A data_dir with the prepared data set `tiny_pictures`."""
    folder = tmp_path_factory.mktemp("tfds")
    tiny_builder(data_dir=str(folder)).download_and_prepare()
    return folder


@pytest.fixture
def small_pieces(monkeypatch):
    """Pieces of seven images of 4 x 5 pixels, so that 60 images make many pieces."""
    monkeypatch.setattr(pieces, "PIECE_BYTES", 150)
    monkeypatch.setattr(binarize, "_CHUNK", 77)


@pytest.fixture(scope="session")
def assert_same():
    """A check that images on disk equal images in memory, bit for bit."""

    def check(streamed, resident):
        assert (streamed.name, streamed.levels) == (resident.name, resident.levels)
        for split in ("train", "valid", "test"):
            one, two = getattr(streamed, split), getattr(resident, split)
            assert isinstance(one, np.memmap)
            assert not one.flags.writeable
            assert (one.dtype, one.shape) == (two.dtype, two.shape)
            assert one.tobytes() == two.tobytes()

    return check


@pytest.fixture(scope="session")
def grey_images():
    """60 images of 4 x 5 pixels."""
    return np.random.default_rng(0).integers(0, 256, (60, 4, 5), np.uint8)


@pytest.fixture
def image_file(grey_images):
    """A function that writes `grey_images` to a path, in the format of its name."""
    grey = grey_images
    formats = {
        "uint8.npy": lambda path: np.save(path, grey),
        "fortran.npy": lambda path: np.save(path, np.asfortranarray(grey)),
        "bool.npy": lambda path: np.save(path, grey > 99),
        "int64.npy": lambda path: np.save(path, grey.astype(">i8")),
        "float64.npy": lambda path: np.save(path, grey[..., None].repeat(3, -1) / 255 + 1e-9),
        "levels.npz": lambda path: np.savez(path, images=grey % 17, levels=17),
        "splits.npz": lambda path: np.savez_compressed(
            path, x_train=grey[:50] / np.float32(255), x_test=grey[50:] / np.float32(255)
        ),
        "fortran.npz": lambda path: np.savez(path, x_train=np.asfortranarray(grey), x_val=grey[:7]),
    }

    def write(path):
        formats[path.name](path)
        return path

    return write


@pytest.fixture
def pictures(grey_images):
    """A function that writes `grey_images` as pictures into a new folder, some in colour."""

    def write(path, count=23, coloured=()):
        path.mkdir(parents=True)
        for i in range(count):
            pixels = grey_images[i]
            if i in coloured:
                pixels = np.stack([pixels, 255 - pixels, pixels // 2], axis=-1)
            Image.fromarray(pixels).save(path / f"{i:03d}.png")
        return path

    return write
