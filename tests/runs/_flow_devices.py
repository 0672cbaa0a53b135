"""Trains a flow of images under strategies and writes what came of it: `test_flow_devices.py`.

    python _flow_devices.py STRATEGY[,STRATEGY...] DEQUANTIZE OUTPUT

With `mirrored` the process has two logical CPU devices. As many processes as a cluster has workers
run this file, each with its own `TF_CONFIG`.
"""

from __future__ import annotations

import hashlib
import json
import pathlib
import sys

import numpy as np

# 43 images in batches of 20: two devices get 10 and 10, 10 and 10, 1 and 2.
SIZES = {"train": 43, "valid": 13, "test": 9}
LEVELS, SHAPE = 5, (4, 4, 1)


def run(strategy, dequantize):
    from tfp_flowvae.data import ImageSplits
    from tfp_flowvae.runs import TrainConfig
    from tfp_flowvae.runs.flow_session import FlowSession

    rng = np.random.default_rng(0)
    images = {
        split: rng.integers(0, LEVELS, [size, *SHAPE]).astype("uint8")
        for split, size in SIZES.items()
    }
    config = TrainConfig(
        model="flow",
        flow="glow:levels=1,steps=2,width=8",
        dequantize=dequantize,
        epochs=3,
        batch_size=20,
        learning_rate=1e-3,
        clip_norm=10.0,
        seed=1,
    )
    session = FlowSession(config, ImageSplits("images", **images, levels=LEVELS), strategy)
    weights = session.model.trainable_weights  # those of every ActNorm among them
    start = _digests(strategy, weights)
    session.fit(0)
    return {
        "start": start,
        "end": _digests(strategy, weights),
        "metrics": session.evaluate(),
        "history": [
            {name: value for name, value in row.items() if name != "seconds"}
            for row in session.history.rows
        ],
        "weights": [float(weight.numpy().sum()) for weight in weights],
    }


def _digests(strategy, variables):
    """One of the values of the variables for each device of this process."""
    copies = [
        strategy.experimental_local_results(v.value) if strategy else (v.value,) for v in variables
    ]
    return [
        hashlib.sha256(b"".join(np.asarray(copy).tobytes() for copy in device)).hexdigest()
        for device in zip(*copies, strict=True)
    ]


def main(names, dequantize, output):
    names = names.split(",")
    if "mirrored" in names:
        import tensorflow as tf

        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * 2
        )
    from tfp_flowvae.training.strategy import make_strategy

    results = {name: run(make_strategy(name), dequantize) for name in names}
    pathlib.Path(output).write_text(json.dumps(results))


if __name__ == "__main__":
    main(*sys.argv[1:])
