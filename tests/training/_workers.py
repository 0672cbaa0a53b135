"""Trains a small model under a strategy and writes what came of it as JSON: `test_strategy.py`.

As many processes as the strategy has workers run this file, each with its own `TF_CONFIG`:

    python _workers.py STRATEGY[,STRATEGY...] CASE OUTPUT

With `mirrored` the process has two logical CPU devices.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import pathlib
import sys
import time

CASES = {
    # 43 images in batches of 20: two devices get 10 and 10, 10 and 10, 1 and 2.
    "odd": {
        "size": 43,
        "clip": 5.0,
        "base": "tril",
        "objective": {"min_information": 2.0},
        "input_dropout": 0.3,
    },
    # And here, in the end, 0 and 1.
    "norm": {"size": 41, "norm": "batch", "objective": {"bound": "dreg", "num_samples": 3}},
    "bernoulli": {"size": 45, "flow": "iaf:1,hidden=8", "prior": "realnvp:1,hidden=8"},
    "free-bits": {"size": 44, "objective": {"free_bits": 1.0, "num_samples": 2}},
    "endless": {"size": 45, "epochs": 1_000_000},
}
BATCH, LEVELS, SHAPE = 20, 17, (4, 4, 1)


def images(size, seed):
    import numpy as np

    return np.random.default_rng(seed).integers(0, LEVELS, (size, *SHAPE)).astype(np.uint8)


def build(case):
    import keras

    from tfp_flowvae import FlowVAE, Objective
    from tfp_flowvae.likelihoods import Bernoulli, Gaussian

    keras.utils.set_random_seed(0)
    # A Gaussian of grey levels draws the noise of dequantisation too.
    likelihood = Gaussian(levels=LEVELS) if "objective" in case else Bernoulli()
    net = f"mlp:8,norm={case.get('norm', 'none')}"
    vae = FlowVAE(
        image_shape=SHAPE,
        latent_size=3,
        encoder=net,
        posterior=f"{case.get('base', 'normal')}+{case.get('flow', 'none')}",
        prior=case.get("prior", "none"),
        decoder=net,
        likelihood=likelihood,
        objective=Objective(**case.get("objective", {})),
        seed=1,
        input_dropout=case.get("input_dropout", 0.0),
    )
    if "clip" in case:  # by an optimizer that, unlike Adam, sees it if all gradients are doubled
        optimizer = keras.optimizers.SGD(0.01, momentum=0.9, global_clipnorm=case["clip"])
    else:
        optimizer = keras.optimizers.Adam(0.01, use_ema=True)
    vae.compile(optimizer, jit_compile=False)
    return vae


def run(strategy, case, output):
    """Trains, evaluates, and says which numbers and which weights there are."""
    import keras

    from tfp_flowvae.data import evaluation_batches, training_batches
    from tfp_flowvae.evaluation import free_energy as evaluation
    from tfp_flowvae.training.callbacks import GradientNorm
    from tfp_flowvae.training.strategy import any_worker, is_chief, shared_batches

    class Progress(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            pathlib.Path(f"{output}.epoch").write_text(str(epoch))

    evaluation.EVALUATION_BATCH = BATCH
    valid = images(33, seed=1)
    with strategy.scope() if strategy else contextlib.nullcontext():
        vae = build(case)
    batches = training_batches(
        images(case["size"], seed=0),
        levels=LEVELS,
        batch_size=BATCH,
        seed=0,
        binarization="none" if "objective" in case else "dynamic",
    )
    history = vae.fit(
        shared_batches(strategy, batches),
        steps_per_epoch=-(-case["size"] // BATCH),
        epochs=case.get("epochs", 3),
        # As tf.data deals them out by itself.
        validation_data=evaluation_batches(valid, BATCH, levels=LEVELS),
        callbacks=[Progress(), GradientNorm()],
        verbose=0,
        shuffle=False,
    ).history
    found = evaluation.free_energy(vae, valid, LEVELS, seed=0)
    return {
        "history": history,
        "free_energy": found,
        "steps": int(vae.optimizer.iterations.numpy()),
        "weights": [float(weight.numpy().sum()) for weight in vae.trainable_weights],
        "digests": digests(strategy, vae),
        "chief": is_chief(strategy),
        # Only the chief holds up its hand, then nobody does.
        "any": [any_worker(strategy, is_chief(strategy)), any_worker(strategy, False)],
    }


def digests(strategy, vae):
    """One of the weights and the optimizer's state, for each device of this process."""
    import numpy as np

    variables = [*vae.trainable_weights, *vae.optimizer.variables]
    copies = [
        strategy.experimental_local_results(v.value) if strategy else (v.value,) for v in variables
    ]
    return [
        hashlib.sha256(b"".join(np.asarray(copy).tobytes() for copy in device)).hexdigest()
        for device in zip(*copies, strict=True)
    ]


def main(names, case, output):
    names = names.split(",")
    if "mirrored" in names:
        import tensorflow as tf

        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * 2
        )
    from tfp_flowvae.training.strategy import make_strategy

    results = {}
    for name in names:
        started = time.perf_counter()
        results[name] = run(make_strategy(name), CASES[case], output)
        results[name]["seconds"] = time.perf_counter() - started
    pathlib.Path(output).write_text(json.dumps(results))


if __name__ == "__main__":
    main(*sys.argv[1:])
