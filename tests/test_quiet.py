"""What a run's process shows of TensorFlow's import, seen from a process of its own."""

import subprocess
import sys

PROGRAM = """
import warnings
from tfp_flowvae._quiet import import_tensorflow
import_tensorflow()
warnings.warn("mine")
import keras
print(keras.ops.add(1.0, 2.0).numpy())
"""


def test_the_chatter_is_dropped_and_warnings_are_shown():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "3.0\n"
    assert "UserWarning: mine" in done.stderr
    assert "absl" not in done.stderr
    assert "cudart" not in done.stderr
