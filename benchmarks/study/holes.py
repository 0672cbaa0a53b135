"""Holes of the aggregated posterior q(z) = E_x[q(z|x)]: where the prior has mass and it has none.

Two looks at draws of both: how log p(z) is distributed under either, and how often a classifier
tells one from the other. At one half the decoder is asked, in sampling, for nothing that it has
not seen in training.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.neural_network import MLPClassifier

# Of log p(z), in steps of 2.5%.
LEVELS = np.linspace(0.0, 1.0, 41)


def told_apart(encoded: np.ndarray, sampled: np.ndarray, seed: int = 0) -> float:
    """How often a small network says rightly which of the two a draw is from.

    Args:
      encoded: `[N, D]`, one draw of q(z|x) for each of N images.
      sampled: `[N, D]`, draws of p(z).
      seed: Of the network's start and batches.

    Returns:
      The share of right answers among the second half of either, having learned from the first.
    """
    half = len(encoded) // 2
    z = [np.concatenate([encoded[part], sampled[part]]) for part in _halves(half)]
    scale = z[0].std(axis=0) + 1e-6
    labels = [np.repeat([1, 0], len(part) // 2) for part in z]
    network = MLPClassifier((64, 64), alpha=1e-2, early_stopping=True, random_state=seed)
    return float(network.fit(z[0] / scale, labels[0]).score(z[1] / scale, labels[1]))


def _halves(half: int) -> tuple[slice, slice]:
    return slice(0, half), slice(half, 2 * half)


def holes(encoded: np.ndarray, sampled: np.ndarray, log_priors: Any) -> dict[str, Any]:
    """Both looks, for a result's diagnostics.

    Args:
      encoded: `[N, D]`, one draw of q(z|x) for each of N images.
      sampled: `[N, D]`, draws of p(z).
      log_priors: From `[N, D]` to log p(z) `[N]`, in nats.
    """
    quantiles = {
        name: [round(float(q), 2) for q in np.quantile(log_priors(z), LEVELS)]
        for name, z in (("encoded", encoded), ("sampled", sampled))
    }
    return {
        "told_apart": round(told_apart(encoded, sampled), 4),
        "log_prior_encoded": quantiles["encoded"],
        "log_prior_sampled": quantiles["sampled"],
    }
