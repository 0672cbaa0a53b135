"""The check that the installed Keras can run this package."""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
from pathlib import Path


class BackendError(ImportError):
    """Keras runs on another backend than TensorFlow, or is Keras 2."""


def check_backend() -> None:
    """Checks, without importing Keras, that it is Keras 3 on TensorFlow.

    It is called before the first import of Keras, whose own error names neither the cause nor the
    remedy.

    Raises:
      BackendError: If it is not.
    """
    complaint = _complaint()
    if complaint is not None:
        raise BackendError(complaint)


def _complaint() -> str | None:
    if os.environ.get("TF_USE_LEGACY_KERAS", "").lower() in {"1", "true"}:
        return (
            "tfp_flowvae needs Keras 3, but an environment variable selects Keras 2: unset "
            "TF_USE_LEGACY_KERAS. Received: TF_USE_LEGACY_KERAS="
            f"{os.environ['TF_USE_LEGACY_KERAS']}."
        )
    try:
        version = importlib.metadata.version("keras")
    except importlib.metadata.PackageNotFoundError:
        return "tfp_flowvae needs Keras 3, and no keras is installed: pip install 'keras>=3'."
    if int(version.split(".")[0]) < 3:
        return (
            f"tfp_flowvae needs Keras 3: pip install 'keras>=3'. Received: keras {version} is "
            "installed."
        )
    backend, origin = _backend()
    if backend != "tensorflow":
        return (
            "tfp_flowvae needs Keras on its TensorFlow backend: set KERAS_BACKEND=tensorflow "
            f"before Python starts. Received: the backend {backend!r}, from {origin}."
        )
    return None


def _backend() -> tuple[str, str]:
    """Returns the backend that Keras uses or would use, and where it is set."""
    if "keras" in sys.modules and hasattr(sys.modules["keras"], "config"):
        return sys.modules["keras"].config.backend(), "Keras, which is already imported"
    if os.environ.get("KERAS_BACKEND"):
        return os.environ["KERAS_BACKEND"], "the environment variable KERAS_BACKEND"
    config = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras")) / "keras.json"
    try:
        settings = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # Keras too ignores a file that it cannot read.
        return "tensorflow", "Keras's default"
    return settings.get("backend", "tensorflow"), str(config)
