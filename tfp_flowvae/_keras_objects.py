"""Lets Keras find the package's classes in a `.keras` file after a bare `import tfp_flowvae`.

Keras looks up a class by its registered name, and a class is registered when its module is
imported. `import tfp_flowvae` imports neither Keras nor the classes, so that it is fast. This
module registers a stand-in under each name, which imports the class when Keras makes an object of
it.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.util
import sys
from typing import Any

_PACKAGES = ("networks", "flows", "distributions", "likelihoods", "models")


class _StandIn:
    """Has `from_config`, the only method of a class that Keras calls when it reads a file."""

    def __init__(self, module: str, name: str) -> None:
        self._module, self._name = module, name

    def from_config(self, config: dict[str, Any]) -> Any:
        """Imports the class and returns its object of this config."""
        return getattr(importlib.import_module(self._module), self._name).from_config(config)


def registered_names() -> dict[str, tuple[str, str]]:
    """Returns the module and the name of each class of the package, by its registered name."""
    names = {}
    for package in _PACKAGES:
        module = importlib.import_module(f"tfp_flowvae.{package}")
        for name, part in module._LAZY.items():
            names[f"tfp_flowvae>{name}"] = (f"{module.__name__}.{part}", name)
    names["tfp_flowvae>PositiveScale"] = (
        "tfp_flowvae.bijectors.internal.keras_batch_norm",
        "PositiveScale",
    )
    # Two classes are called `Adopted`, so the base is registered under another name.
    names["tfp_flowvae>Adopted"] = ("tfp_flowvae.flows.adopted", "Adopted")
    names["tfp_flowvae>AdoptedBase"] = ("tfp_flowvae.distributions.adopted", "Adopted")
    return names


def let_keras_find_them() -> None:
    """Registers the stand-ins now if Keras is imported, or else when it is."""
    if "keras" in sys.modules and hasattr(sys.modules["keras"], "saving"):
        _register()
    elif not any(isinstance(finder, _WhenKerasComes) for finder in sys.meta_path):
        sys.meta_path.insert(0, _WhenKerasComes())


def _register() -> None:
    import keras

    objects = keras.saving.get_custom_objects()
    for registered, (module, name) in registered_names().items():
        objects.setdefault(registered, _StandIn(module, name))


class _WhenKerasComes(importlib.abc.MetaPathFinder):
    """Registers the stand-ins at the end of the first `import keras`."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        """Returns Keras's spec with a loader that registers the stand-ins; None for other names.

        TensorFlow asks for the spec without importing Keras, so the finder stays until the import.
        """
        if fullname != "keras":
            return None
        sys.meta_path.remove(self)
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            sys.meta_path.insert(0, self)
        if spec is None or spec.loader is None:
            return spec
        run = spec.loader.exec_module

        def run_and_register(module: Any) -> None:
            sys.meta_path.remove(self)
            run(module)
            _register()

        spec.loader.exec_module = run_and_register  # type: ignore[method-assign]
        return spec
