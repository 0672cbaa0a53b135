"""Images side by side, and charts that follow the reader's mode."""

import base64
import io
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from tfp_flowvae.evaluation.report.pictures import LARGEST, sprite, strip
from tfp_flowvae.evaluation.report.theme import THEME, chart


def opened(picture, kind):
    start = f"data:{kind};base64,"
    assert picture.uri.startswith(start)
    return base64.b64decode(picture.uri[len(start) :])


def pixels(picture, kind="image/png"):
    image = Image.open(io.BytesIO(opened(picture, kind)))
    assert image.size == (picture.width, picture.height)
    return np.asarray(image.convert("RGBA"))


def test_what_is_between_images_is_transparent():
    images = np.stack([np.full((28, 28, 1), level) for level in (0.0, 0.5, 1.0)])
    found = pixels(strip(images))
    assert set(np.unique(found[..., 3])) == {0, 255}
    assert set(np.unique(found[found[..., 3] == 255][:, 0])) == {0, 128, 255}
    # Three images of equal size, and nothing else, are opaque.
    row = found[found.shape[0] // 2, :, 3] == 255
    starts = np.flatnonzero(np.diff(row.astype(int)) == 1)
    assert len(starts) == 3
    assert len(set(np.diff(starts))) == 1


@pytest.mark.parametrize(("side", "cell"), [(8, 32), (28, 28), (200, LARGEST)])
def test_a_sprite_has_its_images_in_rows_without_gaps(side, cell):
    levels = np.arange(6) / 5
    images = np.ones((6, side, side, 1)) * levels[:, None, None, None]
    lossy = side > 32
    found = pixels(sprite(images, columns=3), "image/webp" if lossy else "image/png")
    assert found.shape[:2] == (2 * cell, 3 * cell)
    centres = found[cell // 2 :: cell, cell // 2 :: cell, 0].astype(int)
    # WebP is not exact; a flat grey differs by a few levels.
    assert np.abs(centres - np.round(255 * levels).reshape(2, 3)).max() <= 8 * lossy


def test_colours_are_kept_and_large_images_are_reduced():
    images = np.zeros((2, 100, 50, 3))
    images[1] = (1.0, 0.5, 0.0)
    found = pixels(sprite(images, columns=2), "image/webp")
    assert found.shape[:2] == (LARGEST, LARGEST)  # two images of half the width
    # WebP is not exact; a flat colour differs by a few levels.
    assert np.abs(found[32, 48, :3].astype(int) - (255, 128, 0)).max() < 8


def test_a_chart_follows_the_mode_and_needs_nothing_else():
    made = [chart(lambda axes: axes.plot([1, 2], [3, 4], color=THEME["c1"][0])) for _ in range(2)]
    assert made[0] == made[1]
    svg = opened(made[0], "image/svg+xml").decode()
    root = ET.fromstring(svg)
    assert root.tag.endswith("svg")
    style = root[0].text
    assert "prefers-color-scheme:dark" in style
    drawn = svg.replace(style, "")
    assert "var(--c1)" in drawn
    assert not re.findall(r"(?:stroke|fill): #", drawn)
    assert not re.findall(r"href=\"(?!#)", drawn)
