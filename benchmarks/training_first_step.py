"""Time to the first step: from the start of a fresh process to the end of step 1.

Run as a script this is that process: it imports, builds and compiles what `train.py` does, on
synthetic images of MNIST's shape, and prints what it found as JSON. Several steps may be one
program, and then only the end of the last of them can be seen: the others' time, as the next
program of as many steps shows it, is taken off.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from training_cases import BATCH, CASES, Options, Row, synthetic_images

from tfp_flowvae.runs.presets import PRESETS

_LONG = {"planar-80": "planar:80", "householder-80": "householder:80"}
NAMES = (*PRESETS, *_LONG)
COLUMNS = ("name", "seconds", "first_program_s", "steps_in_it", "step_ms", "target_s", "met")


def measure(name: str, options: Options) -> list[Row]:
    """The fastest of `turns` fresh processes (1), on data of `steps` batches of 100 (100)."""
    steps, turns = options.steps or 100, options.turns or 1
    with tempfile.TemporaryDirectory() as folder:
        images = 255 * synthetic_images(steps * BATCH, seed=0)
        path = Path(folder) / "images.npz"
        np.savez(path, train=images, valid=images[:BATCH], test=images[:BATCH])
        found = [_in_new_process(name, path) for _ in range(turns)]
    row: Row = {"name": name, **min(found, key=lambda one: one["seconds"])}
    target = 20.0 if name in _LONG else 15.0
    row |= {"turns": turns, "target_s": target, "met": row["seconds"] <= target}
    return [row]


def _values(name: str) -> dict[str, Any]:
    """Fields of `TrainConfig` but for the data set."""
    if name in _LONG:
        return {**CASES["none"].values, "flow": _LONG[name]}
    return {**PRESETS[name].values, "diagnostics": False}


def _in_new_process(name: str, images: Path) -> Row:
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    start = time.time()
    command = [sys.executable, __file__, name, str(images), repr(start)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(f"The process for {name} failed:\n{done.stderr}")
    found: Row = json.loads(done.stdout.splitlines()[-1])
    return found


def _first_step(name: str, path: str, start: float) -> Row:
    """What the new process does; `start` is when it was started, in seconds since 1970."""
    from tfp_flowvae._quiet import import_tensorflow
    from tfp_flowvae.data import load_images
    from tfp_flowvae.runs import TrainConfig

    config = TrainConfig.from_mapping({**_values(name), "dataset": path}, source="the case")
    import_tensorflow()
    splits = load_images(path)
    import keras
    from training_fit import compiled_model

    from tfp_flowvae.data import steps_per_epoch, training_batches

    model = compiled_model(config, splits)
    ends: list[tuple[float, int]] = []

    class Watch(keras.callbacks.Callback):
        """Notes when the first two programs end, and after which step of their epoch."""

        def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
            float((logs or {})["loss"])  # computed, not only on its way
            ends.append((time.time(), batch + 1))
            self.model.stop_training = len(ends) >= 2

    batches = training_batches(
        splits.train,
        levels=splits.levels,
        batch_size=config.batch_size,
        seed=0,
        binarization=config.binarization,
    )
    steps = steps_per_epoch(len(splits.train), config.batch_size)
    model.fit(
        batches, steps_per_epoch=steps, epochs=2, shuffle=False, callbacks=[Watch()], verbose=0
    )
    (first, in_first), (second, until_second) = ends[:2]
    in_second = until_second - in_first if until_second > in_first else until_second
    step = (second - first) / in_second
    return {
        "seconds": round(first - start - (in_first - 1) * step, 2),
        "first_program_s": round(first - start, 2),
        "steps_in_it": in_first,
        "step_ms": round(1e3 * step, 2),
    }


if __name__ == "__main__":
    print(json.dumps(_first_step(sys.argv[1], sys.argv[2], float(sys.argv[3]))))
