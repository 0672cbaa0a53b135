"""Normalizing-flow variational autoencoders: TFP bijectors, Keras 3 models, SavedModels.

Importing the package loads neither TensorFlow nor Keras; its parts do when they are asked for.
"""

from __future__ import annotations

from typing import Any

from tfp_flowvae import _keras_objects
from tfp_flowvae._lazy import lazy
from tfp_flowvae._version import __version__

_LAZY = {
    "FlowDensity": "models",
    "FlowDistribution": "distributions",
    "FlowVAE": "models",
    "NonFiniteError": "errors",
    "Objective": "models",
    "TrainConfig": "runs",
    "evaluate": "evaluation.evaluate",
    "export": "saving",
    "export_distribution": "saving",
    "load": "saving",
    "load_distribution": "saving",
    "make_flow": "flows",
    "outlier_scores": "evaluation.outliers",
    "plot_density": "evaluation.density_plot",
    "plot_flow": "evaluation.flow_plot",
    "register_base": "distributions",
    "register_flow": "flows",
    "register_likelihood": "likelihoods",
    "register_network": "networks",
    "register_preset": "runs.presets",
}
_PACKAGES = ("bijectors", "distributions", "flows", "likelihoods", "models", "networks", "testing")

__all__ = [*_LAZY, *_PACKAGES, "__version__"]

_get = lazy(__name__, _LAZY)


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        import importlib

        return importlib.import_module(f"{__name__}.{name}")
    return _get(name)


_keras_objects.let_keras_find_them()
