# %% [markdown]
# # The density of a table

# %% [markdown]
"""The density of five measurements of 569 cell nuclei, by `FlowDensity` and Keras's `fit`.

scikit-learn bundles the Wisconsin diagnostic data (Street et al. 1993), measurements of tumour
cells. The density of five of its columns is fitted by maximum likelihood,

    log p(x) = log N(z0; 0, I) + log |det dz0/dx|.

What to see in the picture: the samples of the flow (orange) lie where the data (black) lie, also on
the thin curve of radius and area, which is no ellipse. No sample is below 0. The table gives the
mean log-density of the rows that no model has seen.

    python examples/tabular.py --output tabular.png
"""

# %%
from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from _common import new_figure, run
from sklearn.datasets import load_breast_cancer

import tfp_flowvae as fv

# %% [markdown]
# ## The models
#
# All columns are positive, so the lower bound 0 is given to a model. Densities are in the units of
# the data. A masked autoregressive flow (MAF) is compared with the flow "lu". That is a linear map,
# so its density is the Gaussian with full covariance: of the columns as they are, and of the
# columns within the bound.

# %%
COLUMNS = ("mean radius", "mean texture", "mean area", "mean smoothness", "mean compactness")
MODELS: dict[str, dict[str, Any]] = {
    "Gaussian": {"flow": "lu"},
    "Gaussian, bound 0": {"flow": "lu", "bounds": (0.0, None)},
    "MAF, bound 0": {"flow": "maf:5,hidden=64", "bounds": (0.0, None)},
}


# %% [markdown]
# ## The data


# %%
def table(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows to train on, to validate with and to test, `[N, 5]` each, in a random order."""
    bundled = load_breast_cancer()
    chosen = [list(bundled.feature_names).index(name) for name in COLUMNS]
    cells = np.random.default_rng(seed).permutation(bundled.data[:, chosen].astype(np.float32))
    return cells[:369], cells[369:469], cells[469:]


# %% [markdown]
# ## Fit
#
# `adapt` computes the mean and scale of the columns. Training stops early on a validation set.


# %%
def fit(model: dict[str, Any], steps: int, seed: int) -> fv.FlowDensity:
    """One of `MODELS`, trained for at most `steps` steps."""
    keras.utils.set_random_seed(seed)
    train, valid, _ = table(seed)
    density = fv.FlowDensity(event_size=len(COLUMNS), seed=seed, **model)
    density.adapt(train)
    density.compile(keras.optimizers.Adam(2e-3))
    batches = tf.data.Dataset.from_tensor_slices(train).shuffle(len(train), seed=seed)
    density.fit(
        batches.repeat().batch(123),
        steps_per_epoch=15,
        epochs=-(-steps // 15),
        validation_data=(valid,),
        callbacks=[keras.callbacks.EarlyStopping(patience=10, restore_best_weights=True)],
        shuffle=False,  # the dataset does it
        verbose=0,
    )
    return density


# %% [markdown]
# ## Compare


# %%
def main(output: Path, steps: int, seed: int = 0) -> dict[str, tuple[float, float]]:
    """Fits every model, draws the picture, and returns each one's score.

    Returns:
      The mean log-density of the test rows, in nats, and its standard error, by name.
    """
    test, scores = table(seed)[2], {}
    for name, model in MODELS.items():
        density = fit(model, steps, seed)
        log_prob = density.log_prob(test).numpy()
        scores[name] = float(log_prob.mean()), float(log_prob.std() / np.sqrt(len(test)))
        print(f"{name:18} {scores[name][0]:7.2f} +- {scores[name][1]:.2f} nats")
    draw(output, np.concatenate(table(seed)), density.sample(569, seed=seed).numpy())
    return scores


def draw(output: Path, data: np.ndarray, samples: np.ndarray) -> None:
    """Each pair of columns, and each column on the diagonal."""
    size, low, high = len(COLUMNS), data.min(axis=0), data.max(axis=0)
    edge = 0.05 * (high - low)
    figure, axes = new_figure(10.0, 10.0, size, size)
    for row in range(size):
        for column in range(size):
            panel = axes[row, column]
            if column > row:
                panel.set_visible(False)
            elif column == row:
                bins = np.linspace(low[row], high[row], 30)
                panel.hist(data[:, row], bins, color="0.3", label="data")
                panel.hist(
                    samples[:, row], bins, histtype="step", color="C1", lw=1.8, label="samples"
                )
                panel.set_yticks([])
            else:
                panel.scatter(data[:, column], data[:, row], s=4, color="0.2", lw=0)
                panel.scatter(samples[:, column], samples[:, row], s=4, color="C1", lw=0, alpha=0.7)
                panel.set_ylim(low[row] - edge[row], high[row] + edge[row])
            panel.set_xlim(low[column] - edge[column], high[column] + edge[column])
            panel.set_xlabel(COLUMNS[column] if row == size - 1 else "")
            panel.set_ylabel(COLUMNS[row] if column == 0 and row else "")
            panel.tick_params(labelleft=column == 0 and row > 0, labelbottom=row == size - 1)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="upper right", fontsize=14)
    figure.suptitle("Five measurements of cell nuclei, and as many samples of the flow")
    figure.savefig(output, dpi=90)


# %%
if __name__ == "__main__":
    run(main, __doc__, "tabular.png", steps=1500)
