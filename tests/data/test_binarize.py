from __future__ import annotations

import hashlib

import numpy as np
import pytest

from tfp_flowvae.data import BINARIZATIONS, binarize_fixed, to_unit
from tfp_flowvae.errors import UserError

LEVELS = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(4000, axis=0)


@pytest.mark.parametrize("how", ["static", "dynamic"])
@pytest.mark.parametrize(("images", "levels"), [(LEVELS, 256), (to_unit(LEVELS, 256), None)])
def test_draws_have_the_intensity_as_probability(how, images, levels):
    binary, new_levels = binarize_fixed(images, levels, how, "train")
    assert (binary.dtype, new_levels, binary.shape) == (np.uint8, 2, images.shape)
    assert set(np.unique(binary)) == {0, 1}
    probability = np.arange(256) / 255
    frequency = binary.reshape(4000, 256).mean(axis=0)
    assert frequency[0] == 0
    assert frequency[255] == 1
    deviation = np.sqrt(probability * (1 - probability) / 4000)[1:255]
    scores = (frequency - probability)[1:255] / deviation
    # Each of the 254 scores is within 4.5 standard errors, and so is their standard deviation.
    assert np.abs(scores).max() < 4.5
    assert abs(scores.std() - 1) < 4.5 / np.sqrt(2 * 254)


def test_integers_and_floats_give_the_same_draw():
    one, _ = binarize_fixed(LEVELS, 256, "static", "test")
    two, _ = binarize_fixed(to_unit(LEVELS, 256), None, "static", "test")
    np.testing.assert_array_equal(one, two)


def test_the_draw_is_fixed():
    # Frozen: another draw would change every published figure.
    binary, _ = binarize_fixed(LEVELS[:5], 256, "static", "test")
    assert hashlib.sha256(binary.tobytes()).hexdigest()[:16] == "4cda2665c386b32d"


def test_each_split_has_its_own_draw():
    draws = [binarize_fixed(LEVELS, 256, "static", s)[0] for s in ("train", "valid", "test")]
    grey = draws[0][:, 8]
    for other in draws[1:]:
        correlation = np.corrcoef((grey - grey.mean(0)).ravel(), other[:, 8].ravel())[0, 1]
        assert abs(correlation) < 4.5 / np.sqrt(grey.size)  # standard errors


def test_the_draw_does_not_depend_on_how_it_is_cut_into_chunks(monkeypatch):
    whole, _ = binarize_fixed(LEVELS[:50], 256, "static", "train")
    monkeypatch.setattr("tfp_flowvae.data.binarize._CHUNK", 1000)
    pieces, _ = binarize_fixed(LEVELS[:50], 256, "static", "train")
    np.testing.assert_array_equal(whole, pieces)


def test_another_seed_is_another_draw():
    one, _ = binarize_fixed(LEVELS, 256, "static", "test")
    two, _ = binarize_fixed(LEVELS, 256, "static", "test", seed=7)
    assert (one != two).any()


def test_threshold():
    images = np.arange(17, dtype=np.uint8).reshape(1, 1, 17, 1)
    binary, levels = binarize_fixed(images, 17, "threshold", "test")
    assert levels == 2
    assert binary.ravel().tolist() == [0] * 9 + [1] * 8


def test_binary_images_are_unchanged():
    images = (LEVELS > 99).astype(np.uint8)
    for how in BINARIZATIONS:
        binary, levels = binarize_fixed(images, 2, how, "train")
        np.testing.assert_array_equal(binary, images)
        assert levels == 2


def test_none_returns_the_arguments():
    assert binarize_fixed(LEVELS, 256, "none", "test") == (LEVELS, 256)


def test_unknown_names_are_refused():
    with pytest.raises(UserError, match=r"static, dynamic.*'statc'\. Did you mean 'static'\?$"):
        binarize_fixed(LEVELS, 256, "statc", "test")
