"""The pictures have the right sizes and pixels for every kind of image."""

import numpy as np
import pytest
from PIL import Image

from tfp_flowvae.evaluation.plots import (
    image_grid,
    save_reconstructions,
    save_samples,
    save_training,
)


@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 28, 1), (64, 64, 3), (5, 9, 3), (1, 1, 1)])
@pytest.mark.parametrize("count", [1, 5, 16])
def test_grid_holds_every_image(shape, count):
    values = np.linspace(0.1, 1.0, count, dtype=np.float32)
    images = np.ones((count, *shape), np.float32) * values[:, None, None, None]
    grid = image_grid(images)
    assert grid.dtype == np.uint8
    assert grid.shape[2] == 3
    found = set(np.unique(grid)) - {255}
    assert found == set(np.round(values * 255).astype(np.uint8)) - {255}


def test_grid_keeps_colours_and_orientation():
    image = np.zeros((1, 8, 8, 3), np.float32)
    image[0, :4, 4:] = (1.0, 0.5, 0.0)  # top right
    grid = image_grid(image)[4:-4, 4:-4]
    half, quarter = grid.shape[0] // 2, grid.shape[0] // 4
    # A bicubic kernel looks two pixels, a quarter of this image, to either side.
    assert (grid[:quarter, -quarter:] == (255, 128, 0)).all()
    assert not grid[half + quarter :].any()
    assert not grid[:, :quarter].any()


def test_grid_magnifies_small_images_without_steps_and_leaves_large_ones_alone():
    ramp = np.linspace(0, 1, 8, dtype=np.float32)[:, None] * np.ones((1, 8, 1, 1), np.float32)
    row = image_grid(ramp)[40, 4:-4, 0].astype(int)
    assert (np.diff(row) >= 0).all()
    # A bicubic kernel keeps a line, here of 1/7 over 9 pixels, but for the rounding of two pixels
    # and that of the image's own levels, of which it makes slopes of 1.5 / 9 at most. Near the
    # margins it lacks two neighbours.
    assert np.abs(np.diff(row[18:-18]) - 255 / 7 / 9).max() < 1 + 1.5 / 9
    large = np.random.default_rng(0).integers(0, 256, (1, 72, 80, 3)).astype(np.uint8)
    np.testing.assert_array_equal(image_grid(large / 255)[4:-4, 4:-4], large[0])


def test_grid_clips_values_and_refuses_other_channels():
    assert image_grid(np.full((1, 8, 8, 1), 3.0)).max() == 255
    with pytest.raises(ValueError, match="1 or 3 channels"):
        image_grid(np.zeros((1, 8, 8, 2)))


def test_pictures_are_readable_files(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.random((7, 8, 8, 1))
    rows = [{"epoch": i + 1, "elbo": -9.0 / (i + 1), "kl": 1.0, "val_elbo": -10} for i in range(30)]
    densities = ("log_base", "log_posterior", "log_det", "log_prior")
    figures = {f"{name}{end}": 1.0 for name in densities for end in ("", "_std")}
    save_samples(tmp_path / "samples.png", images)
    save_reconstructions(tmp_path / "reconstructions.png", images, images)
    save_training(tmp_path / "training.png", rows)
    save_training(tmp_path / "one.png", rows[:1])
    save_training(tmp_path / "diagnosed.png", [{**row, **figures} for row in rows])
    for file in tmp_path.iterdir():
        with Image.open(file) as picture:
            assert np.ptp(np.asarray(picture.convert("L"))) > 0, f"{file.name} is blank"
