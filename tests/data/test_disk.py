"""Rows of images from a file that may fail while it is read."""

import os

import numpy as np
import pytest

from tfp_flowvae.data.disk import open_images, row_reader


@pytest.fixture
def path(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (50, 3, 2, 1)).astype(np.uint8)
    np.save(tmp_path / "images.npy", images)
    return tmp_path / "images.npy"


@pytest.mark.parametrize("rows", [[], [7], [0, 1, 2], [3, 4, 9, 30, 31, 49], list(range(50))])
def test_reads_what_indexing_takes(rows, path):
    images, rows = open_images(path), np.array(rows, np.int32)
    for part in (images, images[:], np.array(images), images + 0):
        np.testing.assert_array_equal(row_reader(part)(rows), np.asarray(part)[rows])
    for part in (images[1:], images[:-1], images[::2], images[:, ::-1]):
        few = rows[rows < len(part)]
        np.testing.assert_array_equal(row_reader(part)(few), np.asarray(part)[few])


def test_a_file_that_was_cut_is_an_error_and_not_the_end_of_the_process(path):
    images = open_images(path)
    read = row_reader(images)
    os.truncate(path, 200)
    assert read(np.array([0])).shape == (1, 3, 2, 1)
    with pytest.raises(OSError, match=r"images\.npy' is shorter than it was"):
        read(np.array([0, 49]))
    with pytest.raises(OSError, match=r"images\.npy' is shorter than it was"):
        row_reader(images)


def test_a_file_without_its_name_is_read_all_the_same(path):
    images = open_images(path)
    read, rows = row_reader(images), np.array([0, 49])
    path.unlink()
    np.testing.assert_array_equal(read(rows), row_reader(images)(rows))
