"""The pictures: right sizes, right pixels, for every kind of image."""

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
    image = np.zeros((1, 2, 2, 3), np.float32)
    image[0, 0, 1] = (1.0, 0.5, 0.0)  # top right
    grid = image_grid(image)[2:-2, 2:-2]
    half = grid.shape[0] // 2
    assert tuple(grid[0, -1]) == (255, 128, 0)
    assert not grid[half:].any()
    assert not grid[:, :half].any()


def test_grid_clips_and_refuses():
    assert image_grid(np.full((1, 8, 8, 1), 3.0)).max() == 255
    with pytest.raises(ValueError, match="1 or 3 channels"):
        image_grid(np.zeros((1, 8, 8, 2)))


def test_pictures_open(tmp_path):
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
