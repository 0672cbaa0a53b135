"""The importance-weighted negative log-likelihood: seconds and memory for a test set of 10,000."""

from __future__ import annotations

import time
from typing import Any, cast

import numpy as np
from training_cases import CASES, Options, Row, synthetic_images
from training_workers import in_fresh_process, peak_mb

NAMES = tuple(CASES)
TEST_SET = 10_000
_TARGET_S = 900.0  # of the VAE without flows
COLUMNS = (
    "name",
    "images",
    "samples",
    "compile_s",
    "seconds",
    "extrapolated_s",
    "peak_mb",
    "grown_mb",
    "target_s",
    "met",
)


class _Watched:
    """Images that note when each batch of them is asked for."""

    def __init__(self, images: np.ndarray) -> None:
        self._images = images
        self.asked: list[float] = []

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, where: slice) -> np.ndarray:
        self.asked.append(time.perf_counter())
        return self._images[where]


def measure(name: str, options: Options) -> list[Row]:
    """The row of one case, from a process of its own, whose peak memory is this one's alone.

    For `images` (500) with `samples` each. `seconds` is what they took, compilation included;
    `extrapolated_s`, there where they are fewer, what 10,000 would have taken at the same rate.
    """
    images = options.images or 500
    if images < 200:
        raise SystemExit(f"nll needs --images of at least 200, for a rate. Received: {images}.")
    row: Row = {"name": name, **in_fresh_process(_measure, name, images, options.samples)}
    if name == "none":
        total = row["seconds"] if images >= TEST_SET else row["extrapolated_s"]
        row |= {"target_s": _TARGET_S, "met": total <= _TARGET_S}
    return [row]


def _measure(name: str, images: int, samples: int) -> Row:
    from training_fit import case_model

    from tfp_flowvae.data import ImageSplits
    from tfp_flowvae.models.importance import IMAGES, importance_estimates
    from tfp_flowvae.training.xla import xla_suits

    few, test = synthetic_images(200, seed=0), _Watched(synthetic_images(images, seed=1))
    model = case_model(name, ImageSplits("yardstick", few, few, few, levels=2))
    before = peak_mb()
    found = importance_estimates(
        lambda x, s, seed: model.elbo_terms(x, s, seed).elbo,
        cast(Any, test),
        samples,
        seed=0,
        jit_compile=xla_suits(model),
    ).nll
    end, peak = time.perf_counter(), peak_mb()
    if found.shape != (images,) or not np.isfinite(found).all():
        raise RuntimeError(f"No likelihood for every image. Received: {found}.")
    start, second, *_ = test.asked
    # The first batch waits for the compilation.
    per_batch = (end - second) / (len(test.asked) - 1)
    row: Row = {
        "images": images,
        "samples": samples,
        "compile_s": round(second - start - per_batch, 2),
        "seconds": round(end - start, 2),
    }
    if images < TEST_SET:
        missing = (TEST_SET - images) / IMAGES
        row["extrapolated_s"] = round(end - start + missing * per_batch, 1)
    return {**row, "peak_mb": round(peak), "grown_mb": round(peak - before)}
