from __future__ import annotations

import itertools

import numpy as np
import pytest
import tensorflow as tf

from tfp_flowvae.data import (
    BINARIZATIONS,
    binarize_fixed,
    evaluation_batches,
    steps_per_epoch,
    to_unit,
    training_batches,
)
from tfp_flowvae.errors import UserError

GREY = np.random.default_rng(0).integers(0, 256, (23, 3, 5, 1), np.uint8)
NUMBERED = np.linspace(0, 1, 23, dtype=np.float32).reshape(-1, 1, 1, 1)


def take(count, images=GREY, **kwargs):
    settings = {"levels": 256, "batch_size": 5, "seed": 1, "binarization": "none"} | kwargs
    batches = training_batches(images, **settings)
    return [batch.numpy() for batch in batches.take(count)]


def assert_equal(one, two):
    assert len(one) == len(two)
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("count", "size", "steps"), [(23, 5, 5), (20, 5, 4), (3, 5, 1), (1, 1, 1)])
def test_steps_per_epoch(count, size, steps):
    assert steps_per_epoch(count, size) == steps


@pytest.mark.parametrize("size", [1, 5, 23, 100])
def test_an_epoch_has_every_image_exactly_once(size):
    steps = steps_per_epoch(23, size)
    batches = take(3 * steps, NUMBERED, levels=None, batch_size=size)
    epochs = [np.concatenate(batches[e * steps : (e + 1) * steps]).ravel() for e in range(3)]
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch), NUMBERED.ravel())
    for one, two in itertools.combinations([*epochs, NUMBERED.ravel()], 2):
        assert (one != two).any()


def test_shapes_and_cardinality():
    batches = training_batches(GREY, levels=256, batch_size=5, seed=0, binarization="none")
    assert batches.element_spec == tf.TensorSpec([None, 3, 5, 1], tf.float32)
    assert batches.cardinality() == tf.data.INFINITE_CARDINALITY
    assert [len(batch) for batch in take(6)] == [5, 5, 5, 5, 3, 5]


@pytest.mark.parametrize("levels", [2, 17, 200, 256])
def test_intensities_are_those_of_to_unit(levels):
    images = (GREY.astype(int) % levels).astype(np.uint8)
    epoch = np.concatenate(take(5, images, levels=levels))
    expected = to_unit(images, levels)
    order = [next(i for i in range(23) if (image == expected[i]).all()) for image in epoch]
    assert sorted(order) == list(range(23))


@pytest.mark.parametrize("binarization", BINARIZATIONS)
@pytest.mark.parametrize("images", [GREY, to_unit(GREY, 256)], ids=["uint8", "float32"])
def test_the_stream_depends_on_the_seed_epoch_and_step_alone(images, binarization):
    kwargs = {
        "levels": 256 if images.dtype == np.uint8 else None,
        "binarization": binarization,
    }
    stream = take(15, images, **kwargs)
    binary = binarization != "none"
    assert all(batch.dtype == (np.uint8 if binary else np.float32) for batch in stream)
    assert_equal(stream, take(15, images, **kwargs))
    other = take(15, images, seed=2, **kwargs)
    assert any((a != b).any() for a, b in zip(stream, other, strict=True))
    # A start within epoch 1 gives the rest of it and all of the next, bit for bit.
    assert_equal(stream[8:], take(7, images, start_epoch=1, start_step=3, **kwargs))


def test_dynamic_draws_have_the_intensity_as_probability():
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(100, axis=0)
    draws = np.concatenate(take(80, levels, batch_size=50, binarization="dynamic"))
    assert set(np.unique(draws)) == {0.0, 1.0}
    frequency, probability = draws.reshape(4000, 256).mean(axis=0), np.arange(256) / 255
    assert frequency[0] == 0
    assert frequency[255] == 1
    scores = (frequency - probability)[1:255]
    scores /= np.sqrt(probability * (1 - probability) / 4000)[1:255]
    # Each of the 254 scores is within 4.5 standard errors, and so is their standard deviation.
    assert np.abs(scores).max() < 4.5
    assert abs(scores.std() - 1) < 4.5 / np.sqrt(2 * 254)


def test_dynamic_draws_of_floats():
    images = np.full((200, 7, 5, 3), 0.3, np.float32)
    draws = np.concatenate(take(10, images, levels=None, batch_size=100, binarization="dynamic"))
    assert abs(draws.mean() - 0.3) < 4.5 * np.sqrt(0.21 / draws.size)


@pytest.mark.parametrize(("first", "second"), [(0, 1), (0, 2), (1, 3)])
def test_draws_are_independent_from_batch_to_batch_and_epoch_to_epoch(first, second):
    images = np.full((2, 64, 64, 1), 0.5, np.float32)
    draws = take(4, images, levels=None, batch_size=1, binarization="dynamic")
    correlation = np.corrcoef(draws[first].ravel(), draws[second].ravel())[0, 1]
    assert abs(correlation) < 4.5 / np.sqrt(64 * 64)  # standard errors


def test_draws_are_independent_from_pixel_to_pixel():
    images = np.full((1, 256, 256, 1), 0.5, np.float32)
    (draw,) = take(1, images, levels=None, batch_size=1, binarization="dynamic")
    flat = draw.ravel()
    for lag in (1, 2, 3, 4, 8, 256):
        correlation = np.corrcoef(flat[lag:], flat[:-lag])[0, 1]
        assert abs(correlation) < 4.5 / np.sqrt(flat.size - lag)  # standard errors


@pytest.mark.parametrize("binarization", ["static", "threshold"])
def test_fixed_binarization_is_the_same_in_every_epoch_and_run(binarization):
    fixed, levels = binarize_fixed(GREY, 256, binarization, "train")
    assert levels == 2
    expected = {image.tobytes() for image in fixed}
    for seed in (1, 2):
        seen = np.concatenate(take(10, binarization=binarization, seed=seed))
        assert {image.tobytes() for image in seen} == expected


def test_the_images_are_captured_and_not_copied_into_the_graph():
    """A data set of 8 MB must not appear in the graph of the function that gathers from it."""
    images = np.zeros((100, 283, 283, 1), np.uint8)
    batches = training_batches(images, levels=256, batch_size=5, seed=1, binarization="none")
    functions = [
        function.function.graph.as_graph_def().ByteSize()
        for dataset in ancestors(batches)
        for function in dataset._functions()
    ]
    assert functions
    assert max(functions) < 100_000


def ancestors(dataset):
    yield dataset
    for parent in dataset._inputs():
        yield from ancestors(parent)


@pytest.mark.parametrize("size", [1, 5, 23, 100])
def test_evaluation_has_every_image_in_order(size):
    batches = evaluation_batches(GREY, size, levels=256)
    assert batches.cardinality() == steps_per_epoch(23, size)
    for _ in range(2):
        seen = [batch.numpy() for batch in batches]
        assert [len(batch) for batch in seen[:-1]] == [size] * (len(seen) - 1)
        np.testing.assert_array_equal(np.concatenate(seen), to_unit(GREY, 256))


def test_evaluation_of_floats_and_of_binary_images():
    floats = to_unit(GREY, 256)
    np.testing.assert_array_equal(np.concatenate(list(evaluation_batches(floats, 10))), floats)
    binary, levels = binarize_fixed(GREY, 256, "dynamic", "test")
    seen = np.concatenate(list(evaluation_batches(binary, 10, levels=levels)))
    np.testing.assert_array_equal(seen, binary.astype(np.float32))


@pytest.mark.parametrize(
    ("images", "kwargs", "message"),
    [
        (GREY, {"binarization": "dynamc"}, r"'dynamc'\. Did you mean 'dynamic'\?$"),
        (GREY, {"batch_size": 0}, r"batch_size must be at least 1\. Received: 0\.$"),
        (GREY, {"start_epoch": -1}, r"start_epoch must not be negative\. Received: -1\.$"),
        (GREY, {"start_step": -1}, r"at least 0 and below 5, .* Received: -1\.$"),
        (GREY, {"start_step": 5}, r"at least 0 and below 5, .* Received: 5\.$"),
        (GREY, {"levels": None}, r"Received: uint8 with levels=None\.$"),
        (GREY[:0], {}, r"at least one image\. Received: shape \(0, 3, 5, 1\)\.$"),
        (GREY[..., 0], {}, r"shape \[N, H, W, C\]\. Received: shape \(23, 3, 5\)\.$"),
        (GREY.astype(int), {}, r"Received: int64 with levels=256\.$"),
    ],
)
def test_wrong_arguments_are_refused(images, kwargs, message):
    error = UserError if "binarization" in kwargs else ValueError
    with pytest.raises(error, match=message):
        take(1, images, **kwargs)
    if not {"binarization", "start_epoch", "start_step"} & set(kwargs):
        settings = {"levels": 256, "batch_size": 5} | kwargs
        with pytest.raises(ValueError, match=message):
            evaluation_batches(images, settings["batch_size"], levels=settings["levels"])
