"""Sampling from the exported SavedModel: every prior, beside the same model's decoder alone."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any

from timing import alternate, as_row
from training_cases import CASES, LATENT, Options, Row, synthetic_images
from training_workers import in_fresh_process

from tfp_flowvae.distributions import BASES
from tfp_flowvae.flows import FLOWS

_REALNVP = CASES["realnvp-prior"].prior
# The yardstick's RealNVP; every other prior as its name alone makes it.
SPECS = {
    name: _REALNVP if name == "realnvp" else name
    for name in (
        *(name for name, flow in FLOWS.items() if flow.fast_density),
        *(name for name, base in BASES.items() if not base.posterior),
    )
}
NAMES = tuple(SPECS)
_TARGETS = {"realnvp": 1.3, "maf": 3.0}
COLUMNS = (
    "name",
    "images",
    "first_s",
    "minimum_ms",
    "median_ms",
    "maximum_ms",
    "decoder_ms",
    "ratio",
    "target",
    "met",
)


def measure(name: str, options: Options) -> list[Row]:
    """The row of one prior, from a process of its own: `images` (10,000), `turns` (7)."""
    images, turns = options.images or 10_000, options.turns or 7
    row = in_fresh_process(_measure, SPECS[name], images, turns)
    target = _TARGETS.get(name)
    verdict = {} if target is None else {"target": target, "met": row["ratio"] <= target}
    return [{"name": name, "prior": SPECS[name], "images": images, **row, **verdict}]


def _measure(prior: str, images: int, turns: int) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        sample, decode = _endpoints(prior, folder, images)
        timings = alternate({"sample": sample, "decode": decode}, turns, round_seconds=0.2)
    decoder = timings["decode"].minimum_ms
    ratio = round(timings["sample"].minimum_ms / decoder, 3)
    return {**as_row(timings["sample"]), "decoder_ms": round(decoder, 3), "ratio": ratio}


def _endpoints(prior: str, folder: str, images: int) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Calls of the two endpoints of the SavedModel."""
    import tensorflow as tf
    from training_fit import case_model

    from tfp_flowvae.data import ImageSplits
    from tfp_flowvae.saving import export

    few = synthetic_images(200, seed=0)
    splits = ImageSplits("yardstick", few, few, few, levels=2)
    model = case_model("none", splits, prior=prior)
    # A fresh flow is the identity, where an inverse by iteration would have nothing to do.
    for weight in model.prior_layer.trainable_weights:
        weight.assign(weight + tf.random.stateless_normal(weight.shape, [0, 1], stddev=0.05))
    export(model, folder)
    loaded = tf.saved_model.load(folder)
    z = tf.random.stateless_normal([images, LATENT], [0, 2])

    def shape_of(result: dict[str, tf.Tensor]) -> tuple[int, ...]:
        found = result["images"].numpy()
        if found.shape[0] != images:
            raise RuntimeError(f"Asked for {images} images. Received: shape {found.shape}.")
        return tuple(found.shape)

    return lambda: shape_of(loaded.sample(images, 0)), lambda: shape_of(loaded.decode(z))
