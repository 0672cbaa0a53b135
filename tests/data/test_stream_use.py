"""Binary images and batches of images on disk, without a copy in memory."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

from tfp_flowvae.data import (
    BINARIZATIONS,
    batches,
    binarize,
    binarize_fixed,
    evaluation_batches,
    load_images,
    pieces,
    stream_images,
    training_batches,
)

pytestmark = pytest.mark.usefixtures("small_pieces")
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (60, 4, 5), np.uint8)
SPLITS = ("train", "valid", "test")


def listing(path):
    return {file: file.stat().st_mtime_ns for file in path.rglob("*")}


@pytest.mark.parametrize("name", ["uint8.npy", "float64.npy", "levels.npz", "bool.npy"])
@pytest.mark.parametrize("how", BINARIZATIONS)
def test_fixed_binarization(name, how, image_file, tmp_path):
    image_file(tmp_path / name)
    streamed = stream_images(str(tmp_path / name), cache=tmp_path / "cache")
    resident = load_images(str(tmp_path / name))
    for split in SPLITS:
        expected, levels = binarize_fixed(getattr(resident, split), resident.levels, how, split)
        for _ in range(2):  # The second time from the file.
            images = getattr(streamed, split)
            binary, found = binarize_fixed(images, streamed.levels, how, split)
            assert isinstance(binary, np.memmap)
            assert (found, binary.dtype, binary.shape) == (levels, expected.dtype, expected.shape)
            assert binary.tobytes() == expected.tobytes()
    seeds = [binarize_fixed(streamed.train, streamed.levels, how, "train", s)[0] for s in (1, 2)]
    drawn = how in ("static", "dynamic") and name != "bool.npy"
    assert (seeds[0] != seeds[1]).any() == drawn
    assert not list((tmp_path / "cache").rglob("*.partial"))


def test_maps_of_other_files_and_parts_of_a_map_are_binarised_in_memory(tmp_path):
    np.save(tmp_path / "a.npy", IMAGES[..., None])
    strange = np.load(tmp_path / "a.npy", mmap_mode="r")
    own = stream_images(str(tmp_path / "a.npy"), cache=tmp_path / "cache").train
    before = listing(tmp_path)
    for images in (strange, own[:5], own[3:], own[::-1]):
        binary, _ = binarize_fixed(images, 256, "static", "train")
        expected, _ = binarize_fixed(np.array(images), 256, "static", "train")
        assert not isinstance(binary, np.memmap)
        np.testing.assert_array_equal(binary, expected)
    assert listing(tmp_path) == before


@pytest.mark.parametrize("name", ["uint8.npy", "float64.npy"])
@pytest.mark.parametrize("binarization", BINARIZATIONS)
def test_batches(name, binarization, image_file, tmp_path, monkeypatch):
    monkeypatch.setattr(batches, "_READ_BYTES", 250)  # 2 batches of integers, 1 of floats
    image_file(tmp_path / name)
    resident = load_images(str(tmp_path / name))
    streamed = stream_images(str(tmp_path / name), cache=tmp_path / "cache")

    def stream(splits, epoch, step, count):
        found = training_batches(
            splits.train,
            levels=splits.levels,
            batch_size=5,
            seed=3,
            binarization=binarization,
            start_epoch=epoch,
            start_step=step,
        )
        return [found.element_spec, *(batch.numpy().tobytes() for batch in found.take(count))]

    expected = stream(resident, 0, 0, 20)
    assert stream(streamed, 0, 0, 20) == expected
    assert stream(streamed, 1, 3, 8) == [expected[0], *expected[1 + 9 + 3 :]]


@pytest.mark.parametrize("size", [1, 5, 12, 100])
def test_evaluation_batches(size, tmp_path, monkeypatch):
    monkeypatch.setattr(batches, "_READ_BYTES", 250)
    np.savez(tmp_path / "a.npz", x_train=IMAGES, x_test=IMAGES[:12])
    splits = stream_images(str(tmp_path / "a.npz"), cache=tmp_path / "cache")
    one, two = (
        evaluation_batches(images, size, levels=256)
        for images in (splits.test, np.array(splits.test))
    )
    assert (one.element_spec, one.cardinality()) == (two.element_spec, two.cardinality())
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a, b)


def test_memory_holds_pieces_and_not_the_images(tmp_path, monkeypatch, assert_same):
    """4 MB of float64 in an archive, read 16 KiB at a time.

    What is kept of them is 2 MB of float32, or 0.5 MB of binary images.
    """
    monkeypatch.setattr(pieces, "PIECE_BYTES", 1 << 14)
    monkeypatch.setattr(binarize, "_CHUNK", 1 << 12)
    images = RNG.integers(0, 256, (500, 32, 32), np.uint8)
    np.savez(tmp_path / "a.npz", images=images / 255)
    cache = tmp_path / "cache"

    def peak(function, *args, **kwargs):
        tracemalloc.start()
        try:
            result = function(*args, **kwargs)
            return result, tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    kept = 4 * images.size
    resident, most = peak(load_images, str(tmp_path / "a.npz"))
    assert most > kept
    peak(stream_images, "digits", cache=cache)  # Imports are not counted.
    streamed, most = peak(stream_images, str(tmp_path / "a.npz"), cache=cache)
    assert most < kept / 4
    assert_same(streamed, resident)
    binary = resident.train.size
    _, most = peak(binarize_fixed, resident.train, None, "static", "train")
    assert most > binary
    _, most = peak(binarize_fixed, streamed.train, None, "static", "train")
    assert most < binary


def test_no_tensor_of_the_images_is_made(tmp_path):
    np.save(tmp_path / "a.npy", IMAGES)
    splits = stream_images(str(tmp_path / "a.npy"), cache=tmp_path / "cache")
    for images, held in ((splits.train, False), (np.array(splits.train), True)):
        stream = training_batches(images, levels=256, batch_size=5, seed=0, binarization="dynamic")
        sizes = [
            int(np.prod(tensor.shape))
            for dataset in ancestors(stream)
            for function in dataset._functions()
            for tensor in function.function.captured_inputs
            if tensor.dtype != "resource"
        ]
        assert (images.size in sizes) == held


def ancestors(dataset):
    yield dataset
    for parent in dataset._inputs():
        yield from ancestors(parent)


LIMITED = """
import resource, sys
import numpy as np
from tfp_flowvae.data import binarize_fixed, load_images, stream_images, training_batches
import tensorflow as tf

function = {"stream": lambda path: stream_images(path, cache=sys.argv[3]), "load": load_images}
function = function[sys.argv[1]]
warm = training_batches(np.zeros((9, 2, 2, 1), np.uint8), levels=2, batch_size=3, seed=0,
                        binarization="none")
next(iter(warm))
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
now = int(status["VmData"].split()[0]) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (now + 160 * 2**20,) * 2)  # Mapped files do not count.
splits = function(sys.argv[2])
batches = training_batches(splits.train, levels=splits.levels, batch_size=100, seed=0,
                           binarization="static")
print(sum(float(tf.reduce_sum(batch)) for batch in batches.take(20)))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the limit is one of Linux")
def test_a_data_set_larger_than_memory(tmp_path):
    """250 MB of images, in a process that may hold 160 MB besides mapped files."""
    images = np.lib.format.open_memmap(tmp_path / "a.npy", "w+", np.uint8, (60_000, 64, 64))
    images[::1000] = 255
    images.flush()
    arguments = [str(tmp_path / "a.npy"), str(tmp_path / "cache")]
    runs = {
        how: subprocess.run(
            [sys.executable, "-c", LIMITED, how, *arguments],
            check=False,
            timeout=300,
            capture_output=True,
            text=True,
        )
        for how in ("stream", "load")
    }
    assert runs["stream"].returncode == 0, runs["stream"].stderr
    assert "Unable to allocate" in runs["load"].stderr
