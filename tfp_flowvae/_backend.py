"""Refuses, in one sentence, a Keras that cannot run this package."""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
from pathlib import Path


class BackendError(ImportError):
    """Keras runs on another backend than TensorFlow, or is Keras 2."""


def check_backend() -> None:
    """Raises `BackendError` if Keras is not Keras 3 on TensorFlow; imports nothing heavy.

    The modules that import Keras first call it before they do: Keras's own error would name neither
    the cause nor the way out. The command line calls it as well, and prints the sentence.
    """
    complaint = _complaint()
    if complaint is not None:
        raise BackendError(complaint)


def _complaint() -> str | None:
    if os.environ.get("TF_USE_LEGACY_KERAS", "").lower() in {"1", "true"}:
        return (
            "tfp_flowvae needs Keras 3, and the environment forces Keras 2: unset "
            f"TF_USE_LEGACY_KERAS. Received: TF_USE_LEGACY_KERAS="
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
    """The backend that Keras uses, or would use, and where that is said."""
    if "keras" in sys.modules and hasattr(sys.modules["keras"], "config"):
        return sys.modules["keras"].config.backend(), "the keras that is already imported"
    if os.environ.get("KERAS_BACKEND"):
        return os.environ["KERAS_BACKEND"], "the environment variable KERAS_BACKEND"
    config = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras")) / "keras.json"
    try:
        settings = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # no file, or one that Keras ignores too
        return "tensorflow", "Keras's default"
    return settings.get("backend", "tensorflow"), str(config)
