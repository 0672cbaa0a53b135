# %% [markdown]
# # A prior and a flow of your own

# %% [markdown]
"""A flow VAE whose prior and posterior flow are built in TensorFlow Probability.

The prior is a mixture of Student's t distributions with three degrees of freedom. It has heavy
tails, which a short flow over a normal distribution does not have. The posterior's flow is a
scaling of its own and an IAF. Both hold `tf.Variable`s. `FlowVAE` and `flows.Adopted` give these
variables to Keras, which trains them, and `export` writes them to disk.

What to see: the variables have moved from where they started, and the exported file computes the
same numbers as the model. The picture shows digits drawn from the exported SavedModel, which plain
TensorFlow loads.

    python examples/own_prior.py --output own_prior.png
"""

# %%
from __future__ import annotations

import tempfile
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from _common import run
from sklearn.datasets import load_digits
from tensorflow_probability import bijectors as tfb
from tensorflow_probability import distributions as tfd

import tfp_flowvae as fv
from tfp_flowvae import flows
from tfp_flowvae.evaluation.plots import save_samples

# %%
D, COMPONENTS = 8, 10


# %% [markdown]
# ## The parts
#
# Each part is a function without arguments that returns a distribution or a bijector with
# variables. The `.keras` file keeps the function's registered name.


# %%
# Registered, so that the `.keras` file can name it; the function is what the file keeps.
@keras.saving.register_keras_serializable(package="examples")
def heavy_tails() -> tfd.Distribution:
    """A mixture of Student's t distributions over vectors of size D."""
    loc = tf.Variable(tf.random.stateless_normal([COMPONENTS, D], seed=[0, 1]), name="loc")
    scale = tfp.util.TransformedVariable(tf.ones([COMPONENTS, D]), tfb.Softplus(), name="scale")
    logits = tf.Variable(tf.zeros(COMPONENTS), name="logits")
    return tfd.MixtureSameFamily(
        tfd.Categorical(logits=logits), tfd.Independent(tfd.StudentT(3.0, loc, scale), 1)
    )


@keras.saving.register_keras_serializable(package="examples")
def stretch() -> tfb.Bijector:
    """A factor for each dimension."""
    return tfb.Scale(log_scale=tf.Variable(tf.zeros(D), name="log_scale"))


# %% [markdown]
# ## The model


# %%
def build(seed: int) -> fv.FlowVAE:
    """The model, with fresh weights."""
    keras.utils.set_random_seed(seed)
    return fv.FlowVAE(
        image_shape=(8, 8, 1),
        latent_size=D,
        encoder="mlp:128",
        posterior=flows.Stack([flows.Adopted(stretch), flows.IAF(1, hidden=(64,))]),
        prior=heavy_tails,
        decoder="mlp:128",
        seed=seed,
    )


# %% [markdown]
# ## Train, export, load


# %%
def main(output: Path, steps: int, seed: int = 0) -> dict[str, float]:
    """Trains, exports, loads, draws.

    Returns:
      The mean ELBO of the first 100 digits before and after, in nats, what the export and the
      loaded model say of it, and the largest change of one of the prior's variables.
    """
    digits = (load_digits().images[..., np.newaxis] >= 8).astype(np.float32)
    model = build(seed)
    distribution = model.prior()
    started = [variable.numpy() for variable in distribution.trainable_variables]
    found = {"before": float(np.mean(model.elbo(digits[:100], seed=seed)))}
    model.compile(keras.optimizers.Adam(2e-3))
    batches = tf.data.Dataset.from_tensor_slices(digits).repeat()
    batches = batches.shuffle(len(digits), seed=seed).batch(100, drop_remainder=True)
    model.fit(batches, steps_per_epoch=steps, verbose=0, shuffle=False)
    found["after"] = float(np.mean(model.elbo(digits[:100], seed=seed)))
    found["moved"] = max(
        float(np.max(np.abs(variable - start)))
        for variable, start in zip(distribution.trainable_variables, started, strict=True)
    )
    with tempfile.TemporaryDirectory() as folder:
        fv.export(model, folder)
        exported = tf.saved_model.load(folder)
        found["exported"] = float(np.mean(exported.elbo(digits[:100], seed)["elbo"]))
        found["loaded"] = float(np.mean(fv.load(folder).elbo(digits[:100], seed=seed)))
        save_samples(output, exported.sample(64, seed)["images"].numpy())
    for name, value in found.items():
        print(f"{name:9} {value:8.3f}")
    return found


# %%
if __name__ == "__main__":
    run(main, __doc__, "own_prior.png", steps=1000)
