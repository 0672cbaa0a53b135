"""Lets Keras find the package's classes in a `.keras` file after a bare `import tfp_flowvae`.

Keras finds a class of another package by its registered name, which exists once the class's module
is imported. `import tfp_flowvae` imports neither Keras nor the classes, so that it takes no time.
Here each registered name gets a stand-in that imports the class when Keras asks for an object.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.util
import sys
from typing import Any

_PACKAGES = ("networks", "flows", "distributions", "likelihoods", "models")


class _StandIn:
    """Has the one method of a class that Keras calls when it reads a file."""

    def __init__(self, module: str, name: str) -> None:
        self._module, self._name = module, name

    def from_config(self, config: dict[str, Any]) -> Any:
        """The object that the class makes of the config."""
        return getattr(importlib.import_module(self._module), self._name).from_config(config)


def registered_names() -> dict[str, tuple[str, str]]:
    """From the registered name of each of the package's classes to its module and its name."""
    names = {}
    for package in _PACKAGES:
        module = importlib.import_module(f"tfp_flowvae.{package}")
        for name, part in module._LAZY.items():
            names[f"tfp_flowvae>{name}"] = (f"{module.__name__}.{part}", name)
    names["tfp_flowvae>PositiveScale"] = (
        "tfp_flowvae.bijectors.internal.keras_batch_norm",
        "PositiveScale",
    )
    # Two classes are called `Adopted`; the base is registered under a name of its own.
    names["tfp_flowvae>Adopted"] = ("tfp_flowvae.flows.adopted", "Adopted")
    names["tfp_flowvae>AdoptedBase"] = ("tfp_flowvae.distributions.adopted", "Adopted")
    return names


def let_keras_find_them() -> None:
    """Registers the stand-ins, now or as soon as Keras is imported."""
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
        """Keras's own spec, whose loader registers the stand-ins; None for other modules."""
        if fullname != "keras":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is None or spec.loader is None:
            return spec
        run = spec.loader.exec_module

        def run_and_register(module: Any) -> None:
            run(module)
            _register()

        spec.loader.exec_module = run_and_register  # type: ignore[method-assign]
        return spec
