"""TensorFlow's import without its start-up chatter, and without what no run needs."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator

# A line of absl's C++ log, or what it says about itself before it is set up.
_CHATTER = re.compile(rb"[IWE]\d{4} |WARNING: All log messages before absl::InitializeLog")
# What Keras imports where it is installed, for wrappers and pictures of its own: two of the seven
# seconds in which a process gets ready.
_OPTIONAL = ("matplotlib", "sklearn")


def import_tensorflow() -> None:
    """Imports TensorFlow, TFP and Keras, for a process that is one run's.

    What their C++ parts log meanwhile is dropped, all else is shown. Some of them log before
    TensorFlow has read TF_CPP_MIN_LOG_LEVEL, straight to file descriptor 2, that this machine has
    no GPU and the like. Python warnings and tracebacks go through.

    To Keras, scikit-learn and Matplotlib are not installed; both can be imported after this.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    shown = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            with _absent(_OPTIONAL):
                import keras  # noqa: F401
                import tensorflow  # noqa: F401
                import tensorflow_probability  # noqa: F401
        finally:
            sys.stderr.flush()
            os.dup2(shown, 2)
            os.close(shown)
            held.seek(0)
            for line in held:
                if not _CHATTER.match(line):
                    os.write(2, line)


@contextlib.contextmanager
def _absent(names: tuple[str, ...]) -> Iterator[None]:
    """Makes an import of these packages fail within, but for those that are there already."""
    hidden = {name: None for name in names if name not in sys.modules}
    sys.modules.update(hidden)  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
