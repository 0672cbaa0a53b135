"""The cache of prepared images: reused, complete, and written by one process at a time."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tfp_flowvae.data import binarize_fixed, cache, load_images, stream, stream_images
from tfp_flowvae.errors import UserError

pytestmark = pytest.mark.usefixtures("small_pieces")
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (60, 4, 5), np.uint8)


def listing(path):
    return {file: file.stat().st_mtime_ns for file in path.rglob("*")}


def test_a_second_run_maps_the_cached_images(pictures, tmp_path, monkeypatch, assert_same):
    path, folder = pictures(tmp_path / "pictures"), tmp_path / "cache"
    first = stream_images(str(path), cache=folder)
    before = listing(folder)
    monkeypatch.setattr(stream, "_prepare", lambda *_: pytest.fail("prepared again"))
    assert_same(stream_images(str(path), cache=folder), first)
    assert listing(folder) == before
    assert [file.name for file in folder.iterdir() if not file.name.startswith(".")] == [
        first.train.filename.parent.name
    ]


@pytest.mark.parametrize("change", ["content", "one more", "renamed", "fractions"])
def test_a_changed_data_set_is_prepared_again(pictures, change, tmp_path, assert_same):
    path = pictures(tmp_path / "pictures")
    first = stream_images(str(path), cache=tmp_path / "cache")
    kwargs = {}
    if change == "content":
        Image.fromarray(255 - IMAGES[0]).save(path / "000.png")
        os.utime(path / "000.png", ns=(0, 0))
    elif change == "one more":
        Image.fromarray(IMAGES[50]).save(path / "100.png")
    elif change == "renamed":
        (path / "000.png").rename(path / "100.png")
    else:
        kwargs = {"test_fraction": 0.3}
    second = stream_images(str(path), cache=tmp_path / "cache", **kwargs)
    assert_same(second, load_images(str(path), **kwargs))
    assert second.train.filename.parent != first.train.filename.parent
    again = stream_images(str(path), cache=tmp_path / "cache", **kwargs)
    assert again.train.filename == second.train.filename


@pytest.mark.parametrize("damage", ["cut", "gone", "contents", "not closed"])
def test_a_damaged_cache_is_prepared_again(damage, tmp_path, assert_same):
    np.save(tmp_path / "a.npy", IMAGES)
    home = stream_images(str(tmp_path / "a.npy"), cache=tmp_path / "cache").train.filename.parent
    if damage == "cut":
        content = (home / "train.npy").read_bytes()
        (home / "train.npy").unlink()
        (home / "train.npy").write_bytes(content[:-1])
    elif damage == "gone":
        (home / "valid.npy").unlink()
    else:
        (home / "contents.json").write_text("" if damage == "contents" else '{"dataset": "')
    streamed = stream_images(str(tmp_path / "a.npy"), cache=tmp_path / "cache")
    assert_same(streamed, load_images(str(tmp_path / "a.npy")))


KILLED = """
import os, sys
from tfp_flowvae.data import pieces, splits, stream
pieces.PIECE_BYTES = 150
place, left = splits.Plan.place, [int(sys.argv[3])]
def die(*args):
    place(*args)
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), 9)
splits.Plan.place = die
stream.stream_images(sys.argv[1], cache=sys.argv[2])
"""


def test_a_killed_preparation_is_repeated(tmp_path, assert_same):
    np.save(tmp_path / "a.npy", IMAGES)
    arguments = [str(tmp_path / "a.npy"), str(tmp_path / "cache"), "5"]
    killed = subprocess.run([sys.executable, "-c", KILLED, *arguments], timeout=60, check=False)
    assert killed.returncode == -9
    (left,) = (file for file in (tmp_path / "cache").iterdir() if file.is_dir())
    assert (left / "train.npy").exists()
    assert not (left / cache.CONTENTS).exists()
    streamed = stream_images(arguments[0], cache=arguments[1])
    assert_same(streamed, load_images(arguments[0]))
    left = [file.name for file in (tmp_path / "cache").iterdir() if file.is_dir()]
    assert left == [streamed.train.filename.parent.name]


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="no space can be reserved here")
def test_a_full_disk(tmp_path, monkeypatch, assert_same):
    np.save(tmp_path / "a.npy", IMAGES)
    folder = tmp_path / "cache"

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def refused(function, *args, **kwargs):
        with monkeypatch.context() as patch:
            patch.setattr(os, "posix_fallocate", full)
            with pytest.raises(UserError, match=r"kept in the cache '.*cache'.*No space left"):
                function(*args, **kwargs)

    refused(stream_images, str(tmp_path / "a.npy"), cache=folder)
    assert not [file for file in folder.iterdir() if file.is_dir()]
    splits = stream_images(str(tmp_path / "a.npy"), cache=folder)
    assert_same(splits, load_images(str(tmp_path / "a.npy")))
    refused(binarize_fixed, splits.train, 256, "static", "train")
    assert not list(folder.rglob("*static*"))


def test_space_on_the_disk_is_reserved_before_images_are_written(tmp_path):
    images = cache.create_images(tmp_path / "a.npy", (1 << 10, 1 << 10), np.dtype(np.uint8))
    assert (tmp_path / "a.npy").stat().st_blocks * 512 >= images.nbytes


@pytest.mark.parametrize("place", ["file", "below a file"])
def test_a_cache_that_cannot_be_made(place, tmp_path):
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "x" if place == "below a file" else tmp_path / "file"
    with pytest.raises(UserError, match=r"cannot be kept in the cache .*Received: .*\.$") as caught:
        stream_images("digits", cache=folder)
    assert "\n" not in str(caught.value)


def test_a_read_only_cache_is_read(tmp_path, monkeypatch, assert_same):
    splits = stream_images("digits", cache=tmp_path)
    binary, _ = binarize_fixed(splits.train, 17, "static", "train")

    def locked(home):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(home))

    monkeypatch.setattr(cache, "FileLock", locked)
    assert_same(stream_images("digits", cache=tmp_path), load_images("digits"))
    np.testing.assert_array_equal(binarize_fixed(splits.train, 17, "static", "train")[0], binary)
    with pytest.raises(UserError, match=r"cannot be kept in the cache.*Permission denied\.$"):
        binarize_fixed(splits.train, 17, "threshold", "train")


def test_two_preparations_at_once(tmp_path, assert_same):
    np.save(tmp_path / "a.npy", IMAGES)
    code = "import sys; from tfp_flowvae.data import stream; stream.stream_images(*sys.argv[1:])"
    where = [str(tmp_path / "a.npy"), str(tmp_path), str(tmp_path)]
    arguments = [sys.executable, "-c", code, *where]
    both = [subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=60)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sum("Prepared 60 images" in text for text in said) == 1
    assert_same(stream_images(where[0], cache=tmp_path), load_images(where[0]))
