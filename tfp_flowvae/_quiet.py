"""TensorFlow's import without its start-up chatter."""

from __future__ import annotations

import os
import re
import sys
import tempfile

# A line of absl's C++ log, or what it says about itself before it is set up.
_CHATTER = re.compile(rb"[IWE]\d{4} |WARNING: All log messages before absl::InitializeLog")


def import_tensorflow() -> None:
    """Imports TensorFlow, TFP and Keras, for a process that is one run's.

    Their C++ parts log to file descriptor 2 before TensorFlow has read TF_CPP_MIN_LOG_LEVEL, for
    example that the machine has no GPU. Those lines are dropped; Python warnings and tracebacks are
    shown.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    shown = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
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
